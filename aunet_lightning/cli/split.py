"""The commands about splitters: `aunet splitters`, `aunet split`, `aunet vocabulary`."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import regex

from aunet_lightning.cli.options import UPPER, add_option, add_upper_splitters, rule_of
from aunet_lightning.cli.texts import FORMATS, MEGABYTES_RANGE, Text, add_texts, read_texts, up_to
from aunet_lightning.numbers import Range, check
from aunet_lightning.paths import user_path
from aunet_lightning.reader.bpe import MERGES
from aunet_lightning.terminal import coloured, one_line
from splitters import DEFAULT, Stack
from splitters import check as check_splitter
from splitters.laws.check import check_foreign

if TYPE_CHECKING:
    from aunet_lightning.reader.levels import Levels

CHARACTERS = 600  # of a text in pictures
MOST_STAGES = 32


def splitters(arguments: list[str]) -> int:
    """`aunet splitters`: name, one line, options and source of each."""
    argparse.ArgumentParser("aunet splitters", description="List the splitters.").parse_args(arguments)
    from splitters import available
    from splitters.registry import class_of, signature

    for name in available():
        cls = class_of(name)
        parameters = signature(cls).parameters.values()
        options = ", ".join(str(parameter.replace(annotation=parameter.empty)) for parameter in parameters)
        print(name + (f"({options})" if options else ""))
        print("    " + _first_sentence(inspect.cleandoc(cls.__doc__ or "(its class has no docstring)")))
        if cls.source:
            print(f"    source: {cls.source}")
    return 0


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.split("\n\n")[0].split())
    return regex.split(r"(?<=\.)\s(?=\p{Lu})|(?<=:)\s*$", paragraph)[0]


def split(arguments: list[str]) -> int:
    """`aunet split`: a text's units in colours or marks, as a page, or as statistics."""
    options = _split_parser().parse_args(arguments)
    check("--megabytes", options.megabytes, MEGABYTES_RANGE)
    check("--characters", options.characters, Range(least=1))
    stacks = _stacks(options)
    texts = list(read_texts(options.text))
    if not any(text.data for text in texts):
        raise ValueError("there is no text to split")
    measured = options.stats or options.csv or options.plot
    if measured:
        _statistics(texts, stacks, options)
    if options.html:
        _page(texts, stacks, options)
    if not (measured or options.html):
        _show(texts, stacks, options)
    return 0


def _split_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "aunet split",
        description="Show the units of texts, or measure them.",
        epilog="A splitter is a name (aunet splitters lists them) or YAML such as '{name: fixed, n: 4}'. "
        f"{FORMATS}; the language is that of the line or the file.",
    )
    add = partial(add_option, parser)
    add_texts(parser)
    add("--splitter", action="append", help=f"default {DEFAULT}; may be repeated")
    add(
        "--ckpt_path", ["--checkpoint"], action="append", metavar="CKPT",
        help="show the boundaries of a trained model, learned ones too; may be repeated",
    )  # fmt: skip
    add("--stages", type=int, help="show this many stages, {name: every, n: 2} above the splitter (default 2)")
    add_upper_splitters(parser)
    add("--html", metavar="FILE", help="write a page with the splitters one above the other")
    add("--stats", action="store_true", help="print unit lengths per language and splitter as a table")
    add("--csv", metavar="FILE", help="write the statistics as CSV")
    add("--plot", metavar="FILE", help="draw the statistics: .png, .svg or .pdf")
    add("--no_words", ["--no-words"], action="store_true", help="leave out the agreement with human-marked words")
    add("--characters", type=int, default=CHARACTERS, help=f"of each text shown (default {CHARACTERS})")
    add("--color", choices=("auto", "always", "never"), default="auto", help="without colour, units are marked │ ║")
    return parser


