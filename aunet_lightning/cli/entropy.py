"""The command `aunet entropy`: the threshold of the splitter `entropy` that gives a wanted rate."""

import argparse
import sys

import numpy as np
import yaml

from aunet_lightning.cli.split import MEGABYTES, _texts, _up_to
from aunet_lightning.entropy.splitter import device, fires, load
from aunet_lightning.numbers import Range, check
from aunet_lightning.reports.table import TOTAL, aligned, row_of

TOLERANCE = 0.01  # of the wanted number of boundaries
SLACK = 2000  # a gap of values may be chosen within this fraction of the wanted number


def find_threshold(arguments: list[str]) -> int:
    """`aunet entropy`: prints the threshold, the rates it gives by language, and the line for a YAML file."""
    parser = argparse.ArgumentParser(
        "aunet entropy",
        description="Find the threshold of the splitter entropy at which units have so many bytes on average.",
        epilog="Files are JSON lines (.jsonl, .gz, .zst: a document a line) or plain text, as for aunet split.",
    )
    parser.add_argument("checkpoint", help="a .ckpt file of a one-stage model")
    parser.add_argument("text", nargs="*", help="files, or the text itself; left out: standard input")
    parser.add_argument("--bytes_per_unit", type=float, required=True, help="the wanted rate, 1 or more")
    parser.add_argument(
        "--by",
        choices=("global", "rise", "both"),
        default="global",
        help="bound the entropy (default), its rise from byte to byte, or both",
    )
    parser.add_argument(
        "--megabytes", type=float, default=MEGABYTES, help=f"of a language at most (default {MEGABYTES})"
    )
    options = parser.parse_args(arguments)
    check("--bytes_per_unit", options.bytes_per_unit, Range(least=1, most=1e6))
    check("--megabytes", options.megabytes, Range(above=0, most=1e12))
    model = load(options.checkpoint)
    texts = [text for text in _up_to(list(_texts(options.text)), int(options.megabytes * 1e6)) if text.data]
    if not texts:
        raise ValueError(f"there is no text in {', '.join(options.text) or 'standard input'}")

    size = sum(len(text.data) for text in texts)
    print(f"aunet: reading {len(texts)} documents, {size / 1e6:.2f} MB, on {device()}", file=sys.stderr)
    data = [np.frombuffer(text.data, np.uint8) for text in texts]
    bits: list[np.ndarray] = [np.empty(0, np.float32)] * len(texts)
    for number, of_text in model.entropies(data, device()):
        bits[number] = of_text
    bounds = find(bits, options.bytes_per_unit, options.by)

    counts = [int(fires(of_text, bounds.get("threshold"), bounds.get("rise")).sum()) for of_text in bits]
    languages = sorted({row_of(text.language) for text in texts})
    rows = [["language", "bytes", "boundaries", "bytes/unit"]]
    for language in (TOTAL, *languages):
        mine = [i for i, text in enumerate(texts) if language in (TOTAL, row_of(text.language))]
        n_bytes, n_boundaries = sum(len(data[i]) for i in mine), sum(counts[i] for i in mine)
        rate = f"{n_bytes / n_boundaries:.2f}" if n_boundaries else "–"
        rows.append([language, str(n_bytes), str(n_boundaries), rate])
    print("\n".join(aligned(rows, left=("language",))))
    print("\n" + ", ".join(f"{name} {value!r} bits" for name, value in bounds.items()))
    rule = {"name": "entropy", "checkpoint": options.checkpoint, **bounds}
    flow = yaml.safe_dump(rule, default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf"))
    print(f"splitter: {flow.strip()}")
    return 0


def find(bits: list[np.ndarray], rate: float, by: str) -> dict[str, float]:
    """Returns `threshold` (by global), `rise` (by rise), or both of one quantile, that give `rate` bytes a boundary.

    bits: of each text, as `ByteModel.entropies` yields them. Raises ValueError where no bound comes within 1 %.
    """
    levels = np.concatenate([of_text[1:].astype(np.float64) for of_text in bits])
    rises = np.concatenate([np.diff(of_text.astype(np.float64)) for of_text in bits])
    wanted = len(levels) / rate
    if by == "both":
        bounds = _both(levels, rises, wanted)
    else:
        values = levels if by == "global" else rises
        bounds = {"threshold" if by == "global" else "rise": _bound(values, wanted)}
    reached = int(fires_among(levels, rises, bounds).sum())
    if not reached or abs(reached - wanted) > max(TOLERANCE * wanted, 0.5):
        raise ValueError(
            f"--bytes_per_unit {rate:g} cannot be reached: of {len(levels)} bytes {wanted:.4g} should carry a "
            f"boundary, and the nearest bound gives {reached}. Give more text, or another rate"
        )
    return bounds


def fires_among(levels: np.ndarray, rises: np.ndarray, bounds: dict[str, float]) -> np.ndarray:
    """As `entropy.fires`, of the bytes of all texts at once."""
    return (levels > bounds.get("threshold", -np.inf)) & (rises > bounds.get("rise", -np.inf))


def _bound(values: np.ndarray, wanted: float) -> float:
    """Returns a bound that about `wanted` values pass: the middle of the widest gap near there."""
    ordered, gaps = _ordered(values)
    count = min(max(round(wanted), 1), len(values))
    low, high = max(count - count // SLACK, 1), min(count + count // SLACK, len(values))
    at = low + int(np.argmax(gaps[low - 1 : high]))
    if not gaps[at - 1]:  # many equal values: the nearest gap there is
        there = np.flatnonzero(gaps) + 1
        at = int(there[np.argmin(np.abs(there - count))])
    return _between(ordered, at)


def _both(levels: np.ndarray, rises: np.ndarray, wanted: float) -> dict[str, float]:
    """Returns bounds that equal shares of levels and of rises pass, and `wanted` bytes with both."""
    sides = {"threshold": _ordered(levels), "rise": _ordered(rises)}

    def at(count: int) -> dict[str, float]:  # the next gap at or after count, so that more pass as count grows
        return {
            name: _between(ordered, count + int(np.argmax(gaps[count - 1 :] > 0)))
            for name, (ordered, gaps) in sides.items()
        }

    def short_of(count: int) -> float:
        return wanted - float(fires_among(levels, rises, at(count)).sum())

    low, high = 1, len(levels)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if short_of(middle) <= 0 else (middle + 1, high)
    return at(min((low, max(low - 1, 1)), key=lambda count: abs(short_of(count))))


def _ordered(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the values from the largest down, one bit less than the least below them, and the gaps between, [n]."""
    ordered = np.sort(values)[::-1]
    ordered = np.append(ordered, ordered[-1] - 1)
    return ordered, ordered[:-1] - ordered[1:]


def _between(ordered: np.ndarray, count: int) -> float:
    """Returns a number with few digits about half-way between the value at `count` (from 1) and the next one down."""
    high, low = float(ordered[count - 1]), float(ordered[count])
    middle = (high + low) / 2
    return next((x for x in (round(middle, d) for d in range(1, 16)) if abs(x - middle) <= (high - low) / 8), middle)
