"""The command aunet data: what files of text hold, whether a run can train on them, and parts of them for a run."""

from __future__ import annotations

import argparse
import shlex
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, get_type_hints

from aunet_lightning.cli.named import with_paths
from aunet_lightning.cli.options import print_table, rule_of, warn
from aunet_lightning.cli.texts import FORMATS
from aunet_lightning.numbers import Range, check, listed
from aunet_lightning.paths import user_path
from aunet_lightning.terminal import one_line

if TYPE_CHECKING:
    from aunet_lightning.data.inspection import LanguageText
    from aunet_lightning.data.sources import Source
    from aunet_lightning.data.splitting import Split

LEFT = ("language", "scripts", "bytes per unit", "part")  # columns of words
SAMPLE = 70  # characters of a document that are shown
TITLES = ("language", "documents", "bytes", "share", "median", "longest", "characters", "scripts")
SHARE, JACCARD = Range(least=0, below=1), Range(least=0.5, most=1)  # below 0.5, too many pairs would be compared
OF_READER = ("splitter", "upper_splitters", "tokenizer")  # settings of a run that its text depends on, beside data
WHAT = ("inspect", "check", "split")


def data(arguments: list[str]) -> int:
    """`aunet data inspect`, `aunet data check` and `aunet data split`."""
    what = next((argument for argument in arguments if argument in WHAT), None)
    options = _parser(what).parse_args(with_paths(arguments))
    return {"inspect": _inspect, "check": _check, "split": _split}[options.what](options)


def _parser(what: str | None) -> argparse.ArgumentParser:
    """Returns the parser of the command, with the options of `what`; of all where it is none of them."""
    parser = argparse.ArgumentParser(
        "aunet data",
        description="Look at text before a run trains on it. inspect: documents, languages, scripts and lengths of "
        "files. check: all that a run checks of its text, as settings name it. split: write documents to training, "
        "validation and test, near-duplicates together.",
        epilog=FORMATS,
    )
    parser.add_argument("what", metavar="|".join(WHAT), choices=WHAT)
    parser.add_argument("files", nargs="*", metavar="FILE", help="files or globs, as data.train_files names them")
    parts = {"inspect": (_add_keys, _add_inspect), "check": (_add_check,), "split": (_add_keys, _add_split)}
    for add in parts.get(what or "", (_add_keys, _add_inspect, _add_split, _add_config)):
        add(parser)
    return parser


