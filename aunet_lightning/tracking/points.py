"""metrics.jsonl: every point of a run, one per line. Damaged lines are set aside and the rest is used."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_warn

Point = dict[str, Any]  # {"step": 3, "time": ms since 1970, "metrics": {"val/bpb": 2.1}}
SHOWN = 5  # line numbers in a warning


class Read(NamedTuple):
    """The contents of a file."""

    points: list[Point]
    sure: int | None  # number of points before the first damaged line; None: no line is damaged


def read_points(path: Path, mend: bool) -> Read:
    """Returns the points of a file.

    A last line cut short by a kill is removed: its point is logged again. Other lines that are not points move to
    FILE.damaged, with a warning. The file changes only with `mend`, as another process may be writing to it.
    """
    if not path.exists():
        return Read([], None)
    data = path.read_bytes()
    complete, _, cut = data.rpartition(b"\n")
    lines = complete.split(b"\n") if complete else []
    if cut and _point(cut) is not None:  # complete but for its end of line
        lines.append(cut)
    points, kept, damaged = list[Point](), list[bytes](), dict[int, bytes]()
    sure = None
    for number, line in enumerate(lines, 1):
        text = line.strip(b"\0 \t\r")  # zeros: from a power failure
        point = _point(text)
        if text != line.strip() or (point is None and text):
            damaged[number] = line
            sure = len(points) if sure is None else sure
        if point is not None:
            points.append(point)
            kept.append(text)
    if damaged:
        _set_aside(path, kept, damaged, mend)
    elif mend and cut:
        with contextlib.suppress(OSError):  # then nothing can be appended either
            _rewrite(path, kept)
    return Read(points, sure)


def append(path: Path, text: str) -> None:
    """Appends lines to a file, all or none. Raises OSError."""
    data = text.encode()
    with path.open("ab", buffering=0) as file:
        begin = file.tell()
        if file.write(data) != len(data):
            file.truncate(begin)
            raise OSError("no space left")


def _point(line: bytes) -> Point | None:
    try:
        read = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(read, dict) or not {"step", "time", "metrics"} <= read.keys():
        return None
    metrics = read["metrics"]
    values = metrics.values() if isinstance(metrics, dict) else [None]
    numbers = all(type(value) in (int, float) for value in values)
    return read if numbers and type(read["step"]) is int and type(read["time"]) is int else None


def _set_aside(path: Path, kept: list[bytes], damaged: dict[int, bytes], mend: bool) -> None:
    aside = path.with_name(path.name + ".damaged")
    numbers = ", ".join(map(str, list(damaged)[:SHOWN])) + (", …" if len(damaged) > SHOWN else "")
    done = "left as it is"
    if mend:
        try:
            with aside.open("ab") as file:
                file.writelines(line + b"\n" for line in damaged.values())
            _rewrite(path, kept)
            done = f"kept in {aside.name}"
        except OSError as error:
            done = f"left as it is ({error.strerror})"
    rank_zero_warn(
        f"{path}, line {numbers}: damaged, not a point of this run; it is {done}, and the other {len(kept)} points are "
        "used"
    )


def _rewrite(path: Path, lines: list[bytes]) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(b"".join(line + b"\n" for line in lines))
    os.replace(part, path)
