"""The commands that look at splitters: `aunet splitters`, `aunet split`, `aunet vocabulary`."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import regex
import yaml

from aunet_lightning.numbers import Range, check
from aunet_lightning.paths import user_path
from aunet_lightning.terminal import one_line
from splitters import DEFAULT, Stack
from splitters import check as check_splitter
from splitters.laws.check import check_foreign

if TYPE_CHECKING:
    from aunet_lightning.reports.pictures import Levels

CHARACTERS = 600  # of a text in pictures
MEGABYTES = 2.0  # of a language in statistics
SUFFIXES = (  # what ends so names a file, not a text
    ".jsonl", ".ndjson", ".json", ".txt", ".md", ".csv", ".gz", ".zst", ".bz2", ".xz"
)  # fmt: skip
SAMPLE, MOSTLY = 1 << 16, 0.1  # bytes of a file that are looked at, and how many of them may not be UTF-8
UPPER = {"name": "every", "n": 2}
MOST_STAGES = 32


class Text(NamedTuple):
    language: str
    source: str  # the argument that it is, or is from
    name: str
    data: bytes


def splitters(arguments: list[str]) -> int:
    """`aunet splitters`: name, one line, options and source of each."""
    argparse.ArgumentParser("aunet splitters", description="List the splitters.").parse_args(arguments)
    from splitters import available
    from splitters.registry import class_of

    for name in available():
        cls = class_of(name)
        parameters = inspect.signature(cls).parameters.values()
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
    parser = argparse.ArgumentParser(
        "aunet split",
        description="Show the units of texts, or measure them.",
        epilog="A splitter is a name (aunet splitters lists them) or YAML such as '{name: fixed, n: 4}'. Files are "
        "JSON lines (.jsonl, .gz, .zst: a document a line) or plain text; the language is the line's or the file's.",
    )
    parser.add_argument("text", nargs="*", help="files, or the text itself; left out: standard input")
    parser.add_argument("--splitter", action="append", help=f"default {DEFAULT}; may be given several times")
    parser.add_argument(
        "--checkpoint",
        action="append",
        metavar="CKPT",
        help="show the boundaries of a trained model, learned ones too; may be given several times",
    )
    parser.add_argument(
        "--stages", type=int, help="show so many, by {name: every, n: 2} above the splitter (default 2)"
    )
    parser.add_argument("--upper_splitters", nargs="*", action="extend", help="instead: one rule per further stage")
    parser.add_argument("--html", metavar="FILE", help="write a page with the splitters one above the other")
    parser.add_argument("--stats", action="store_true", help="length of units per language and splitter, as a table")
    parser.add_argument("--csv", metavar="FILE", help="write the statistics as CSV")
    parser.add_argument("--plot", metavar="FILE", help="draw the statistics: .png, .svg or .pdf")
    parser.add_argument(
        "--no-words", action="store_true", help="leave out the comparison with words that people marked"
    )
    parser.add_argument(
        "--megabytes", type=float, default=MEGABYTES, help=f"of a language at most (default {MEGABYTES})"
    )
    parser.add_argument("--characters", type=int, default=CHARACTERS, help=f"of a text shown (default {CHARACTERS})")
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="else units are marked │ ║"
    )
    options = parser.parse_args(arguments)
    check("--megabytes", options.megabytes, Range(above=0, most=1e12))
    check("--characters", options.characters, Range(least=1))
    stacks = _stacks(options)
    texts = list(_texts(options.text))
    if not any(text.data for text in texts):
        raise ValueError("there is no text to split")
    if options.stats or options.csv or options.plot:
        _statistics(texts, stacks, options)
    if options.html:
        _page(texts, stacks, options)
    if not (options.stats or options.csv or options.plot or options.html):
        _show(texts, stacks, options)
    return 0


def vocabulary(arguments: list[str]) -> int:
    """`aunet vocabulary`: trains a BPE vocabulary for the splitter `trie`."""
    parser = argparse.ArgumentParser(
        "aunet vocabulary",
        description="Train a BPE vocabulary on your text, for --splitter '{name: trie, vocabulary: FILE}'.",
    )
    parser.add_argument("files", nargs="+", help="JSON lines (.jsonl, .gz, .zst) or plain text")
    parser.add_argument("--size", type=int, default=8192, help="entries, the 256 bytes among them (default 8192)")
    parser.add_argument("--out", required=True, metavar="FILE", help="where to write it, a tokenizers JSON")
    options = parser.parse_args(arguments)
    from aunet_lightning.reader.bpe import train_bpe

    texts = [text.data for text in _texts(options.files, must_exist=True)]
    if not any(texts):
        raise ValueError(f"there is no text in {', '.join(options.files)}")
    trained = train_bpe(texts, options.size)
    out = user_path(options.out, "--out")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(trained, encoding="utf-8")
    check_splitter({"name": "trie", "vocabulary": str(out)})
    entries = len(json.loads(trained)["model"]["vocab"])
    print(f"{out}: {entries} entries, trained on {len(texts)} documents, {sum(map(len, texts)) / 1e6:.2f} MB")
    print(f"use it with --splitter '{json.dumps({'name': 'trie', 'vocabulary': str(out)}, ensure_ascii=False)}'")
    return 0


def _stacks(options: argparse.Namespace) -> dict[str, Levels]:
    """Returns a stack per splitter, by the words that named it, and a model per checkpoint, by its run's name."""
    if options.upper_splitters is not None and options.stages is not None:
        raise ValueError("--stages and --upper_splitters say the same: give one of them")
    if options.stages is not None and not 2 <= options.stages <= MOST_STAGES:
        raise ValueError(f"--stages is {options.stages}: a splitter makes stage 2, so give 2 to {MOST_STAGES}")
    upper: list[Any] = [UPPER] * ((options.stages or 2) - 2)
    if options.upper_splitters is not None:
        upper = [yaml.safe_load(rule) for rule in options.upper_splitters]
    named = options.splitter or ([] if options.checkpoint else [DEFAULT])
    rules = {spec: Stack([yaml.safe_load(spec), *upper]) for spec in named}
    for stack in rules.values():
        if stack.n_below < stack.depth:
            name = type(next(iter(stack.learned.values()))).__name__.lower()
            raise ValueError(f"{name} is learned with a model: name a trained one, --checkpoint runs/…/best.ckpt")
        check_foreign(stack)
    return {**rules, **_trained(options.checkpoint or [])}


