"""The command `aunet entropy`: the threshold of the splitter `entropy` that gives a wanted rate."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import yaml

from aunet_lightning.cli.texts import FORMATS, MEGABYTES_RANGE, Text, add_texts, by_language, measured_texts
from aunet_lightning.entropy.byte_model import ByteModel, device, load
from aunet_lightning.entropy.splitter import DEFAULT, FOLLOW, MOST_BITS, Entropy, per_script, script_runs
from aunet_lightning.entropy.threshold import find, find_by_script
from aunet_lightning.numbers import Range, check
from aunet_lightning.reports.table import TOTAL, aligned

OFF = 0.1  # relative error of a rate on other text, past which a warning is given


def find_threshold(arguments: list[str]) -> int:
    """`aunet entropy`: prints the threshold, the rates it gives, and the line for a YAML file."""
    options = _parser().parse_args(arguments)
    rates = _rates(options.bytes_per_unit)
    check("--megabytes", options.megabytes, MEGABYTES_RANGE)
    if options.follow is not None:
        check("--follow", options.follow, Range(above=0, most=MOST_BITS))
    model = load(options.ckpt_path)
    texts, bits = _read(model, options.text, options.megabytes)

    by_script = len(rates) > 1
    scripts = script_runs(rates)
    groups = [scripts.groups(text.data) for text in texts]
    bounds: dict[str, Any] = (
        find_by_script(bits, groups, rates, options.by) if by_script else find(bits, rates[DEFAULT], options.by)
    )
    rule = {"name": "entropy", "checkpoint": options.ckpt_path, **bounds}
    if options.follow is not None:
        rule |= {"bytes_per_unit": rates if by_script else rates[DEFAULT], "follow": options.follow}
    splitter = Entropy(**{option: value for option, value in rule.items() if option != "name"})

    print("\n".join(_table(texts, _fired(splitter, bits, groups))))
    if options.check:
        others, bits = _read(model, options.check, options.megabytes, must_exist=True)
        print("\n".join(["", *_checked(splitter, rates, others, bits, options.check)]))
    print("\n" + ", ".join(f"{name} {value!r} bits" for name, value in bounds.items()))
    flow = yaml.safe_dump(rule, default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf"))
    print(f"splitter: {flow.strip()}")
    return 0


def _rates(given: str) -> dict[str, float]:
    """Returns the wanted rates by script, `default` last, of a number or a mapping in YAML."""
    try:
        value = yaml.safe_load(given)
    except yaml.YAMLError:
        value = given
    value = float(value) if isinstance(value, str) and value.lower() in ("nan", "inf") else value
    for name, rate in value.items() if isinstance(value, dict) else [("", value)]:
        check(f"--bytes_per_unit{f' of {name}' if name else ''}", rate, Range(least=1, most=1e6))
    return per_script("bytes_per_unit", value)


def _read(
    model: ByteModel, arguments: Sequence[str], megabytes: float, must_exist: bool = False
) -> tuple[list[Text], list[np.ndarray]]:
    """Returns texts and their entropies. Raises ValueError where there is none."""
    texts = measured_texts(arguments, megabytes, must_exist)
    size = sum(len(text.data) for text in texts)
    print(f"aunet: reading {len(texts)} documents, {size / 1e6:.2f} MB, on {device()}", file=sys.stderr)
    bits: list[np.ndarray] = [np.empty(0, np.float32)] * len(texts)
    for number, of_text in model.entropies([np.frombuffer(text.data, np.uint8) for text in texts], device()):
        bits[number] = of_text
    return texts, bits


def _fired(rule: Entropy, bits: Sequence[np.ndarray], groups: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the boundaries of each text, bool [len]."""
    return [rule.bounds.fires(*of_text) for of_text in zip(bits, groups, strict=True)]


def _checked(
    rule: Entropy, rates: dict[str, float], texts: Sequence[Text], bits: Sequence[np.ndarray], files: Sequence[str]
) -> list[str]:
    """Returns what rates other text gets, a line each, and warns where one is not what was asked for."""
    groups = [rule.scripts.groups(text.data) for text in texts]
    fired = _fired(rule, bits, groups)
    rows = [["other text", "bytes", "asked", "got", "off by"]]
    for number, (script, asked) in enumerate(rates.items()):
        mine = [group == number for group in groups]
        n_bytes = sum(int(here.sum()) for here in mine)
        got = n_bytes / max(sum(int(one[here].sum()) for one, here in zip(fired, mine, strict=True)), 1)
        if not n_bytes:
            continue
        off = got / asked - 1
        rows.append([script if len(rates) > 1 else TOTAL, str(n_bytes), f"{asked:g}", f"{got:.2f}", f"{off:+.0%}"])
        if abs(off) > OFF:
            where, more = f"{rows[-1][0]} of {', '.join(files[:3])}", "more" if off > 0 else "less"
            remedy = "" if rule.bytes_per_unit else "; --follow holds it on other text as well"
            print(
                f"aunet: warning: {where} gets {got:.2f} bytes per unit, {abs(off):.0%} {more} than the {asked:g} "
                f"asked for{remedy}",
                file=sys.stderr,
            )
    return [*aligned(rows, left=("other text",)), "", *_table(texts, fired)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "aunet entropy",
        description="Find the threshold at which the splitter entropy gives units of a wanted mean length.",
        epilog=f"{FORMATS}, as for aunet split.",
    )
    parser.add_argument("ckpt_path", metavar="CKPT", help="a checkpoint of a one-stage model")
    add_texts(parser)
    parser.add_argument(
        "--bytes_per_unit",
        required=True,
        help="the wanted rate, 1 or more; or one per script of Unicode, each with a threshold of its own: "
        "'{Han: 4.5, Thai: 8, default: 6}'",
    )
    parser.add_argument(
        "--by",
        choices=("global", "rise", "both"),
        default="global",
        help="bound the entropy (default), its rise from byte to byte, or both",
    )
    parser.add_argument(
        "--follow",
        type=float,
        nargs="?",
        const=FOLLOW,
        metavar="BITS",
        help=f"let the bounds follow each text so that it gets the rate: bits per boundary too many ({FOLLOW})",
    )
    parser.add_argument("--check", nargs="+", metavar="FILE", help="other text, whose rate is shown too")
    return parser


def _table(texts: Sequence[Text], fired: Sequence[np.ndarray]) -> list[str]:
    """Returns bytes, boundaries and their ratio for all text and for each language, a line each."""
    rows = [["language", "bytes", "boundaries", "bytes/unit"]]
    for language, mine in by_language(texts):
        n_bytes, n_boundaries = sum(len(texts[i].data) for i in mine), sum(int(fired[i].sum()) for i in mine)
        rate = f"{n_bytes / n_boundaries:.2f}" if n_boundaries else "–"
        rows.append([language, str(n_bytes), str(n_boundaries), rate])
    return aligned(rows, left=("language",))