def vocabulary(arguments: list[str]) -> int:
    """`aunet vocabulary`: trains a BPE vocabulary for the splitter `trie`, or for the baseline of tokens."""
    parser = argparse.ArgumentParser(
        "aunet vocabulary",
        description="Train a BPE vocabulary on your text, for --splitter '{name: trie, vocabulary: FILE}' or "
        "--tokenizer FILE.",
    )
    parser.add_argument("files", nargs="+", help=f"{FORMATS}; - is standard input")
    parser.add_argument("--size", type=int, default=8192, help="entries, including the 256 bytes (default 8192)")
    parser.add_argument(
        "--merges", choices=MERGES, default=MERGES[0],
        help="the pair merged next: the most frequent of all text, or that of the language compressed worst so far",
    )  # fmt: skip
    parser.add_argument(
        "--parallel", nargs="+", metavar="FILE",
        help="the same documents in each language, by which languages are compared; default: by the bytes of each",
    )  # fmt: skip
    parser.add_argument("--out", required=True, metavar="FILE", help="where to write it, as a tokenizers JSON")
    options = parser.parse_args(arguments)
    from aunet_lightning.reader.bpe import train_bpe, train_parity

    texts = [(text.language, text.data) for text in read_texts(options.files, must_exist=True)]
    if not any(data for _, data in texts):
        raise ValueError(f"there is no text in {', '.join(options.files)}")
    parallel = _parallel(options.parallel) if options.parallel else None
    if options.merges == "parity":
        trained = train_parity(texts, options.size, parallel)
    else:
        trained = train_bpe((data for _, data in texts), options.size)
    out = user_path(options.out, "--out")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(trained, encoding="utf-8")
    check_splitter({"name": "trie", "vocabulary": str(out)})
    entries = len(json.loads(trained)["model"]["vocab"])
    size = sum(len(data) for _, data in texts) / 1e6
    print(f"{out}: {entries} entries, trained on {len(texts)} documents, {size:.2f} MB")
    _evenness(trained, parallel or texts, parallel is not None)
    print(f"use it with --splitter '{json.dumps({'name': 'trie', 'vocabulary': str(out)}, ensure_ascii=False)}'")
    return 0


def _parallel(files: list[str]) -> list[tuple[str, bytes]]:
    texts = [(text.language, text.data) for text in read_texts(files, must_exist=True)]
    counts = Counter(language for language, _ in texts)
    if len({*counts.values()}) > 1:
        few, many = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        raise ValueError(
            f"--parallel has {counts[many]} documents in {many} and {counts[few]} in {few}: give text that has the "
            "same documents in each language, or leave it out to compare languages by the bytes of their text"
        )
    return texts


def _evenness(trained: str, texts: list[tuple[str, bytes]], parallel: bool) -> None:
    """Prints how well a vocabulary compresses each of several languages."""
    from aunet_lightning.reader.parity import gini
    from aunet_lightning.reader.tokens import Tokenizer

    tokenizer, n_bytes, n_tokens = Tokenizer(trained), Counter[str](), Counter[str]()
    for language, data in texts:
        text = data.decode("utf-8", "replace").encode()
        n_bytes[language] += len(text)
        n_tokens[language] += len(tokenizer.encode([text])[0])
    rates = {language: n_bytes[language] / max(n_tokens[language], 1) for language in n_bytes}
    if len(rates) > 1:
        costs = [n_tokens[language] if parallel else 1 / max(rates[language], 1) for language in rates]
        print(f"bytes per token: {', '.join(f'{one_line(name)} {rate:.2f}' for name, rate in sorted(rates.items()))}")
        print(
            f"all: {sum(n_bytes.values()) / max(sum(n_tokens.values()), 1):.2f}; Gini coefficient over languages of "
            f"tokens {'for the parallel text' if parallel else 'per byte'}: {gini(costs):.3f}"
        )


def _stacks(options: argparse.Namespace) -> dict[str, Levels]:
    """Returns a stack per splitter, keyed by its option, and a model per checkpoint, keyed by its run's name."""
    if options.upper_splitters is not None and options.stages is not None:
        raise ValueError("--stages and --upper_splitters both set the stages: give one of them")
    if options.stages is not None and not 2 <= options.stages <= MOST_STAGES:
        raise ValueError(f"--stages is {options.stages}: a splitter makes stage 2, so give 2 to {MOST_STAGES}")
    upper: list[Any] = [UPPER] * ((options.stages or 2) - 2)
    if options.upper_splitters is not None:
        upper = [rule_of("--upper_splitters", rule) for rule in options.upper_splitters]
    named = options.splitter or ([] if options.ckpt_path else [DEFAULT])
    rules = {spec: Stack([rule_of("--splitter", spec), *upper]) for spec in named}
    for stack in rules.values():
        if stack.n_byte_rules < stack.depth:
            name = type(next(iter(stack.learned.values()))).__name__.lower()
            raise ValueError(f"{name} is learned with a model: name a trained one, --ckpt_path runs/…/best.ckpt")
        check_foreign(stack)
    return {**rules, **_trained(options.ckpt_path or [])}


