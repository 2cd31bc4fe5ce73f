"""Texts that a model continues in one batch, which they join and leave one by one.

Shapes: B rows, V ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from aunet_lightning.generation import utf8
from aunet_lightning.generation.reading import padded, read
from aunet_lightning.generation.sampling import Sampling, choose
from aunet_lightning.generation.text import Growing, Request, Text
from aunet_lightning.model.aunet import AUNet, Output
from aunet_lightning.model.captured import Captured
from aunet_lightning.model.state import State
from aunet_lightning.reader.reader import Reader
from aunet_lightning.vocabulary import BOS, EOS

SHARED = 8  # rows of a step from which threads pay


class Piece(NamedTuple):
    """What has become certain of a text in a step: whole characters, in which no stop string can begin."""

    number: int  # of the request
    text: bytes
    levels: list[int]  # of its bytes; [] where they are not asked for
    done: Text | None = None  # the whole text, where it is finished; then it has left


class Choice(NamedTuple):
    """An id that was chosen for a text."""

    id: int
    state: int  # of UTF-8 after it
    removed: float  # probability of ids that were not allowed


class Batch:
    """B texts that are continued together, each as if it were alone, and all by the same `sampling`.

    levels: whether pieces have them. compiled: see `generate`. Raises ValueError for `max_units` where the model has no
    units, and for steps that can't be compiled.
    """

    def __init__(
        self, net: AUNet, reader: Reader, sampling: Sampling, rows: int, levels: bool = False, compiled: bool = False
    ) -> None:
        self._levels, self._compiled = levels or sampling.max_units is not None, compiled
        self._captured: Captured | None = None
        if sampling.max_units is not None and reader.depth == 0:
            raise ValueError("units: the model reads bytes alone, in no units: leave it out, or limit the bytes")
        if self._levels and compiled:
            raise ValueError("a compiled step does not tell where units begin: leave out compile, or units")
        self._net, self._reader, self._sampling = net, reader, sampling
        self._texts, self._size = reader.bytes_of, len(reader.bytes_of)
        self._after = utf8.table_of(self._texts)
        self._rows: list[Growing | None] = [None] * rows
        self._joining: list[int] = []
        self._logits = np.zeros((rows, self._size))
        self._seen = np.zeros((rows, self._size), bool) if sampling.repetition_penalty != 1 else None
        self._state = net.initial_state(rows, reader.stack, constant=True)

    @property
    def free(self) -> int:
        """How many texts may join."""
        return self._rows.count(None)

    @property
    def empty(self) -> bool:
        """Whether no text is in it."""
        return self.free == len(self._rows)

    def join(self, number: int, request: Request) -> None:
        """Adds a text; number: what its pieces are known by. Raises ValueError where no row is free, or a text of this
        number is in the batch."""
        if self.free == 0:
            raise ValueError(f"no row is free, all {len(self._rows)} continue a text: step until one is")
        if any(text is not None and text.number == number for text in self._rows):
            raise ValueError(f"a text with the number {number} is in the batch: give each another one")
        row = self._rows.index(None)
        self._rows[row] = Growing(number, request, self._sampling)
        self._joining.append(row)

    def run(self, requests: Sequence[Request]) -> Iterator[Piece]:
        """Yields the texts of requests piece by piece; each joins as soon as there is room."""
        waiting = enumerate(requests)
        while True:
            for _ in range(self.free):
                if (one := next(waiting, None)) is not None:
                    self.join(*one)
            if self.empty:
                return
            yield from self.step()

    def step(self) -> list[Piece]:
        """Continues each text by one id, and returns what is new and certain; finished texts have left."""
        with _inference(self._net), _threads(len(self._rows), self._net):
            if self._joining:
                self._read_prompts()
            going = {row: text for row, text in enumerate(self._rows) if text is not None and not text.finish}
            if going:
                self._advance(going)
        pieces = []
        for row, text in enumerate(self._rows):
            if text is None:
                continue
            new, levels = text.certain()
            if new or text.finish:
                pieces.append(Piece(text.number, new, levels, text.done() if text.finish else None))
            if text.finish:
                self._rows[row] = None
        return pieces

    def _read_prompts(self) -> None:
        joining, self._joining = self._joining, []
        prompts = self._reader.encode([text.request.prompt for row in joining if (text := self._rows[row])])
        rows: list[list[int]] = [[] for _ in self._rows]
        for row, prompt in zip(joining, prompts, strict=True):
            rows[row] = [BOS, *map(int, prompt)]
            if self._seen is not None:
                self._seen[row] = False
                self._seen[row, rows[row]] = True
        used = [row for row in joining if not self._state.fresh[row]]
        state = self._state.anew(used) if used else self._state
        with torch.compiler.set_stance("force_eager"):  # a compiled network would be compiled for each shape
            logits, self._state = read(self._net, rows, state)
        self._logits[joining] = self._host(logits)[joining]
        self._captured = Captured(self._net, self._state) if self._compiled and self._sampling.max_bytes else None

    def _advance(self, going: dict[int, Growing]) -> None:
        """Gives each text its next id, and reads it."""
        rows, ids = [*going], [EOS] * len(self._rows)
        states, draws = [text.state for text in going.values()], [text.draw() for text in going.values()]
        picked = self._pick(self._logits[rows], states, draws, None if self._seen is None else self._seen[rows])
        for (row, text), choice in zip(going.items(), picked, strict=True):
            ids[row] = choice.id
            self._add(row, text, choice)
        reads = [row for row, text in going.items() if self._levels or not text.finish]
        if self._captured is not None:
            self._logits[:] = self._host(self._captured(ids[0])) if reads else 0
        elif reads:
            output = self._call([[id_] if row in reads else [] for row, id_ in enumerate(ids)])
            self._state = cast(State, output.state)
            self._logits[reads] = self._host(output.logits[:, -1])[reads]
            self._tell_levels({row: ids[row] for row in reads}, output.levels[:, 0])

    def _pick(
        self, logits: np.ndarray, states: Sequence[int], draws: Sequence[float], seen: np.ndarray | None
    ) -> list[Choice]:
        """Returns what follows in R rows with logits [R, V], of texts in these states of UTF-8."""
        after = self._after[list(states)]
        after[:, EOS] = np.where(np.equal(states, utf8.COMPLETE), utf8.COMPLETE, utf8.NEVER)
        allowed = after != utf8.NEVER if self._sampling.valid_utf8 else None
        ids, removed = choose(logits, self._sampling, draws, allowed, seen)
        pairs = zip(ids, after[np.arange(len(ids)), ids].tolist(), removed, strict=True)
        return [Choice(id_, max(state, utf8.COMPLETE), share) for id_, state, share in pairs]

    def _add(self, row: int, text: Growing, choice: Choice) -> None:
        text.add(choice.id, self._texts[choice.id], choice.state, choice.removed)
        if self._seen is not None:
            self._seen[row, choice.id] = True

    def _call(self, rows: Sequence[Sequence[int]], **options: Any) -> Output:
        """Reads the ids of B rows, as many as each has, from the state (or another one)."""
        ids, lengths = padded(rows, self._net.head.weight.device)
        with torch.compiler.set_stance("force_eager"):
            return cast(Output, self._net(ids, **{"state": self._state, "lengths": lengths} | options))

    def _tell_levels(self, ids: Mapping[int, int], levels: Tensor) -> None:
        """Tells texts the levels of the bytes of an id that they have read, where they are asked for; levels [B]."""
        if not self._levels:
            return
        for row, id_ in ids.items():
            level = 1 if self._reader.tokenizer is not None else int(levels[row])
            cast(Growing, self._rows[row]).level([level, *[0] * len(self._texts[id_])][: len(self._texts[id_])])

    def _host(self, logits: torch.Tensor) -> np.ndarray:
        """Returns logits [..., V] of the ids that have a text."""
        return logits[..., : self._size].float().cpu().numpy()


@contextmanager
def _inference(net: AUNet) -> Iterator[None]:
    with torch.inference_mode(not net.sharded), torch.no_grad():  # what FSDP gathers must serve training afterwards
        yield


@contextmanager
def _threads(rows: int, net: AUNet) -> Iterator[None]:
    """One thread on a CPU where a step is of few rows: its products are too small to share."""
    before = torch.get_num_threads()
    few = rows < SHARED and before > 1 and net.head.weight.device.type == "cpu"
    if few:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if few:
            torch.set_num_threads(before)