def _trained(checkpoints: list[str]) -> dict[str, Levels]:
    if not checkpoints:
        return {}
    from aunet_lightning.checkpoints.load import load
    from aunet_lightning.reader.model_units import units_of

    found: dict[str, Levels] = {}
    for path in checkpoints:
        net, reader = load(path)
        if not reader.depth:
            raise ValueError(f"{path} is a model of one stage, which has no units")
        name = Path(path).resolve().parent.parent.name
        found[name if name and name not in found else path] = units_of(net, reader)
    return found


def _texts(arguments: list[str], must_exist: bool = False) -> Iterator[Text]:
    if not arguments:
        yield Text("text", "-", "standard input", sys.stdin.buffer.read())
    for argument in arguments:
        path = user_path(argument, "text") if argument.startswith("~") else Path(argument)
        if _is_file(path):
            yield from _of_file(path)
        elif must_exist or _names_a_file(argument):
            raise ValueError(f"{argument!r} is no file (looked from {Path.cwd()})")
        else:
            yield Text("text", argument, "text", argument.encode("utf-8", "surrogateescape"))


def _names_a_file(argument: str) -> bool:
    """Returns whether an argument that is no file was meant as one, and not as a text."""
    named = Path(argument).suffix.lower() in SUFFIXES and " " not in argument
    return named or argument.startswith(("/", "./", "../", "~"))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text that is too long for a name, or has a NUL
        return False


def _of_file(path: Path) -> Iterator[Text]:
    from aunet_lightning.data.documents import COMPRESSED, Report, read_documents, stem

    if not {".jsonl", ".ndjson", *COMPRESSED} & {suffix.lower() for suffix in path.suffixes}:
        yield Text(stem(path), str(path), str(path), _plain(path))
        return
    report = Report()
    for document in read_documents(path, "text", "lang", stem(path), report):
        yield Text(document.language, str(path), f"{path}, {document.name}", document.text)
    if warning := report.warning():
        print(f"aunet: warning: {path}: {warning}", file=sys.stderr)


def _plain(path: Path) -> bytes:
    """Returns a file of plain text. Raises ValueError for one that is no text: it has NULs, or hardly any UTF-8."""
    data = path.read_bytes()
    head = data[:SAMPLE]
    lost = head.decode("utf-8", "replace").count("\ufffd") - head.count("\ufffd".encode())
    if b"\0" in head or lost > max(MOSTLY * len(head), 3):
        raise ValueError(f"{path} is not text in UTF-8: name JSON lines (.jsonl) or plain text")
    if lost:
        print(f"aunet: warning: {path}: bytes that are not UTF-8 among its first {len(head)}: {lost}", file=sys.stderr)
    return data


def _statistics(texts: list[Text], stacks: dict[str, Levels], options: argparse.Namespace) -> None:
    from aunet_lightning.reports import units

    kept = list(_up_to(texts, int(options.megabytes * 1e6)))
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


def _up_to(texts: list[Text], most: int) -> Iterator[Text]:
    """Yields whole documents until a language has `most` bytes, and says what it left out."""
    so_far: dict[str, int] = {}
    left: dict[str, int] = {}
    for text in texts:
        if so_far.get(text.language, 0) < most:
            so_far[text.language] = so_far.get(text.language, 0) + len(text.data)
            yield text
        else:
            left[text.language] = left.get(text.language, 0) + 1
    if left:
        named = ", ".join(f"{one_line(language)} {count}" for language, count in left.items())
        print(f"aunet: --megabytes {most / 1e6:g} left out documents: {named}", file=sys.stderr)


def _agreement(texts: list[Text], stacks: dict[str, Levels]) -> dict:
    """Returns how the first splitter of each stack agrees with the words marked in each language."""
    from aunet_lightning.reports.word_agreement import agreement, marked

    words: dict[str, list] = {}
    missing: dict[str, None] = {}
    for text in texts:
        try:
            found = marked(text.data.decode("utf-8", "replace"), text.language)
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
    """Returns the first text of each language in each file, up to so many characters, and says what it left out."""
    first: dict[tuple[str, str], Text] = {}
    for text in texts:
        first.setdefault((text.source, text.language), text)
    shown = []
    for text in first.values():
        whole = text.data.decode("utf-8", "surrogateescape")
        if len(whole) > characters:
            print(f"aunet: {one_line(text.name)}: the first {characters} of {len(whole)} characters", file=sys.stderr)
        shown.append(text._replace(data=whole[:characters].encode("utf-8", "surrogateescape")))
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

    terminal = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    colours = options.color == "always" or (options.color == "auto" and terminal)
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
                print(f"{hidden} boundaries fall on the same character as another and are not shown apart")
