"""How much of each language, or of each entry of files, an epoch reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from aunet_lightning.data.corpus import Corpus
from aunet_lightning.data.order import Interleaved
from aunet_lightning.data.sources import HEAVIEST, Source, check_weight
from aunet_lightning.numbers import Range, check_fields, listed

MOST_BYTES = 1e18
GIVEN = ("temperature", "weights", "bytes")  # of which one tells the shares


@dataclass(frozen=True)
class MixConfig:
    """Shares of languages in the training text. At most one of temperature, weights and bytes.

    Without one, entries of train_files have a `weight` each, which is the share of their text.
    """

    temperature: float | None = None
    """τ: a language's share is its bytes to this power (1: as the text is; 0.3: less uneven; 0: equal shares)"""
    weights: dict[str, float] | None = None
    """shares of bytes by language, for each language of the text: {th: 2, en: 1} reads two bytes of Thai per byte of
    English"""
    bytes: dict[str, float] | None = None
    """bytes that an epoch reads of each language that is named; of others all of their text"""
    until: Literal["text_size", "first_exhausted", "all_exhausted"] = "text_size"
    """length of an epoch, without `bytes`: as many bytes as the text has; until a language is read to its end (none
    is repeated in an epoch); or until all are"""

    def __post_init__(self) -> None:
        given = [name for name in GIVEN if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"data.mix: {' and '.join(given)} are given: name only one")
        if self.bytes is not None and self.until != "text_size":
            raise ValueError("data.mix: bytes say how long an epoch is: leave out until")
        check_fields(self, "data.mix", temperature=Range(least=0, most=10))
        for what, most in (("weights", HEAVIEST), ("bytes", MOST_BYTES)):
            given_here = getattr(self, what)
            if given_here == {}:
                raise ValueError(f"data.mix.{what} is empty: name languages, or leave it out")
            for name, weight in (given_here or {}).items():
                check_weight(weight, f"data.mix.{what}: {name}", most)


class Portion(NamedTuple):
    """A group of documents, and how much of it an epoch reads."""

    name: str  # a language, or an entry of files
    documents: np.ndarray
    bytes: int  # of its text
    read: float  # bytes of text that an epoch reads

    @property
    def times(self) -> float:
        """How often an epoch reads each document."""
        return self.read / max(self.bytes, 1)


class Amount(NamedTuple):
    """Text of a language."""

    documents: int
    bytes: int
    read: float  # bytes of it that an epoch reads


def amounts(corpus: Corpus, documents: np.ndarray, mix: Sequence[Portion] | None) -> dict[str, Amount]:
    """Returns the text of each language that documents have, and what an epoch reads of it (no mix: all)."""
    n = len(corpus.language_names)
    counts = np.bincount(corpus.languages[documents], minlength=n)
    times = np.ones(len(corpus))
    for portion in mix or ():
        times[portion.documents] = portion.times
    sizes, read = (
        np.bincount(corpus.languages[documents], corpus.lengths[documents] * of, n) for of in (1, times[documents])
    )
    return {
        corpus.language_names[i]: Amount(int(counts[i]), int(sizes[i]), float(read[i])) for i in counts.nonzero()[0]
    }


def shares_of(config: MixConfig, sizes: Mapping[str, float]) -> dict[str, float]:
    """Returns the share of each language, which sum to 1. sizes: bytes of text by language.

    Raises ValueError where a language has no weight, or a weight no text.
    """
    for what, given in (("weights", config.weights), ("bytes", config.bytes)):
        if unknown := sorted(set(given or ()) - set(sizes)):
            raise ValueError(
                f"data.mix.{what}: the training text has no {listed(unknown)}; it has {listed(sorted(sizes))}"
            )
    if config.weights is not None and (without := sorted(set(sizes) - set(config.weights))):
        raise ValueError(
            f"data.mix.weights: {listed(without)} has no weight: add it, or leave its text out (data.languages)"
        )
    temperature = 1.0 if config.temperature is None else config.temperature
    weights = config.weights or {name: size**temperature for name, size in sizes.items()}
    weights = {**sizes, **config.bytes} if config.bytes is not None else weights
    return {name: weights[name] / sum(weights.values()) for name in sizes}


def shares_of_entries(config: MixConfig, sources: Sequence[Source]) -> dict[str, float] | None:
    """Returns the share of each entry of files, which sum to 1; None where none has a weight.

    Raises ValueError where another one has none, or the mix names shares too.
    """
    if all(source.weight is None for source in sources):
        return None
    if given := [name for name in GIVEN if getattr(config, name) is not None]:
        raise ValueError(f"data.mix.{given[0]} is given, and entries of data.train_files have a weight: name only one")
    weights = {source.entry: source.weight or 0.0 for source in sources}
    if without := sorted(entry for entry, weight in weights.items() if not weight):
        raise ValueError(f"data.train_files: {without[0]!r} has no weight, and other entries have one: add it")
    return {entry: weight / sum(weights.values()) for entry, weight in weights.items()}


def portions(config: MixConfig, corpus: Corpus, documents: np.ndarray, sources: Sequence[Source]) -> list[Portion]:
    """Returns a portion for each language of these documents, or for each entry of files where entries have weights.

    sources: of each of the corpus's files. Raises ValueError as `shares_of` and `shares_of_entries` do, and for an
    entry without documents.
    """
    shares = shares_of_entries(config, sources)
    if shares is not None:
        number = {entry: i for i, entry in enumerate(shares)}
        labels = np.array([number[source.entry] for source in sources])[corpus.files[documents]]
    else:
        number, labels = {name: i for i, name in enumerate(corpus.language_names)}, corpus.languages[documents]
    groups = {name: documents[labels == i] for name, i in number.items() if shares is not None or (labels == i).any()}
    if empty := [name for name, group in groups.items() if not len(group)]:
        raise ValueError(f"data.train_files: {empty[0]!r} has a weight, and no document: leave it out")
    sizes = {name: int(corpus.lengths[group].sum()) for name, group in groups.items()}
    shares = shares or shares_of(config, sizes)
    lengths = [sizes[name] / share for name, share in shares.items()]
    epoch = {"text_size": sum(sizes.values()), "first_exhausted": min(lengths), "all_exhausted": max(lengths)}
    if config.bytes is not None:
        epoch["text_size"] = sum((sizes | config.bytes).values())
    return [Portion(name, group, sizes[name], shares[name] * epoch[config.until]) for name, group in groups.items()]


def interleaved(mix: Sequence[Portion], ids: np.ndarray, row: int, batch: int, seed: int) -> Interleaved:
    """Returns the order in which training reads a mix; ids: of each document of the corpus, BOS and EOS among them."""
    read = np.array([portion.read * ids[portion.documents].sum() / portion.bytes for portion in mix])  # ids of an epoch
    groups = [portion.documents for portion in mix]
    return Interleaved(groups, (read / read.sum()).tolist(), ids, row, batch, float(read.sum()), seed)
