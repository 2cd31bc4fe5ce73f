"""Steps of one row as compiled graphs: the one forward, traced once for each number of stages that a byte reaches.

Overhead is most of an eager step of one row, some thousand calls of PyTorch. A graph has none; it takes tens of seconds
to compile, and so pays from some ten thousand bytes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import GraphModule

from aunet_lightning.model.aunet import AUNet
from aunet_lightning.model.config import AUNetConfig
from aunet_lightning.model.ring import Ring
from aunet_lightning.model.state import TURNS, StageState, State
from aunet_lightning.vocabulary import BOS


class Captured:
    """A stream of one row that continues byte by byte in its document, while the weights stay as they are. It begins
    with a state that has read something, which stays valid."""

    def __init__(self, net: AUNet, state: State, backend: str = "inductor") -> None:
        """backend: of torch.compile. Raises ValueError where `why_not` gives a reason."""
        if (reason := why_not(net, state, backend)) is not None:
            raise ValueError(f"steps can't be compiled: {reason}")
        self._config, self._rules = net.config, replace(state, stages=())  # the steppers
        caches = [stage.cache for stage in state.stages]
        self._counts, self._begins = [cache.count[0] for cache in caches], [cache.begin[0] for cache in caches]
        self._turned = self._counts.copy()  # where the angles of each stage begin
        self._stages = [_own(stage, net.config, s) for s, stage in enumerate(state.stages)]
        self._ids = torch.zeros(1, 1, dtype=torch.long, device=net.head.weight.device)
        self._arguments = net, self._ids, self._stages, state.recent.clone() if state.recent is not None else None
        self._graphs = [_Graph(backend) for _ in self._stages]

    def __call__(self, id_: int) -> Tensor:
        """Reads a byte or EOS, and returns the logits [1, V] of what follows. Raises ValueError for BOS."""
        if id_ == BOS:
            raise ValueError("a compiled step does not begin a document: make a new state")
        self._ids.fill_(id_)
        level = 0
        if self._rules.steppers:
            ((level,),), steppers = self._rules.step_levels([[id_]], (0,))
            self._rules = replace(self._rules, steppers=steppers)
        for s in range(level + 1):
            self._make_room(s)
        return self._graphs[level](*self._arguments, level)

    def _make_room(self, s: int) -> None:
        """Makes room for a position of stage s, which the next step reaches."""
        ring, count, window = cast(Ring, self._stages[s].cache), self._counts[s], self._config.stages[s].window
        self._counts[s] = count + 1
        full, turned = count - self._begins[s] >= len(ring.mask) != window, count == self._turned[s] + TURNS
        if not (full or turned):
            return
        if full:
            ring = _marked(ring.grown(count, window))
        if turned:
            ring = ring.turned(count, self._config.stages[s].head_dim, self._config.rope_theta)
            self._turned[s] = count
        self._stages[s] = replace(self._stages[s], cache=cast(Any, ring))
        for graph in self._graphs:
            graph.forget()


class _Graph:
    """`_step` for one stream and level, compiled. Its inputs are the same tensors in each call until `forget`, so that
    only the graph itself runs: neither guards nor the search for inputs."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._run: Callable[[], Any] | None = None
        own = FunctionType(_step.__code__.replace(), _step.__globals__)  # what is compiled is kept by code
        options: dict[str, Any] = {"guard_filter_fn": _shapes}
        self._traced = torch.compile(own, fullgraph=True, backend=self._compile, options=options)

    def __call__(self, *arguments: Any) -> Tensor:
        if self._run is None:
            return cast(Tensor, self._traced(*arguments))
        return cast(Tensor, self._run()[0])

    def forget(self) -> None:
        self._run = None

    def _compile(self, module: GraphModule, examples: list[Any]) -> Callable[..., Any]:
        """The backend of torch.compile: keeps what a call was given."""
        compiled: Callable[..., Any] = module.forward
        if self._backend == "inductor":
            options = {"cpp_wrapper": True, "size_asserts": False}  # a third of a step would be Python otherwise
            compiled = cast(Callable[..., Any], torch._inductor.compile(module, examples, options=options))

        def call(*inputs: Any) -> Any:
            self._run = run = partial(compiled, *inputs)
            return run()

        return call


def _shapes(guards: Sequence[Any]) -> list[bool]:
    """Which guards are kept: nothing but shapes can be other than what was compiled for."""
    return [guard.guard_type == "SHAPE_ENV" for guard in guards]


def why_not(net: AUNet, state: State, backend: str = "inductor") -> str | None:
    """Returns why steps from a state can't be compiled, None where they can."""
    if len(state.fresh) != 1:
        return f"it is done for one text at a time, and here are {len(state.fresh)}"
    if state.fresh[0]:
        return "nothing has been read yet"
    if net.predictors:
        return "a learned splitter decides in the middle of a step"
    if any(stage.max_units is not None for stage in net.config.stages):
        return "max_units decides in the middle of a step"
    if net.refreshes:
        return "the splitter refreshes units, and a graph keeps all that it reads"
    if net.sharded:
        return "the weights are sharded"
    compilers = [name for name in torch._inductor.config.cpp.cxx if name]
    if backend == "inductor" and net.head.weight.device.type == "cpu" and not any(map(shutil.which, compilers)):
        return f"there is no C++ compiler ({', '.join(compilers)}): install one, or name it in $CXX"
    return None


def _step(net: AUNet, ids: Tensor, stages: list[StageState], recent: Tensor | None, level: int) -> Tensor:
    """Reads ids [1, 1] of a level, returns logits [1, V], and writes the state after into the one before."""
    output = net.forward(ids, [[level]], State(tuple(stages), recent=recent))  # the network may itself be compiled
    assert output.state is not None
    if recent is not None:
        recent.copy_(cast(Tensor, output.state.recent))
    for old, new in zip(stages, output.state.stages, strict=True):
        for target, source in zip(_tensors(old), _tensors(new), strict=True):
            target.copy_(source)
    return output.logits[:, 0]


def _tensors(stage: StageState) -> list[Tensor]:
    """What a step changes in a stage's state, but keys and values, which it writes where they are."""
    ring, unit = cast(Ring, stage.cache), stage.unit
    return [ring.count, unit.offset, *([] if unit.vector is None else [unit.vector]), *ring.recent]


def _marked(ring: Ring) -> Ring:
    """Tells the compiler which sizes change."""
    for keys, values in ring.layers:
        torch._dynamo.maybe_mark_dynamic(keys, 3)
        torch._dynamo.maybe_mark_dynamic(values, 2)
    torch._dynamo.maybe_mark_dynamic(ring.mask, 0)
    return ring


def _own(stage: StageState, config: AUNetConfig, s: int) -> StageState:
    """Returns a stage's state that may be written to, with a ring."""
    own = config.stages[s]
    ring = Ring.of(stage.cache, own.window, own.head_dim, config.rope_theta)
    vector = None if stage.unit.vector is None else stage.unit.vector.clone()
    unit = replace(stage.unit, offset=stage.unit.offset.clone(), vector=vector)
    return replace(stage, cache=cast(Any, _marked(ring)), unit=unit)
