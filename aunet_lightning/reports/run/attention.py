"""Attention weights of a sentence, computed beside the forward from the queries and keys of a block.

Kernels never return the weights, so a hook on the block's attention computes them once more, in the plain form.
Shapes: H heads, N positions of a stage, U units.
"""

import itertools
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aunet_lightning.model.attention import Beside
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.model.layers import Attention, Block, BlockContext, RMSNorm
from aunet_lightning.reader.levels import FixedLevels
from aunet_lightning.reader.reader import Reader
from aunet_lightning.reports.pictures import clusters
from aunet_lightning.reports.run.kept import Attended
from aunet_lightning.terminal import one_line
from aunet_lightning.vocabulary import BOS

SHORT = 40  # characters whose reading is shown one by one
BEGIN, AGAIN = "⟨BOS⟩", "″"  # the latter: of a second boundary on the same character


def plain_weights(attention: Attention, x: Tensor, norm: RMSNorm, context: BlockContext, window: int | None) -> Tensor:
    """Returns the weights [H, N, N] of the one row of x, a complete document: what `Attention.forward` attends with."""
    q, k = (
        context.rotation(part)
        for part in attention.normed(
            *(
                context.by_row(layer(norm(x))).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
                for layer in (attention.query, attention.key)
            )
        )
    )  # [1, H, N, K]
    scores = (q @ k.transpose(-1, -2))[0].float() * attention.head_dim**-0.5
    at = torch.arange(scores.shape[-1], device=scores.device)
    distance = at[:, None] - at
    sees = (distance >= 0) & (distance < (window or len(at)))
    return scores.masked_fill(~sees, -torch.inf).softmax(-1)


def weights_of(
    net: AUNet, blocks: Mapping[str, tuple[Block, int | None]], ids: Tensor, state: Any
) -> dict[str, Tensor]:
    """Returns the weights [N, N], the mean over heads, of some blocks (with their windows) as they read ids [1, L]."""
    found: dict[str, Tensor] = {}

    def hook(name: str, window: int | None) -> Any:
        def keep(module: Any, given: tuple[Any, ...]) -> None:
            x, norm, context, _ = given
            if not isinstance(context.mask, Beside):  # refreshes see what positions do not
                found[name] = plain_weights(module, x, norm, context, window).mean(0)

        return keep

    with ExitStack() as hooks:
        for name, (block, window) in blocks.items():
            handle = block.attention.register_forward_pre_hook(hook(name, window))
            hooks.callback(handle.remove)
        net(ids, state=state)
    return found


@torch.no_grad()
def attended(net: AUNet, reader: Reader, text: bytes) -> list[Attended]:
    """Returns which units each unit of the trunk reads, and which each character reads in the last stage-1 decoder.

    Nothing where devices hold parts of the weights, and of a model of tokens.
    """
    if net.sharded or reader.tokenizer is not None:
        return []
    bytes_, trunk = net.stages[0], net.stages[-1]
    blocks = {"trunk": (trunk.blocks[-1], trunk.config.window), "bytes": (bytes_.blocks[-1], bytes_.config.window)}
    ids = torch.tensor([[BOS, *text]], device=net.head.weight.device)
    output = net(ids, state=net.initial_state(1, reader.stack))
    levels = output.levels[0].cpu().numpy()  # BOS among them
    found = weights_of(net, blocks, ids, net.initial_state(1, reader.stack))
    shown = []
    if "trunk" in found and net.config.depth:
        names = unit_names(text, levels >= net.config.depth)
        shown.append(
            Attended(f"unit by unit, in the trunk (stage {len(net.stages)})", names, names, rounded(found["trunk"]))
        )
    if "bytes" in found:
        begin = len(text.decode("utf-8", "ignore")[:SHORT].encode())
        weights = found["bytes"][: begin + 1, : begin + 1]  # what follows changes nothing before it
        shown.append(_by_character(text[:begin], levels[: begin + 1], weights))
    return shown


def _by_character(text: bytes, levels: np.ndarray, weights: Tensor) -> Attended:
    """Weights [L, L] of BOS and bytes as those of characters (at the last byte of each) over units of stage 2, or over
    characters where there are none."""
    starts = _starts(text)
    characters = np.concatenate([[True], starts == np.arange(len(text))])
    pools = levels[1:].any()
    begins, what = (levels > 0, "units of stage 2") if pools else (characters, "characters")
    of = np.cumsum(begins) - 1
    into = torch.zeros(len(weights), int(of[-1]) + 1, device=weights.device)
    into[torch.arange(len(weights)), torch.from_numpy(of).to(weights.device)] = 1
    last = np.flatnonzero(np.append(characters[1:], True))  # of each character
    rows = weights[torch.from_numpy(last).to(weights.device)] @ into
    title = f"{what}, by character: in the last layer of stage 1"
    return Attended(title, unit_names(text, characters), unit_names(text, begins), rounded(rows))


def unit_names(text: bytes, begins: np.ndarray) -> list[str]:
    """Returns the text of each unit, of which `begins` bool [1 + len(text)] says where it begins (BOS first), from the
    character that carries its boundary to the one before the next."""
    starts = np.append(_starts(text), len(text))
    at = np.append(starts[np.flatnonzero(begins[1:])], len(text))
    pieces = [text[a:b].decode("utf-8", "replace") for a, b in itertools.pairwise([0, *at])]
    return [one_line(BEGIN + pieces[0]), *(one_line(piece) or AGAIN for piece in pieces[1:])]


def _starts(text: bytes) -> np.ndarray:
    """Where the grapheme cluster of each byte begins, [len(text)]."""
    sizes = [
        cluster.bytes
        for cluster in clusters(text, FixedLevels(0, {text.decode("utf-8", "surrogateescape"): [0] * len(text)}))
    ]
    return np.repeat(np.cumsum(sizes) - sizes, sizes)


def rounded(weights: Tensor) -> list[list[float]]:
    return [[round(value, 3) for value in row] for row in weights.cpu().tolist()]
