"""The autoregressive U-Net (AU-Net, arXiv 2506.14761).

    bytes → encoder 1 ────────── skip ──────────→ + decoder 1 → logits
              ↓ pool at boundaries          ↑ upsample
            encoder 2 ──── skip ────→ + decoder 2
              ↓ pool          ↑ upsample
                    trunk

There is one forward. Without a state it reads complete rows; with one it continues where the stream
stopped, by one byte or by many, and returns the state after. Nothing is kept on modules.
Learned splitters are part of the network: they read the output of the encoder below them.
Shapes: B rows, L bytes, N positions of a stage, U units, D width.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils import _pytree as pytree

from aunet_lightning.model.config import EMBEDDINGS, UPSAMPLINGS, AUNetConfig, StageConfig
from aunet_lightning.model.deciders import Decider
from aunet_lightning.model.embedding import NOTHING, Embedding, preceding
from aunet_lightning.model.exact import Exact
from aunet_lightning.model.init import draw, ones, seed_of
from aunet_lightning.model.kernels import dropped, normed_linear
from aunet_lightning.model.layers import Block, CausalConv, RMSNorm
from aunet_lightning.model.stage import Contracted, Stage
from aunet_lightning.model.state import StageState, State, put
from aunet_lightning.model.transition import Cut, Decision, Pooling, Transition
from aunet_lightning.model.units import Room, Stream
from aunet_lightning.model.upsampling import Upsampling
from aunet_lightning.vocabulary import BOS, EOS
from splitters import Splitter
from splitters.learned.predictor import Predictor
from splitters.registry import Spec
from splitters.stack import Stack


@dataclass(frozen=True)
class Output:
    """The result of a call of the model."""

    logits: Tensor  # [B, L, 258], of the byte that follows each
    state: State | None  # the stream after this call; None if it was called without one
    units: Tensor  # [B, depth] units begun in this call, per stage transition
    dropped: Tensor  # [B, depth] boundaries that a cap left out
    levels: Tensor  # uint8 [B, L] of each byte, as used
    decisions: tuple[Decision, ...]  # per stage transition, from bytes up; fewer where a step begins no unit
    refreshes: Tensor | None = None  # bool [B, L] bytes at which the vector of their unit was made anew; None: no such


pytree.register_dataclass(Output)  # FSDP looks for tensors in what modules return


class AUNet(nn.Module):
    """A byte-level language model with any number of stages; the deepest is the trunk.

    splitters: one per stage transition. Needed where one is learned, since its network is part of the model;
    otherwise levels come from the data, or from the stack that a state is made with. Raises ValueError where
    their number is not the number of transitions.
    """

    stages: list[Stage]  # views of the modules below, from bytes up
    reader: Any = None  # how its text is read (`Reader`), where it was loaded from a checkpoint

    def __init__(self, config: AUNetConfig, splitters: Sequence[Spec] | Stack = ()) -> None:
        super().__init__()
        self.config = config
        stack = splitters if isinstance(splitters, Stack) else Stack(splitters)
        if stack.depth not in (0, config.depth):
            raise ValueError(_wrong_depth(stack, config))
        self.stack = stack if stack.depth else None
        stages, upsampling = config.stages, UPSAMPLINGS.get(config.upsampling)
        pairs = list(itertools.pairwise(stages))
        # Names and order of modules are those of checkpoints, of random seeds and of the published map.
        self.embedding: Embedding = EMBEDDINGS.get(config.embedding)(config)
        self.encoders = nn.ModuleList(_blocks(config, stage) for stage in stages[:-1])
        self.poolings = nn.ModuleList(Pooling(fine.dim, coarse.dim, config.norm_eps) for fine, coarse in pairs)
        self.predictors = nn.ModuleDict(_predictors(stack, stages))
        self.trunk = _blocks(config, stages[-1])
        self.upsamplings = nn.ModuleList(upsampling(fine.dim, coarse.dim, config) for fine, coarse in pairs)
        self.decoders = nn.ModuleList(_blocks(config, stage) for stage in stages[:-1])
        self.norm = RMSNorm(stages[0].dim, eps=config.norm_eps)
        self.head = nn.Linear(stages[0].dim, config.vocabulary, bias=False)
        self.stages = [self._stage(s, stack) for s in range(len(stages))]
        self._exact, self._learned = Exact(), max(map(int, self.predictors), default=-1) + 1
        self.init_weights()

    @classmethod
    def from_pretrained(cls, path: str | Path) -> AUNet:
        """Returns the network of a checkpoint, or of what `aunet export` wrote, in evaluation mode on the CPU, with the
        `reader` of its text. Raises UserError where it is damaged, or its splitters now place other boundaries."""
        checkpoints = importlib.import_module("aunet_lightning.checkpoints.load")  # which knows networks
        return cast(AUNet, checkpoints.load(path)[0])

    def _stage(self, s: int, stack: Stack) -> Stage:
        if s == self.config.depth:
            return Stage(s, self.config, self.trunk, None, None)
        above = stack.rules[s] if stack.n_byte_rules < s < stack.depth else None
        rule = above if isinstance(above, Splitter) else None
        pooling, upsampling = cast(Pooling, self.poolings[s]), cast(Upsampling, self.upsamplings[s])
        transition = Transition(s, self.config, pooling, upsampling, self.predictors, rule)
        encoder, decoder = cast(nn.ModuleList, self.encoders[s]), cast(nn.ModuleList, self.decoders[s])
        return Stage(s, self.config, encoder, decoder, transition)

    def forward(
        self,
        ids: Tensor,
        levels: Tensor | list[list[int]] | None = None,
        state: State | None = None,
        deciders: Mapping[int, Decider] | None = None,
        rooms: Sequence[Room] = (),
        lengths: Sequence[int] | None = None,
        refreshes: Tensor | list[list[bool]] | None = None,
    ) -> Output:
        """Reads ids [B, L] (int, < 258) with levels [B, L] and returns the logits of what follows each.

        The first position of a stream, and with document masking or below a learned splitter every BOS, has
        the highest level whatever `levels` says. `levels` may be left out where there is one stage, where the
        first splitter is learned, or where the state has the splitters' steppers.
        deciders: by transition (0: from bytes), deciders that replace the model's own in this call.
        rooms: of the first transitions, for their units (see `rooms_for`). Where there is none, the number of units is
        read from the device, once per transition: it has to be below a learned splitter's upper stage.
        lengths [B]: of each row, how many ids to read with a state; what comes after them is not looked at, and its
        logits are arbitrary.
        refreshes: bool [B, L], the bytes inside units of stage 2 at which the unit's vector is made anew. Where the
        network's splitter refreshes units, they come with levels.
        Raises ValueError for shapes that do not match, or levels missing.
        """
        stream, state = self._stream(ids, levels, state, lengths, refreshes)
        past = state.stages if state is not None else (None,) * len(self.stages)
        *stages, trunk = self.stages
        x, recent = self._embed(stream, state)
        contracted: list[Contracted] = []
        after = list(past)
        exact, kind = self._exact_stages(), x.dtype
        above: tuple[Tensor, Stream] | None = (x, stream)
        index = stream.index
        for s, stage in enumerate(stages):  # h_s = Encoder_s(x_s), x_{s+1} = W_down · RMSNorm(h_s[boundaries_s])
            room = rooms[s] if s < len(rooms) else None
            decider = (deciders or {}).get(s)
            if s < exact:
                with torch.autocast(x.device.type, enabled=False):
                    way = stage.contract(x.double(), stream, past[s], decider, room, self._exact)
            else:
                way = stage.contract(x.to(kind), stream, past[s], decider, room)
            contracted.append(way)
            above = contracted[-1].above
            if above is None:  # a step that begins no unit ends here
                break
            x, stream = above
        y: Tensor | None = None
        if above is not None:  # y_S = Trunk(x_S)
            y, after[-1] = trunk.run(above[0].to(kind), above[1], past[-1])
        for s, way in reversed([*enumerate(contracted)]):  # y_s = Decoder_s(Upsample_s(y_{s+1}) + h_s)
            y, after[s] = stages[s].expand(y, way, past[s])

        assert y is not None
        logits = normed_linear(y, self.norm, [self.head])[0]
        if state is not None:
            logits = cast(Tensor, put(None, index, logits, len(ids)))
            self._miss(ids, after, contracted)
            state = replace(state, stages=cast(tuple[StageState, ...], tuple(after)), recent=recent)
        return self._output(ids, logits, [way.cut for way in contracted], state)

    def _exact_stages(self) -> int:
        """Returns how many stages decide in float64: those up to the last learned splitter, where no gradient is
        needed, on one device that has float64."""
        if torch.is_grad_enabled():
            if not torch.compiler.is_compiling():  # there, `train` forgets
                self._exact.forget()
            return 0
        sharded = hasattr(self, "unshard")  # FSDP2 has made this an FSDPModule
        return 0 if sharded or self.head.weight.device.type == "mps" else self._learned

    def train(self, mode: bool = True) -> AUNet:
        self._exact.forget()
        return super().train(mode)

    def _embed(self, stream: Stream, state: State | None) -> tuple[Tensor, Tensor | None]:
        """Returns vectors [R, L, D] of stage 1, and the last ids [B, C] where the embedding reads C before each."""
        dropout = self.config.dropout if self.training else 0.0
        if not self.embedding.context:
            return dropped(self.embedding(stream.ids), dropout), None
        known = state.recent if state is not None else None
        before, recent = preceding(
            stream.ids,
            known if known is None or stream.index is None else known[stream.index],
            self.embedding.context,
            self.config.document_masking,
            stream.valid,
        )
        if state is not None and stream.index is not None:
            known = recent.new_full((len(state.fresh), self.embedding.context), NOTHING) if known is None else known
            recent = known.index_copy(0, stream.index, recent)
        return dropped(self.embedding(stream.ids, before), dropout), recent

    def _stream(
        self,
        ids: Tensor,
        levels: Tensor | list[list[int]] | None,
        state: State | None,
        lengths: Sequence[int] | None,
        refreshes: Tensor | list[list[bool]] | None,
    ) -> tuple[Stream, State | None]:
        """Returns the bytes of a call as positions of the first stage, and the state with the rules' steppers after."""
        depth, rows = self.config.depth, range(len(ids))
        at = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        valid = torch.ones_like(ids, dtype=torch.bool)
        if lengths is not None:
            valid = at < torch.tensor(lengths, device=ids.device)[:, None]
            ids = ids.masked_fill(~valid, EOS)
        if levels is None and (depth == 0 or (self.stack is not None and self.stack.n_byte_rules == 0)):
            levels = torch.zeros_like(ids)
        elif levels is None and state is not None:
            listed = ids.tolist()
            levels, steppers = state.step_levels(listed, rows)
            state = replace(state, steppers=steppers)
            if self.refreshes:
                refreshes, refreshers = state.step_refreshes(listed, rows)
                state = replace(state, refreshers=refreshers)
        if refreshes is None and self.refreshes:
            raise ValueError("refreshes are missing: the splitter refreshes units, so they come with levels")
        known: tuple[int, ...] | None = None
        if isinstance(levels, list):
            if ids.shape[1] == 1 and state is not None:
                pairs = zip(levels, state.fresh, strict=True)
                known = tuple(depth if fresh else level for (level,), fresh in pairs)
            levels = torch.tensor(levels, device=ids.device)
        if levels is None or ids.dim() != 2 or levels.shape != ids.shape or ids.shape[1] == 0:
            got = "no levels" if levels is None else f"levels {list(levels.shape)}"
            raise ValueError(f"ids {list(ids.shape)} came with {got}: both must be [B, L] with L at least 1")
        known_refresh = [one for (one,) in refreshes] if known is not None and isinstance(refreshes, list) else None
        refresh = None if refreshes is None else torch.as_tensor(refreshes, dtype=torch.bool, device=ids.device)
        if refresh is not None and refresh.shape != ids.shape:
            raise ValueError(f"ids {list(ids.shape)} came with refreshes {list(refresh.shape)}: both must be [B, L]")
        begins = ids == BOS
        masked = self.config.document_masking
        documents = begins.cumsum(1) if masked else None
        forced = begins if masked or self.predictors else torch.zeros_like(begins)
        if state is None:
            forced = forced | (at == 0)
        elif any(state.fresh):
            forced = forced | ((at == 0) & torch.tensor(state.fresh, device=ids.device)[:, None])
        levels = levels.masked_fill(forced, depth)
        begins = begins if masked else torch.zeros_like(begins)
        stream = Stream(
            ids, levels, valid, at, forced, documents, begins, sum(lengths) if lengths is not None else ids.numel(),
            rows if state is not None else (), known=known, refresh=refresh, known_refresh=known_refresh,
        )  # fmt: skip
        if lengths is not None and not all(lengths):
            stream = stream.of([row for row in rows if lengths[row]])
        return stream, state

    def _miss(self, ids: Tensor, after: list[StageState | None], contracted: Sequence[Contracted]) -> None:
        """Lets rules above a learned splitter see the bytes of the rows that had no position of their stage."""
        for s, stage in enumerate(self.stages):
            one = after[s]
            if one is not None and one.steppers:
                reached = contracted[s].stream.rows if s < len(contracted) else ()
                after[s] = stage.miss(one, ids, [row for row in range(len(ids)) if row not in reached])

    def _output(self, ids: Tensor, logits: Tensor, cuts: Sequence[Cut], state: State | None) -> Output:
        levels = torch.zeros_like(ids, dtype=torch.uint8)
        counts = torch.zeros(2, len(ids), self.config.depth, dtype=torch.long, device=ids.device)
        for s, cut in enumerate(cuts):
            decision, rows = cut.decision, cut.decision.stream.index
            boundary = decision.boundary.to(torch.uint8)
            if rows is None:
                levels.scatter_add_(1, decision.at, boundary)
            else:
                levels.index_put_((rows[:, None], decision.at), boundary, accumulate=True)
            of = slice(None) if rows is None else rows
            counts[0, of, s] = decision.boundary.sum(1)
            if decision.dropped is not None:
                counts[1, of, s] = decision.dropped
        refreshes = None
        if cuts and (found := cuts[0].decision.refresh) is not None:
            rows = cuts[0].decision.stream.index
            refreshes = cast(Tensor, put(None, rows, found, len(ids)))
        return Output(logits, state, counts[0], counts[1], levels, tuple(cut.decision for cut in cuts), refreshes)

    @property
    def refreshes(self) -> bool:
        """Whether its splitter makes vectors anew inside units."""
        return self.stack is not None and self.stack.refreshes is not None

    @property
    def sharded(self) -> bool:
        """Whether devices hold parts of parameters."""
        return any(isinstance(parameter, DTensor) for parameter in self.parameters())

    def initial_state(self, batch: int, stack: Stack | None = None, constant: bool = False) -> State:
        """Returns the state of `batch` streams that have not begun.

        With `stack` (by default the model's own), the forward works out levels from the bytes it is given; a
        stack whose depth, learned transitions or refreshes are not the model's raises ValueError.
        constant: the weights stay as they are while the stream continues, so that steps may keep them in another form.
        """
        stack = stack or self.stack
        if stack is not None and stack.depth != self.config.depth:
            raise ValueError(_wrong_depth(stack, self.config))
        learned = [s for s, stage in enumerate(self.stages) if stage.predictor is not None]
        if stack is not None and [*stack.learned] != learned:
            raise ValueError(
                f"the stack is learned at transitions {[*stack.learned] or 'none'}, the model at "
                f"{learned or 'none'}: make the model with the same splitters"
            )
        if stack is not None and (stack.refreshes is not None) != self.refreshes:
            one, other = ("model", "stack") if self.refreshes else ("stack", "model")
            raise ValueError(f"the {one} refreshes units, the {other} does not: make the model with the same splitters")
        folded = [stage.folded() if constant and not self.sharded else () for stage in self.stages]
        return State.initial(batch, self.head.weight.device, stack, folded)

    def rooms_for(self, n_units: Sequence[Sequence[int]], n_refreshes: Sequence[int] | None = None) -> list[Room]:
        """Returns the rooms of a batch whose rows begin n_units[s] units at transition s, with n_refreshes inside, as
        batches of `ByteDataModule` count them; where a cap leaves units out, nobody knows before how many are left."""
        pairs = zip(self.config.stages[1:], n_units, strict=False)  # of rules that read bytes
        uncapped = itertools.takewhile(lambda pair: pair[0].max_units is None, pairs)
        rooms = [Room.of(counts, self.config.round_units_to) for _, counts in uncapped]
        if rooms and n_refreshes is not None:
            rooms[0] = rooms[0]._replace(inside=Room.of(n_refreshes, self.config.round_units_to))
        return rooms

    def init_weights(self, seed: int | None = None) -> None:
        """Draws every parameter (and buffer) anew: truncated normals of deviation 1/sqrt(inputs).

        What a block adds to its residual stream is scaled down by the stage's depth, as usual. Predictors draw
        their own. Each value is a function of the seed (None: one is drawn) and of its place alone. Weights on the
        meta device are left there.
        """
        seed = int(torch.randint(2**62, (), device="cpu")) if seed is None else seed
        self.init_predictors(seed)
        self.init_weights_drawn(seed)

    def init_weights_drawn(self, seed: int) -> None:
        """The same for all but learned splitters; the network may be sharded."""
        scales: dict[nn.Module, float] = {}  # of the last layers of blocks
        for blocks in (blocks for stage in self.stages for blocks in stage.block_lists):
            for block in cast(Iterable[Block], blocks.children()):
                lasts = (block.attention.out, block.ffn.down, block.conv)
                scales |= {
                    last: self.config.residual_init * (2 * len(blocks)) ** -0.5 for last in lasts if last is not None
                }
        theirs = set(self.predictors.modules())
        for name, module in self.named_modules():
            for key, parameter in module.named_parameters(recurse=False):
                if module in theirs or parameter.is_meta:
                    continue
                if isinstance(module, RMSNorm):
                    ones(parameter)
                else:
                    inputs = len(parameter) if isinstance(module, CausalConv) else parameter.shape[-1]
                    scale = scales.get(module, getattr(module, "init_scale", 1.0))
                    draw(parameter, inputs**-0.5, scale, f"{seed}/{name}.{key}")

    def init_predictors(self, seed: int) -> None:
        """Draws the parameters of learned splitters anew, which is to be done before they are sharded."""
        for s, predictor in self.predictors.items():
            if not any(parameter.is_meta for parameter in predictor.parameters()):
                with torch.random.fork_rng(devices=[]), torch.no_grad():
                    torch.manual_seed(seed_of(f"{seed}/predictors.{s}"))
                    cast(Predictor, predictor).init_weights()


def _blocks(config: AUNetConfig, stage: StageConfig) -> nn.ModuleList:
    return nn.ModuleList(Block(config, stage) for _ in range(stage.layers))


def _predictors(stack: Stack, stages: Sequence[StageConfig]) -> dict[str, nn.Module]:
    """Returns the networks of learned splitters by transition. Raises ValueError for one that is not a Predictor."""
    found: dict[str, nn.Module] = {}
    for s, rule in stack.learned.items():
        predictor = rule.predictor(stages[s].dim)
        if not isinstance(predictor, Predictor):
            raise ValueError(
                f"{type(rule).__name__}.predictor returned a {type(predictor).__name__}, not a "
                "splitters.predictors.Predictor"
            )
        if "bias" not in dict(predictor.named_buffers()):
            raise ValueError(f"the bias of {type(predictor).__name__} is not a buffer: leave it to Predictor.__init__")
        found[str(s)] = predictor
    return found


def _wrong_depth(stack: Stack, config: AUNetConfig) -> str:
    return f"the stack has {stack.depth} rules, but a model of {config.depth + 1} stages takes {config.depth}"
