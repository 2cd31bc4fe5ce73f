"""Checks of the text that a run was given, before it trains: what stops it, and what it is warned of."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from lightning_utilities.core.rank_zero import rank_zero_warn  # Lightning's, without loading all of it

from aunet_lightning.data.corpus import Corpus
from aunet_lightning.data.documents import Report, bare_name, stem
from aunet_lightning.data.places import Place
from aunet_lightning.data.skipped import why_nothing
from aunet_lightning.data.sources import LANGUAGE_KEY, Source
from aunet_lightning.reader.reader import Reader

RANGES = {  # of numbers: the least, the most, and an example
    "row_bytes": (1, math.inf, ""), "batch_rows": (1, math.inf, ""), "workers": (0, math.inf, ""),
    "context_bytes": (0, math.inf, ""), "seed": (0, math.inf, ""),
    "holdout_every": (2, math.inf, " (10 holds out a tenth)"),
    "shuffle_buffer_bytes": (1, 1e12, " (64e6 is 64 MB)"), "skipped_limit": (0, 1, ""),
}  # fmt: skip


def check_options(languages: Sequence[str] | None, **numbers: float | None) -> None:
    """Raises ValueError for options of the data that are out of range."""
    for name, value in numbers.items():
        least, most, remedy = RANGES[name]
        if value is not None and not least <= value <= most:
            bounds = f"{least:g} or more" if most == math.inf else f"from {least:g} to {most:g}"
            raise ValueError(f"data.{name} is {value:g}, it must be {bounds}{remedy}")
    if languages == []:
        raise ValueError("data.languages is empty: name at least one, or null for all")


def check_stream(holdout_every: int | None) -> None:
    """Raises ValueError for an option that a stream does not have."""
    if holdout_every:
        raise ValueError(
            "data.holdout_every: a stream (data.shuffle_buffer_bytes) does not know its documents beforehand: name "
            "data.val_files (aunet data split makes them), or leave out one of the two"
        )


def check_mixed(rows: str) -> None:
    """Raises ValueError for rows that a mix does not have."""
    if rows == "documents":
        raise ValueError(
            "data.rows: a mix is one stream from epoch to epoch: leave out data.mix (and weights), or data.rows"
        )


def check_keys(part: str, sources: Sequence[Source], reports: Sequence[Report]) -> None:
    """Raises ValueError where a key that is asked for is in no line. reports: of each source."""
    for text_key, language_key in dict.fromkeys((source.text_key, source.language_key) for source in sources):
        alike = Report()
        for source, of_file in zip(sources, reports, strict=True):
            if (source.text_key, source.language_key) == (text_key, language_key):
                alike.add(of_file)
        missing = None if alike.documents else alike.has_no(text_key, "data.text_key")
        if missing is None and language_key != LANGUAGE_KEY:
            missing = alike.has_no(language_key, "data.language_key")
        if missing:
            raise ValueError(f"data.{part}_files: {missing}")


def warn_of_files(part: str, sources: Sequence[Source], corpus: Corpus) -> None:
    """Warns of what files may hold that was not meant."""
    sharing: dict[str, list[Path | Place]] = {}
    for source, of_file in zip(sources, corpus.reports, strict=True):
        if of_file.unnamed and not source.named and source.language == stem(source.path):
            sharing.setdefault(source.language, []).append(source.path)
    for language, paths in sharing.items():
        if len({bare_name(path) for path in paths}) > 1:
            rank_zero_warn(
                f"{part} files: {', '.join(path.name for path in paths[:4])} share the language {language!r}, "
                "which their names begin with, as their lines name none: where they differ, name it, "
                f"{{path: {paths[0].name}, lang: …}}"
            )
    full = (digest for digest, one in zip(corpus.digests, corpus.reports, strict=True) if one.documents)
    for digest, count in Counter(full).items():
        if count > 1:
            same = [str(path) for path, one in zip(corpus.paths, corpus.digests, strict=True) if one == digest]
            rank_zero_warn(f"{part} files: {' and '.join(same)} hold the same documents, which count {count} times")


def check_targets(reader: Reader, languages: Collection[str]) -> None:
    """Raises ValueError where a learned splitter has no target for the text of a language."""
    for rule in reader.stack.learned.values():
        without = sorted({*languages} - {*rule.by_language})
        if rule.bytes_per_unit is None and rule.by_language and without:
            raise ValueError(
                f"bytes_per_unit of {type(rule).__name__.lower()} has no length for text in {', '.join(without)}: "
                f"add it, or default: 6. It has {', '.join(rule.by_language)}"
            )


def warn_of_known(parts: Collection[str], corpora: Mapping[str, Corpus], documents: Mapping[str, np.ndarray]) -> None:
    """Warns of held-out text, of these parts, that is trained on too."""
    known = corpora["train"].hashes[documents["train"]]
    for part in parts:
        corpus, ours = corpora[part], documents[part]
        again = ours[np.isin(corpus.hashes[ours], known)]
        if len(again):
            share = corpus.lengths[again].sum() / max(corpus.lengths[ours].sum(), 1)
            rank_zero_warn(
                f"{share:.1%} of the {part} text ({len(again)} of {len(ours)} documents) is in the training "
                f"text too, so its bits are too low: the first is {corpus.name(int(again[0]))}"
            )


def warn_of_none_held_out(corpus: Corpus, documents: Mapping[str, np.ndarray], holdout_every: int) -> None:
    """Warns of languages of which no document is held out."""
    used = {part: {*np.unique(corpus.languages[documents[part]])} for part in ("train", "val")}
    if without := sorted(corpus.language_names[language] for language in used["train"] - used["val"]):
        rank_zero_warn(
            f"no document of {', '.join(without)} is held out: no file has data.holdout_every ({holdout_every}) "
            "documents of it"
        )


def why_none(corpus: Corpus, holdout_every: int | None) -> str:
    """Returns why no document is left; holdout_every: of documents that are held out of the training files."""
    if holdout_every is not None:
        return f"no file has {holdout_every} documents of a language; lower data.holdout_every or name data.val_files"
    return why_nothing(corpus.report, corpus.paths)
