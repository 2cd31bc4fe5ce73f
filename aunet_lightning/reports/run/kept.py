"""What the page of a run keeps of its model: a line per validation, and a closer look at the last one."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aunet_lightning.paths import replace_text


@dataclass(frozen=True)
class Look:
    """What a model made of the same prompts and sentences at one validation."""

    step: int
    samples: Sequence[tuple[str, str]] = ()  # prompt, and the text that begins with it
    levels: Mapping[str, Sequence[int]] = field(default_factory=dict)  # of learned splitters: of each sentence's bytes


@dataclass(frozen=True)
class Reading:
    """A sentence as a model reads it."""

    name: str  # of its script
    text: str
    levels: Sequence[int]  # of each byte
    bits: Sequence[float]  # of each byte, given those before; of a token, in equal parts on its bytes


@dataclass(frozen=True)
class Attended:
    """Attention over a sentence: the mean of a block's heads."""

    title: str
    rows: Sequence[str]  # what reads
    columns: Sequence[str]  # what is read
    weights: Sequence[Sequence[float]]  # [rows][columns], each row adds up to 1


@dataclass(frozen=True)
class CloseLook:
    """What is kept of the last validation alone."""

    step: int = 0
    depth: int = 0  # the highest level
    readings: Sequence[Reading] = ()
    attended: Sequence[Attended] = ()
    lengths: Mapping[str, Mapping[str, Sequence[int]]] = field(default_factory=dict)
    """stage → language → held-out units of 0, 1, … bytes, the last one and longer"""
    seconds: Mapping[str, float] = field(default_factory=dict)  # of the run so far, by what they went to


def read_looks(path: Path) -> list[Look]:
    """Returns the looks of a file, by step. Lines that are none are left out: the page is no reason to end a run."""
    found: dict[int, Look] = {}
    for line in _text(path).splitlines():
        with suppress(ValueError, TypeError, KeyError, AttributeError):
            of = json.loads(line)
            samples = [(str(prompt), str(text)) for prompt, text in of["samples"]]
            found[int(of["step"])] = Look(int(of["step"]), samples, dict(of["levels"]))
    return [found[step] for step in sorted(found)]


def write_looks(path: Path, looks: Sequence[Look]) -> None:
    """Writes a line per look. Raises OSError."""
    replace_text(path, "".join(_json(asdict(look)) + "\n" for look in looks))


def read_close_look(path: Path) -> CloseLook:
    """Returns what a file keeps; an empty look where there is none, or it is damaged."""
    with suppress(ValueError, TypeError, KeyError):
        of = json.loads(_text(path))
        readings = [Reading(**one) for one in of.pop("readings")]
        return CloseLook(readings=readings, attended=[Attended(**one) for one in of.pop("attended")], **of)
    return CloseLook()


def write_close_look(path: Path, look: CloseLook) -> None:
    """Writes the look. Raises OSError."""
    replace_text(path, _json(asdict(look)))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