def _trained(checkpoints: list[str]) -> dict[str, Levels]:
    if not checkpoints:
        return {}
    from aunet_lightning.checkpoints.load import load
    from aunet_lightning.reader.model_units import units_of

    found: dict[str, Levels] = {}
    for path in checkpoints:
        net, reader = load(path)
        if not reader.depth:
            raise ValueError(f"{path} is a one-stage model, which has no units")
        name = Path(path).resolve().parent.parent.name
        found[name if name and name not in found else path] = units_of(net, reader)
    return found


def _statistics(texts: list[Text], stacks: dict[str, Levels], options: argparse.Namespace) -> None:
    from aunet_lightning.reports import units

    kept = list(up_to(texts, int(options.megabytes * 1e6)))
    agreement = {} if options.no_words else _agreement(kept, stacks)
    rows = units.measure([(text.language, text.data) for text in kept], stacks, agreement)
    if options.stats:
        print(units.as_text(rows))
    if options.csv:
        user_path(options.csv, "--csv").write_text(units.as_csv(rows), encoding="utf-8")
        print(f"wrote {options.csv}", file=sys.stderr)
    if options.plot:
        units.plot(rows, user_path(options.plot, "--plot"))
        print(f"wrote {options.plot}", file=sys.stderr)


def _agreement(texts: list[Text], stacks: dict[str, Levels]) -> dict:
    """Returns how well the first splitter of each stack agrees with the words marked in each language."""
    from aunet_lightning.reports.word_agreement import agreement, marked_words

    words: dict[str, list] = {}
    missing: dict[str, None] = {}
    for text in texts:
        try:
            found = marked_words(text.data.decode("utf-8", "replace"), text.language)
        except ModuleNotFoundError:
            missing[text.language] = None
            continue
        if found is not None:
            words.setdefault(text.language, []).append(found)
    if missing:
        remedy = "pip install 'aunet-lightning[words]'"
        print(f"aunet: the words of {', '.join(map(one_line, missing))} need icu4py: {remedy}", file=sys.stderr)
    return {
        (language, label): agreement(documents, stack)
        for language, documents in words.items()
        for label, stack in stacks.items()
    }


def _shortened(texts: list[Text], characters: int) -> list[Text]:
    """Returns the first text of each language and file, up to `characters`, and reports on stderr what it left out."""
    first: dict[tuple[str, str], Text] = {}
    for text in texts:
        first.setdefault((text.source, text.language), text)
    shown = []
    for text in first.values():
        full = text.data.decode("utf-8", "surrogateescape")
        if len(full) > characters:
            print(f"aunet: {one_line(text.name)}: the first {characters} of {len(full)} characters", file=sys.stderr)
        shown.append(text._replace(data=full[:characters].encode("utf-8", "surrogateescape")))
    if len(first) < len(texts):
        print(f"aunet: the first of each language and file, {len(first)} of {len(texts)} documents", file=sys.stderr)
    return shown


def _page(texts: list[Text], stacks: dict[str, Levels], options: argparse.Namespace) -> None:
    from aunet_lightning.reports.pictures import as_html

    shown = _shortened(texts, options.characters)
    page = as_html([(text.name, text.data) for text in shown], stacks)
    user_path(options.html, "--html").write_text(page, encoding="utf-8")
    print(f"wrote {options.html}", file=sys.stderr)


def _show(texts: list[Text], stacks: dict[str, Levels], options: argparse.Namespace) -> None:
    from aunet_lightning.reports.pictures import as_colours, as_line, bytes_per_unit, inside_clusters

    colours = coloured(options.color)
    shown = _shortened(texts, options.characters)
    for text in shown:
        for label, stack in stacks.items():
            if len(shown) * len(stacks) > 1:
                print(f"\n{one_line(text.name)} · {one_line(label)}")
            picture = as_colours(text.data, stack) if colours else as_line(text.data, stack)
            print(picture.rstrip("\n"))
            levels = stack.levels(text.data)
            for s, rate in enumerate(bytes_per_unit(text.data, stack), 1):
                boundaries = int((levels >= s).sum())
                print(f"stage {s + 1}: {boundaries} boundaries in {len(text.data)} bytes, {rate:.2f} bytes per unit")
            if hidden := inside_clusters(text.data, stack):
                print(f"{hidden} boundaries share a character with another one and are not shown separately")
