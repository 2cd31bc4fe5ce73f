"""One text while it is generated: how far it has come, what of it is certain, and where it ends."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from aunet_lightning.generation import utf8
from aunet_lightning.generation.sampling import Sampling
from aunet_lightning.numbers import Range, check
from aunet_lightning.vocabulary import EOS


@dataclass(frozen=True)
class Request:
    """A text to be continued. What is drawn depends on `seed` and `sample` alone, and not on other requests.

    drawn: how many bytes (tokens) of the prompt were drawn before with this seed and sample: where a text that was
    stopped is continued, it goes on as if it had not been. Raises ValueError for a prompt that is no bytes.
    """

    prompt: bytes = b""
    seed: int = 0
    sample: int = 0
    drawn: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, bytes):
            raise ValueError(f"prompt is a {type(self.prompt).__name__}, it must be bytes: text.encode()")
        check("drawn", self.drawn, Range(least=0), whole=True)
        check("sample", self.sample, Range(least=0), whole=True)

    def draws(self) -> np.random.Generator:
        """Returns the source of its uniform draws."""
        source = np.random.default_rng([self.seed % 2**64, self.sample])
        source.random(self.drawn)
        return source


@dataclass(frozen=True)
class Text:
    """A request that was continued."""

    request: Request
    text: bytes  # what follows the prompt
    finish: str  # what ended it: bytes, units, stop (a string of `Sampling.stop`) or document (the model ended it)
    levels: list[int]  # of each byte; [] where they were not asked for
    removed: float  # mean probability of ids that UTF-8 does not allow

    @property
    def whole(self) -> bytes:
        """The prompt and what follows."""
        return self.request.prompt + self.text


@dataclass
class Growing:
    """A text that grows by one id after the other."""

    number: int  # of its request
    request: Request
    sampling: Sampling
    made: bytearray = field(default_factory=bytearray)
    levels: list[int] = field(default_factory=list)
    finish: str = ""
    removed: float = 0.0
    said: int = 0  # bytes that were handed out
    units: int = 0  # that began
    ids: int = 0  # that were drawn

    def __post_init__(self) -> None:
        self._draws, self.state = self.request.draws(), utf8.resumed(self.request.prompt)
        self._drawn: deque[float] = deque()  # for the next ids
        self._at = max((len(stop) for stop in self.sampling.stop), default=1) - 1  # bytes that a stop may begin in
        if not self.sampling.max_bytes:
            self.finish = "bytes"

    def draw(self, ahead: int = 0) -> float:
        """Returns the draw of the next id, or of one `ahead` of it, in [0, 1)."""
        while len(self._drawn) <= ahead:
            self._drawn.append(float(self._draws.random()))
        return self._drawn[ahead]

    def add(self, id_: int, text: bytes, state: int, removed: float) -> None:
        """Adds an id, its text, the state of UTF-8 after it, and the probability that was not allowed in its place."""
        self.draw()
        self._drawn.popleft()
        before = len(self.made)
        self.made += text
        self.state, self.removed, self.ids = state, self.removed + removed, self.ids + 1
        found = [at for stop in self.sampling.stop if (at := self.made.find(stop, max(before - self._at, 0))) >= 0]
        if found:
            self._end("stop", min(found))
        elif id_ == EOS:
            self._end("document", before)
        elif len(self.made) >= self.sampling.max_bytes:
            self._end("bytes", self.sampling.max_bytes)

    def level(self, levels: list[int]) -> None:
        """Adds the levels of the bytes of the last id."""
        for level in levels:
            self.units += level > 0
            if self.sampling.max_units is not None and self.units > self.sampling.max_units:
                self._end("units", min(len(self.levels), len(self.made)))
                break
            self.levels.append(level)
        del self.levels[len(self.made) :]

    def _end(self, why: str, at: int) -> None:
        self.finish = why
        del self.made[at:]
        if self.sampling.valid_utf8:
            del self.made[self._complete() :]

    def _complete(self) -> int:
        """Returns how many bytes are up to the last whole character."""
        last = (self.request.prompt[-3:] + self.made[-3:])[-3:]
        return max(len(self.made) - utf8.incomplete(last), 0)

    def certain(self) -> tuple[bytes, list[int]]:
        """Returns what has become certain since the last call, in whole characters, and its levels: no stop string can
        begin in it."""
        end = len(self.made)
        if not self.finish:
            end = self._complete()
            for stop in self.sampling.stop:
                held = next((n for n in range(len(stop) - 1, 0, -1) if self.made.endswith(stop[:n])), 0)
                end = min(end, len(self.made) - held)
        begin, self.said = self.said, max(end, self.said)
        return bytes(self.made[begin : self.said]), self.levels[begin : self.said]

    def done(self) -> Text:
        """Returns the finished text."""
        return Text(self.request, bytes(self.made), self.finish, self.levels, self.removed / max(self.ids, 1))