def _add_keys(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text_key", default="text", help="the field of the text (default text)")
    parser.add_argument("--language_key", default="lang", help="the field of the language (default lang)")


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--splitter", action="append", help="show its bytes per unit; may be repeated")


def _add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", help="the folder that is written: DIR/train/LANGUAGE.jsonl.gz, …")
    parser.add_argument("--valid", type=float, default=0.01, help="the share for validation (default 0.01)")
    parser.add_argument("--test", type=float, default=0.01, help="the share for test (default 0.01)")
    parser.add_argument("--seed", type=int, default=0, help="another one draws other documents (default 0)")
    parser.add_argument(
        "--jaccard", type=float, default=0.8,
        help="how alike near-duplicates are: the share of 16-byte shingles in common (default 0.8; 1: equal texts)",
    )  # fmt: skip
    parser.add_argument("--drop_duplicates", action="store_true", help="keep one of each cluster of near-duplicates")


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", action="append", metavar="FILE", help="settings of a run; later ones win")


def _add_check(parser: argparse.ArgumentParser) -> None:
    import inspect

    from aunet_lightning.data.datamodule import ByteDataModule

    _add_config(parser)
    for name in inspect.signature(ByteDataModule).parameters:
        parser.add_argument(
            f"--{_key(name)}", dest=name, metavar="VALUE", help="as in aunet fit", default=argparse.SUPPRESS
        )


# aunet data inspect


def _inspect(options: argparse.Namespace) -> int:
    from aunet_lightning.data.inspection import inspect
    from aunet_lightning.data.skipped import why_nothing
    from aunet_lightning.reports.pictures import script_of
    from splitters import Stack

    stacks = {rule: Stack([rule_of("--splitter", rule)]) for rule in options.splitter or []}
    languages, report = inspect(_sources(options), script_of)
    if not languages:
        why = report.has_no(options.text_key, "--text_key")
        raise ValueError(f"there is no document: {why or why_nothing(report, options.files)}")
    warn(report.warning())
    total = sum(text.bytes for text in languages.values())
    print_table([TITLES, *(_row(*one, total) for one in sorted(languages.items()))], LEFT)
    print("\nlengths, a bar for each power of two from 1 byte to 1 MB and more, and the beginning of a document")
    width = max(map(len, languages))
    for language, text in sorted(languages.items()):
        sample = " ".join(text.kept[0].decode("utf-8", "replace").split())[:SAMPLE]
        print(f"{one_line(language):<{width}}  {text.picture()}  {one_line(sample)}")
    if stacks:
        print()
        print_table([("bytes per unit", *stacks), *(_rates(*one, stacks) for one in sorted(languages.items()))], LEFT)
    return 0


def _row(language: str, text: LanguageText, total: int) -> tuple[str, ...]:
    import numpy as np

    scripts = ", ".join(f"{script} {n / text.bytes:.0%}" for script, n in text.scripts.most_common(3) if text.bytes)
    sizes = f"{np.median(text.lengths):.0f}", f"{max(text.lengths)}", f"{text.characters}"
    share = f"{text.bytes / max(total, 1):.1%}"
    return (language, str(len(text.lengths)), str(text.bytes), share, *sizes, scripts)


def _rates(language: str, text: LanguageText, stacks: dict[str, Any]) -> tuple[str, ...]:
    size = sum(map(len, text.kept))
    units = {rule: sum(int((stack.levels(data) > 0).sum()) for data in text.kept) for rule, stack in stacks.items()}
    return (language, *(f"{size / n:.2f}" if n else "–" for n in units.values()))


def _sources(options: argparse.Namespace) -> list[Source]:
    from aunet_lightning.data.sources import expand

    if not options.files:
        raise ValueError("no file is named: give files or globs of text")
    return expand(options.files, "FILE", text_key=options.text_key, language_key=options.language_key)


# aunet data check


def _check(options: argparse.Namespace) -> int:
    from aunet_lightning.cli.explain import loaded, mismatches, unknown

    settings = _settings(options.config or [])
    for name, value in vars(options).items():
        if name not in ("what", "files", "config"):
            settings[name] = loaded(value)
    if options.files:
        settings["train_files"] = options.files
    if not settings.get("train_files") and not settings.get("val_files"):
        raise ValueError("no text is named: give -c CONFIG, or files")
    from aunet_lightning.data.datamodule import ByteDataModule

    kinds = get_type_hints(ByteDataModule.__init__)
    for name, value in settings.items():
        if name not in kinds:
            raise ValueError(unknown(_key(name), [*kinds], [*map(_key, kinds)]))
        for fault in mismatches(kinds[name], value, _key(name)):
            raise fault
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = ByteDataModule(**settings)
        module.prepare_data()
        module.setup()
    rows = [("part", "language", "documents", "bytes")]
    for part, documents in module.documents.items():
        corpus = module.corpora[part]
        for i, language in enumerate(corpus.language_names):
            here = documents[corpus.languages[documents] == i]
            if len(here):
                rows.append((part, language, str(len(here)), str(int(corpus.lengths[here].sum()))))
    print_table(rows, LEFT)
    said = [str(one.message) for one in caught if "aunet_lightning" in str(one.filename)]
    for warning in said:
        warn(warning)
    print(f"aunet: {len(said) or 'no'} warning{'s' * (len(said) != 1)}: a run can train on this text", file=sys.stderr)
    return 0


def _key(name: str) -> str:
    """Returns the key of an option of the data, as settings have it."""
    return name if name in OF_READER else f"data.{name}"


def _settings(configs: Sequence[str]) -> dict[str, Any]:
    """Returns the options of the data in settings of a run, with the splitters that belong to them."""
    import yaml

    found: dict[str, Any] = {}
    for config in configs:
        try:
            read = yaml.safe_load(user_path(config, "-c").read_text(encoding="utf-8")) or {}
        except (OSError, yaml.YAMLError) as error:
            raise ValueError(f"-c {config} cannot be read: {error}") from None
        if not isinstance(read, dict):
            raise ValueError(f"-c {config} has no settings of a run")
        found |= read.get("data") or {}
        found |= {name: read[name] for name in OF_READER if name in read}
    return found


# aunet data split


def _split(options: argparse.Namespace) -> int:
    from aunet_lightning.data.splitting import Shares, split

    for name, wanted in (("valid", SHARE), ("test", SHARE), ("jaccard", JACCARD)):
        check(f"--{name}", getattr(options, name), wanted)
    if options.valid + options.test >= 1:
        raise ValueError(f"--valid {options.valid:g} and --test {options.test:g} leave nothing to train on")
    if options.out is None:
        raise ValueError("--out is missing: name the folder that is written")
    out, shares = user_path(options.out, "--out"), Shares(options.valid, options.test, options.seed)
    done = split(_sources(options), out, shares, options.jaccard, options.drop_duplicates)
    print_table([("part", "language", "documents", "bytes", "of language", "alike"), *_parts(done)], LEFT)
    warn(done.report.warning())
    languages = {language for _, language in done.written}
    for part, share in (("valid", options.valid), ("test", options.test)):
        if share and (without := sorted(languages - {one for other, one in done.written if other == part})):
            remedy = f"give a larger --{part}, another --seed, or more text"
            warn(f"no document of {listed(without)} is in {part}: {remedy}")
    alike = sum(row.alike for row in done.written.values()) + done.dropped
    then = f"{done.dropped} of them dropped" if options.drop_duplicates else "each in one part"
    print(
        f"aunet: {alike} documents are alike, in {done.clusters} cluster{'s' * (done.clusters != 1)}, {then}",
        file=sys.stderr,
    )
    keys = {"train": "train_files", "valid": "val_files", "test": "test_files"}
    made = [part for part in keys if any(part == other for other, _ in done.written)]
    files = " ".join(shlex.join([f"--data.{keys[part]}", f"{out}/{part}/*.jsonl.gz"]) for part in made)
    print(f"aunet: for a run: {files}", file=sys.stderr)
    return 0


def _parts(done: Split) -> Iterator[tuple[str, ...]]:
    """Yields rows of the table, by part and language."""
    from aunet_lightning.data.splitting import PARTS

    sizes: Counter[str] = Counter()
    for (_, language), row in done.written.items():
        sizes[language] += row.bytes
    for part in PARTS:
        for language in sorted(language for other, language in done.written if other == part):
            row = done.written[part, language]
            share = f"{row.bytes / sizes[language]:.1%}"
            yield part, language, str(row.documents), str(row.bytes), share, str(row.alike)
