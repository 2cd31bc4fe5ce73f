"""The command aunet data: what files of text hold, and whether a run can train on them."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aunet_lightning.cli.named import with_paths
from aunet_lightning.cli.options import rule_of
from aunet_lightning.cli.texts import FORMATS
from aunet_lightning.paths import user_path
from aunet_lightning.terminal import one_line

if TYPE_CHECKING:
    from aunet_lightning.data.inspection import LanguageText

LEFT = ("language", "scripts", "bytes per unit", "part")  # columns of words
SAMPLE = 70  # characters of a document that are shown
TITLES = ("language", "documents", "bytes", "share", "median", "longest", "characters", "scripts")


def data(arguments: list[str]) -> int:
    """`aunet data inspect` and `aunet data check`."""
    options = _parser().parse_args(with_paths(arguments))
    return _inspect(options) if options.what == "inspect" else _check(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "aunet data",
        description="Look at text before a run trains on it. inspect: documents, languages, scripts and lengths of "
        "files. check: all that a run checks of its text, as settings name it.",
        epilog=FORMATS,
    )
    parser.add_argument("what", metavar="inspect|check", choices=("inspect", "check"))
    parser.add_argument("files", nargs="*", metavar="FILE", help="files or globs, as data.train_files names them")
    parser.add_argument("--splitter", action="append", help="inspect: show its bytes per unit; may be repeated")
    parser.add_argument("--text_key", default="text", help="inspect: the field of the text (default text)")
    parser.add_argument("--language_key", default="lang", help="inspect: the field of the language (default lang)")
    parser.add_argument(
        "-c", "--config", action="append", metavar="FILE", help="check: settings of a run; later ones win"
    )
    return parser


# aunet data inspect


def _inspect(options: argparse.Namespace) -> int:
    from aunet_lightning.data.inspection import inspect
    from aunet_lightning.data.sources import expand
    from aunet_lightning.reports.pictures import script_of
    from splitters import Stack

    if not options.files:
        raise ValueError("no file is named: give files or globs of text")
    stacks = {rule: Stack([rule_of("--splitter", rule)]) for rule in options.splitter or []}
    keys = {"text_key": options.text_key, "language_key": options.language_key}
    languages, report = inspect(expand(options.files, "FILE", **keys), script_of)
    if warning := report.warning():
        print(f"aunet: warning: {one_line(warning)}", file=sys.stderr)
    if not languages:
        key = report.has_no(options.text_key, "--text_key")
        raise ValueError(f"no document is in {', '.join(options.files)}" + (f": {key}" if key else ""))
    total = sum(text.bytes for text in languages.values())
    _print_table([TITLES, *(_row(*one, total) for one in sorted(languages.items()))])
    print("\nlengths, a bar for each power of two from 1 byte to 1 MB and more, and the beginning of a document")
    width = max(map(len, languages))
    for language, text in sorted(languages.items()):
        sample = " ".join(text.kept[0].decode("utf-8", "replace").split())[:SAMPLE]
        print(f"{one_line(language):<{width}}  {text.picture()}  {one_line(sample)}")
    if stacks:
        print()
        _print_table([("bytes per unit", *stacks), *(_rates(*one, stacks) for one in sorted(languages.items()))])
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


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    from aunet_lightning.reports.table import aligned

    print("\n".join(line.rstrip() for line in aligned(rows, left=LEFT)))


# aunet data check


def _check(options: argparse.Namespace) -> int:
    settings = _settings(options.config or [])
    if options.files:
        settings["train_files"] = options.files
    if not settings.get("train_files") and not settings.get("val_files"):
        raise ValueError("no text is named: give -c CONFIG, or files")
    from aunet_lightning.data.datamodule import ByteDataModule

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
    _print_table(rows)
    said = [str(one.message) for one in caught if "aunet_lightning" in str(one.filename)]
    for warning in said:
        print(f"aunet: warning: {one_line(warning)}", file=sys.stderr)
    print(f"aunet: {len(said) or 'no'} warning{'s' * (len(said) != 1)}: a run can train on this text", file=sys.stderr)
    return 0


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
        found |= {name: read[name] for name in ("splitter", "upper_splitters", "tokenizer") if name in read}
    return found
