"""The command `aunet rate`: the options with which a splitter has a wanted rate."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aunet_lightning.cli.options import rule_of
from aunet_lightning.cli.texts import FORMATS, MEGABYTES_RANGE, Text, add_megabytes, read_texts, up_to
from aunet_lightning.numbers import check
from aunet_lightning.paths import user_path
from aunet_lightning.reader.rates import RATES, SMALL, TOLERANCE, Fitted, NoKnob, combines, fit_rate, flow
from aunet_lightning.terminal import one_line
from splitters import DEFAULT, available
from splitters.registry import class_of

SHIPPED = Path(__file__).parents[2] / "experiments" / "data" / "udhr"
LANGUAGE, RATE = "{language}", "{rate}"  # in the name of a file
OUT = "vocabulary-{language}-{rate}.json"


def find_rate(arguments: list[str]) -> int:
    """`aunet rate`: a line of YAML for each splitter, language and rate, with the rate that it has."""
    options = _parser().parse_args(arguments)
    check("--bytes_per_unit", options.bytes_per_unit, RATES)
    check("--megabytes", options.megabytes, MEGABYTES_RANGE)
    by_language = _texts(options)
    named = [rule_of("--splitter", rule) for rule in options.splitter or []] or _with_knobs(options.out is not None)
    _check_out(options, len(by_language))
    for language, texts in by_language.items():
        size = sum(map(len, texts))
        print(f"aunet: {one_line(language)}: {len(texts)} documents, {size / 1e3:.0f} kB", file=sys.stderr)
        if size < SMALL:
            few = f"under {SMALL / 1e3:.0f} kB: on other text the rate may be another"
            print(f"aunet: warning: {one_line(language)}: {few}", file=sys.stderr)
        for rule in named:
            for wanted in options.bytes_per_unit:
                try:
                    fitted = fit_rate(rule, texts, wanted, _out(options.out or OUT, language, wanted))
                except NoKnob as none:
                    print(f"# {one_line(language)}: {none}", flush=True)
                    continue
                print(f"splitter: {flow(fitted.spec)}  # {one_line(language)}: {described(fitted, wanted)}", flush=True)
    return 0


def described(fitted: Fitted, wanted: float) -> str:
    """Returns the rate that was got, and what a user should know of it."""
    text = f"{fitted.rate:.2f} bytes per unit, {fitted.error:+.1%} of {wanted:g}"
    if not fitted.reached and fitted.nearest:
        text += f", more than {TOLERANCE:.0%} off: {_nearest(fitted, wanted)}"
    if abs(fitted.elsewhere / fitted.rate - 1) > TOLERANCE:  # False of nan
        text += f"; on text that it was not trained on about {fitted.elsewhere:.2f}"
    return text


def _nearest(fitted: Fitted, wanted: float) -> str:
    rates = [rate for _, rate in fitted.nearest]
    if max(rates) < wanted or min(rates) > wanted:
        return f"no value has {'more' if max(rates) < wanted else 'fewer'}"
    return " and ".join(f"{value:.5g} has {rate:.2f}" for value, rate in fitted.nearest)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "aunet rate",
        description="Find the options with which a splitter has a wanted mean length of units on a text.",
        epilog=f"{FORMATS}; the language is that of the line or the file.",
    )
    parser.add_argument(
        "files", nargs="*", help="-: standard input; default: a small text of each language comes along"
    )
    parser.add_argument("--splitter", action="append", help="may be repeated; default: all that have such an option")
    parser.add_argument(
        "--language", type=_names, action="extend", help="one or several, th,en; default: all in the files"
    )
    parser.add_argument(
        "--bytes_per_unit", type=_numbers, action="extend", required=True, help="the wanted rate, or several: 3,4.5,6"
    )
    parser.add_argument("--out", metavar="FILE", help=f"where a vocabulary is written; default {OUT}")
    add_megabytes(parser)
    return parser


def _names(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def _texts(options: argparse.Namespace) -> dict[str, list[bytes]]:
    """Returns the documents of each language."""
    files, wanted = options.files, options.language
    if not files:
        if not wanted:
            raise ValueError("there is no text: name files, or --language for the text that comes along")
        known = sorted(path.name.removesuffix(".jsonl") for path in SHIPPED.glob("*.jsonl"))
        if unknown := [language for language in wanted if language not in known]:
            raise ValueError(
                f"--language {unknown[0]}: no text of it comes along: name files, or choose one of {', '.join(known)}"
                if known
                else f"there is no folder {SHIPPED}: name files of text"
            )
        files = [str(SHIPPED / f"{language}.jsonl") for language in wanted]
    texts: Sequence[Text] = [text for text in read_texts(files, must_exist=True) if text.data]
    if wanted:
        held = sorted({text.language for text in texts})
        if missing := [language for language in wanted if language not in held]:
            raise ValueError(f"--language {missing[0]} is not in the files, they hold {', '.join(map(one_line, held))}")
        texts = [text for text in texts if text.language in wanted]
    found: dict[str, list[bytes]] = {language: [] for language in wanted or []}
    for text in up_to(texts, int(options.megabytes * 1e6)):
        found.setdefault(text.language, []).append(text.data)
    if not found:
        raise ValueError(f"there is no text in {', '.join(files)}")
    return found


def _with_knobs(out: bool) -> list[Any]:
    """Returns the rules that have a knob, combinators of the default splitter among them; those that train a
    vocabulary only where it can be written."""
    found: list[Any] = []
    for name in available("rule"):
        cls = class_of(name)
        if cls.knob is not None and (out or not cls.knob.entries):
            found.append({"name": name, "of": DEFAULT} if combines(name) else name)
    return found


def _check_out(options: argparse.Namespace, languages: int) -> None:
    """Raises ValueError where one file would hold several vocabularies."""
    for several, part in ((languages > 1, LANGUAGE), (len(options.bytes_per_unit) > 1, RATE)):
        if options.out is not None and several and part not in options.out:
            raise ValueError(f"--out is {options.out!r}, it must hold {part}, for example {OUT}")


def _out(pattern: str, language: str, wanted: float) -> Path:
    name = pattern.replace(LANGUAGE, language.replace("/", "_")).replace(RATE, f"{wanted:g}")
    return user_path(name, "--out")
