"""Robustness: what it costs a model that a text is written otherwise, though a reader would understand it.

A change takes a text and a source of draws, and returns the text as it is changed. A text that a change leaves as it is
(there is no case in Thai) is left out of its sums, and counted.
"""

import math
import random
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import regex

from aunet_lightning.evaluation.kept import NOTHING, Kept, key_of
from aunet_lightning.evaluation.language_text import characters, is_word
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.reader.reader import Reader
from aunet_lightning.scoring import ROW, Score, score
from aunet_lightning.tracking.names import metric_name

Change = Callable[[str, random.Random], str]
MEAN = "(mean)"  # the row of all languages, each of which counts once

BLANK = regex.compile(r"[\t\p{Zs}]")  # line ends stay
# Letters that stay legible without marks. In Thai, Khmer or Devanagari marks are vowels, in kana other consonants.
MARKED = regex.compile(r"[\p{Latin}\p{Greek}\p{Cyrillic}\p{Arabic}\p{Hebrew}]\p{Mn}*")
MARK = regex.compile(r"\p{Mn}")
KATAKANA = regex.compile(r"[\p{Katakana}ー][\u3099\u309A]*")
HALF_WIDTH = {ord(unicodedata.normalize("NFKC", chr(code))): code for code in range(0xFF66, 0xFFA0)}
FULL_WIDTH = {code: code + 0xFEE0 for code in range(128) if chr(code).isalnum()}


def upper(text: str, _: random.Random) -> str:
    """All capitals, by Unicode's rules of no language: ß becomes SS, a Turkish i an I."""
    return text.upper()


def swapped_case(text: str, _: random.Random) -> str:
    """Capitals become small letters, and small letters capitals."""
    return text.swapcase()


def no_diacritics(text: str, _: random.Random) -> str:
    """Latin, Greek, Cyrillic, Arabic and Hebrew letters without their marks, as BERT strips accents: é e, й и, أ ا."""
    return MARKED.sub(lambda found: MARK.sub("", unicodedata.normalize("NFD", found[0])), text)


def no_blanks(text: str, _: random.Random) -> str:
    """Blanks and tabs are left out."""
    return BLANK.sub("", text)


def double_blanks(text: str, _: random.Random) -> str:
    """Each blank or tab twice."""
    return BLANK.sub(lambda found: 2 * found[0], text)


def exchanged(share: float) -> Change:
    """Returns a change by which a share of the characters of words are exchanged with the next one in the word.

    Characters are grapheme clusters. A pair is of different ones, and each is in one pair at most.
    """

    def change(text: str, rng: random.Random) -> str:
        found = characters(text)
        in_word = [is_word(character) for character in found]
        pairs = [i for i in range(len(found) - 1) if in_word[i] and in_word[i + 1] and found[i] != found[i + 1]]
        left, moved = int(share * sum(in_word) + rng.random()), set[int]()  # as many as the share says on average
        for i in rng.sample(pairs, len(pairs)):
            if left and not {i, i + 1} & moved:
                found[i], found[i + 1] = found[i + 1], found[i]
                moved |= {i, i + 1}
                left -= 1
        return "".join(found)

    return change


def full_width(text: str, _: random.Random) -> str:
    """A to Z, a to z and digits in full width."""
    return text.translate(FULL_WIDTH)


def half_width(text: str, _: random.Random) -> str:
    """Katakana in half width, in which marks of sound are characters of their own."""
    return KATAKANA.sub(lambda found: unicodedata.normalize("NFD", found[0]).translate(HALF_WIDTH), text)


def nfc(text: str, _: random.Random) -> str:
    """Letters and marks composed."""
    return unicodedata.normalize("NFC", text)


def nfd(text: str, _: random.Random) -> str:
    """Letters and marks apart; Hangul in jamo."""
    return unicodedata.normalize("NFD", text)


CHANGES: dict[str, Change] = {
    "upper": upper,
    "swapped_case": swapped_case,
    "no_diacritics": no_diacritics,
    "no_blanks": no_blanks,
    "double_blanks": double_blanks,
    "exchanged_2": exchanged(0.02),
    "exchanged_10": exchanged(0.1),
    "full_width": full_width,
    "half_width": half_width,
    "nfc": nfc,
    "nfd": nfd,
}


def changes_of(names: Iterable[str]) -> dict[str, Change]:
    """Returns the changes of these names. Raises ValueError for an unknown one."""
    names = list(names)
    for name in names:
        if name not in CHANGES:
            raise ValueError(f"{name!r} is no change of a text: choose among {', '.join(CHANGES)}")
    return {name: CHANGES[name] for name in names}


class Sums(NamedTuple):
    """Sums over texts."""

    bytes: int
    bits: float
    units: int  # that begin at stage 2; of a BPE model tokens; 0 of a model of one stage

    @property
    def bpb(self) -> float:
        """Bits per byte; nan of no text."""
        return _ratio(self.bits, self.bytes)


class Changed(NamedTuple):
    """A document of a language and what a change makes of it. after: None where the change leaves it as it is."""

    change: str
    language: str
    document: int  # its number in its language, from 0
    before: Sums
    after: Sums | None


@dataclass(frozen=True)
class Effect:
    """What a change does to the documents of a language that it alters.

    documents: that it alters; same: that it leaves as they are, which are in no sum.
    before, after: sums over these documents as they are, and over their changed text.
    """

    change: str
    language: str
    documents: int
    same: int
    before: Sums
    after: Sums

    @property
    def bits_per_original_byte(self) -> float:
        """Bits of the changed text ÷ bytes of the text before the change; nan where no document is altered."""
        return _ratio(self.after.bits, self.before.bytes)

    @property
    def relative_bits(self) -> float:
        """Bits of the changed text ÷ bits of the text before the change: what the same content costs."""
        return _ratio(self.after.bits, self.before.bits)

    @property
    def relative_bpb(self) -> float:
        """BPB of the changed text ÷ BPB of the text before the change."""
        return _ratio(self.after.bpb, self.before.bpb)

    @property
    def relative_units(self) -> float:
        """Units of the changed text ÷ units of the text before the change."""
        return _ratio(self.after.units, self.before.units)


def robustness(
    net: AUNet,
    reader: Reader,
    texts: Mapping[str, Sequence[bytes]],
    changes: Mapping[str, Change] = CHANGES,
    row_ids: int = ROW,
    seed: int = 0,
    kept: Kept = NOTHING,
) -> Iterator[Changed]:
    """Yields each document under each change, language by language, with bits as `score` counts them.

    net: in evaluation mode. texts: documents by language. row_ids: ids that a row reads; a text that gets longer than a
    row continues in a further one. What a change draws depends on seed, change and text alone, so what is yielded of a
    document depends on no other document, change or language. kept: results, which are taken from there as far as it
    has them, and added otherwise.
    Raises ValueError for documents that are not UTF-8, and for text that a BPE's vocabulary cannot spell.
    """
    known = {_place(line): line for line in kept.lines}
    found = list[Mapping[str, Any]]()
    for language, documents in texts.items():
        plain = [_decoded(document, language, number) for number, document in enumerate(documents)]
        before = [_sums(one) for one in score(net, reader, documents, row_ids)]
        for name, change in changes.items():
            changed = [change(text, random.Random(f"{seed}/{name}/{text}")) for text in plain]
            new = [None if one == text else one.encode() for one, text in zip(changed, plain, strict=True)]
            lines = [None if one is None else _line(name, language, i, one) for i, one in enumerate(new)]
            todo = [
                one for one, line in zip(new, lines, strict=True)
                if one is not None and line is not None and _place(line) not in known
            ]  # fmt: skip
            scores = score(net, reader, todo, row_ids)
            for number, line in enumerate(lines):
                after = None
                if line is not None and (old := known.get(_place(line))) is not None:
                    after = Sums(*old["sums"])
                    found.append(old)
                elif line is not None:
                    after = _sums(next(scores))
                    found.append(line | {"bits": after.bits, "bytes": before[number].bytes, "sums": after})
                    kept.add(found[-1])
                yield Changed(name, language, number, before[number], after)
            kept.flush()
    kept.only(found)


def _line(change: str, language: str, document: int, text: bytes) -> dict[str, object]:
    return {"change": change, "lang": language, "id": str(document), "text": key_of(text)}


def _place(line: Mapping[str, object]) -> tuple[object, ...]:
    return line["change"], line["lang"], line["id"], line["text"]


def effects(changed: Iterable[Changed]) -> list[Effect]:
    """Returns the sums by language and change, in the order in which they come."""
    found: dict[tuple[str, str], list[Changed]] = {}
    for one in changed:
        found.setdefault((one.language, one.change), []).append(one)
    return [_effect(of) for of in found.values()]


def as_metrics(found: Iterable[Effect]) -> dict[str, float]:
    """Returns the relative bits of each change in each language as a metric, where it alters a document."""
    return {
        f"eval/robustness_{one.change}_{metric_name(one.language)}": one.relative_bits for one in found if one.documents
    }


def table(found: Iterable[Effect]) -> list[list[str]]:
    """Returns the profile of a model under a header: relative bits, a row for each language and a column for each
    change; – where it alters no document. The last row is the mean over languages."""
    rows: dict[str, dict[str, float]] = {}
    for one in found:
        rows.setdefault(one.language, {})[one.change] = one.relative_bits
    changes = [*dict.fromkeys(change for of in rows.values() for change in of)]
    rows[MEAN] = {change: _mean(of.get(change, math.nan) for of in rows.values()) for change in changes}
    cells = [[language, *(_shown(of.get(change, math.nan)) for change in changes)] for language, of in rows.items()]
    return [["language", *changes], *cells]


def details(found: Iterable[Effect]) -> list[list[str]]:
    """Returns a row for each change of each language, under a header."""
    titles = [
        "language", "change", "documents", "as they are", "BPB", "BPB changed", "bits per original byte",
        "relative BPB", "relative bits", "relative units",
    ]  # fmt: skip
    rows = []
    for one in found:
        rates = one.before.bpb, one.after.bpb, one.bits_per_original_byte
        relative = one.relative_bpb, one.relative_bits, one.relative_units
        rows.append([one.language, one.change, str(one.documents), str(one.same), *map(_shown, rates + relative)])
    return [titles, *rows]


def _decoded(document: bytes, language: str, number: int) -> str:
    try:
        return document.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"robustness: document {number} of {language} is not UTF-8 at byte {error.start}, so it has no characters "
            "to change: convert it, or leave it out"
        ) from None


def _sums(one: Score) -> Sums:
    return Sums(len(one.levels), one.bits, int((one.levels > 0).sum()))


def _effect(of: Sequence[Changed]) -> Effect:
    pairs = [(one.before, one.after) for one in of if one.after is not None]
    before, after = (_added([pair[i] for pair in pairs]) for i in (0, 1))
    return Effect(of[0].change, of[0].language, len(pairs), len(of) - len(pairs), before, after)


def _added(sums: Sequence[Sums]) -> Sums:
    return Sums(sum(one.bytes for one in sums), math.fsum(one.bits for one in sums), sum(one.units for one in sums))


def _ratio(value: float, to: float) -> float:
    return value / to if to else math.nan


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return _ratio(math.fsum(known), len(known))


def _shown(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
