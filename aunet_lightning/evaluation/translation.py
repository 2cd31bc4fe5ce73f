"""Translation into English, of parallel text: by likelihood the right sentence among four, and by generation chrF.

A question shows some examples, a line `source = english` each, and then `source =`: words of no language say what is
asked. The questions, their examples and their choices are the same in all languages.
"""

import json
import math
import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, NamedTuple

from aunet_lightning.errors import UserError
from aunet_lightning.evaluation.answers import Tally, Z, shortened
from aunet_lightning.evaluation.items import ANSWER, Item
from aunet_lightning.evaluation.kept import NOTHING, Kept, key_of
from aunet_lightning.evaluation.running import kept_answers
from aunet_lightning.generation import Request, Sampling
from aunet_lightning.generation import texts as continued
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.reader.reader import Reader
from aunet_lightning.scoring import ROW
from aunet_lightning.tracking.names import metric_name
from aunet_lightning.tracking.run_folder import RunFolder

if TYPE_CHECKING:
    from sacrebleu.metrics import CHRF

TASK, OTHER = "translation", "other"
ENGLISH = "en"
LENGTHS = range(20, 201)  # bytes of an English sentence
OTHERS, NEAR = 3, 12  # choices beside the answer, of so many whose length is nearest
GENERATED = 300  # bytes at most


class Sentence(NamedTuple):
    """What says the same in each language, and the number of the document that has it."""

    document: int
    texts: Mapping[str, str]

    @property
    def english(self) -> str:
        return self.texts[ENGLISH]


class Sentences(NamedTuple):
    """Sentences of parallel text, and how many documents and lines were left out, by reason."""

    found: list[Sentence]
    left_out: Counter[str]


def sentences(texts: Mapping[str, Sequence[bytes]]) -> Sentences:
    """Returns the lines of documents that have as many lines in each language (as sentences of FLORES have one).

    texts: by language documents in one order, English among them, as `training.parallel.aligned` returns them. Lines of
    20 to 200 bytes of English are taken, each once, if no language has nothing or the English there. Raises ValueError
    where there is no English, or nothing else.
    """
    if ENGLISH not in texts or len(texts) < 2:
        raise ValueError(
            f"translation: the parallel text is in {', '.join(sorted(texts)) or 'no language'}: it needs {ENGLISH}, "
            "into which others are translated, and another language"
        )
    found, left_out, seen = list[Sentence](), Counter[str](), set[str]()
    for document, versions in enumerate(zip(*texts.values(), strict=True)):
        lines = [version.decode("utf-8").strip().split("\n") for version in versions]
        if len({*map(len, lines)}) > 1:
            left_out["documents with another number of lines in a language"] += 1
            continue
        for line in zip(*lines, strict=True):
            one = Sentence(document, dict(zip(texts, map(str.strip, line), strict=True)))
            others = [text for language, text in one.texts.items() if language != ENGLISH]
            if len(one.english.encode()) not in LENGTHS:
                left_out[f"lines of less than {LENGTHS[0]} or more than {LENGTHS[-1]} bytes in English"] += 1
            elif one.english in seen:
                left_out["lines that came before"] += 1
            elif "" in others or one.english in others:
                left_out["lines that a language does not translate"] += 1
            else:
                seen.add(one.english)
                found.append(one)
    return Sentences(found, left_out)


class Question(NamedTuple):
    """A sentence to be translated."""

    id: str
    sentence: Sentence
    examples: tuple[Sentence, ...]
    choices: tuple[Sentence, ...]  # the sentence among them

    def context(self, language: str) -> bytes:
        """Returns what is asked in a language. It ends without a blank, which a BPE has at the beginning of words."""
        lines = [f"{one.texts[language]} = {one.english}\n" for one in self.examples]
        return ("".join(lines) + f"{self.sentence.texts[language]} =").encode()

    def item(self, language: str) -> Item:
        """Returns the choice among English sentences as an item of the task `translation`."""
        choices = tuple(f" {one.english}\n".encode() for one in self.choices)
        kinds = tuple(ANSWER if one is self.sentence else OTHER for one in self.choices)
        return Item(TASK, language, self.id, self.context(language), choices, kinds)


def questions(found: Sequence[Sentence], n: int = 200, shots: int = 2, seed: int = 0) -> list[Question]:
    """Returns up to n questions with `shots` examples each, drawn by the seed.

    Other choices are sentences of similar length in English, and they and the examples are of other documents than the
    sentence. Examples are of the shorter half, so that rows have room for them. Raises ValueError where there are too
    few sentences.
    """
    rng = random.Random(f"{seed}/{TASK}")
    made = list[Question]()
    for sentence in rng.sample(found, min(n, len(found))):
        others = [one for one in found if one.document != sentence.document]
        if len(others) < OTHERS + shots:
            raise ValueError(
                f"translation: a question needs {OTHERS + shots} sentences of other documents than its own, and the "
                f"parallel text has {len(others)}: give more documents, of lines that correspond"
            )
        rng.shuffle(others)
        others.sort(key=lambda one: abs(_size(one) - _size(sentence)))
        choices = [sentence, *rng.sample(others[:NEAR], OTHERS)]
        short = sorted((one for one in others if one not in choices), key=_size)
        examples = rng.sample(short[: max(len(short) // 2, shots)], shots)
        rng.shuffle(choices)
        made.append(Question(str(len(made) + 1), sentence, tuple(examples), tuple(choices)))
    if not made:
        raise ValueError(
            f"translation: the parallel text has no sentence of {LENGTHS[0]} to {LENGTHS[-1]} bytes in English in a "
            "document with as many lines in all languages: give one sentence a document, or a line"
        )
    return made


def _size(sentence: Sentence) -> int:
    return len(sentence.english.encode())


@dataclass(frozen=True)
class Generated:
    """What a model wrote for the sentences of a language, up to the end of the line.

    ended: how many ended, the line or the document; others were cut. chrf, copied, unrelated: chrF (0 to 100) of what
    was written, of the source as it is, and of another English sentence of similar length. interval: of chrf, 95 %.
    """

    texts: tuple[str, ...]
    ended: int
    chrf: float
    interval: tuple[float, float]
    copied: float
    unrelated: float


@dataclass(frozen=True)
class Translation:
    """How a model translates from a language into English.

    trained: whether the language is in its training text; None where that is unknown. shortened: questions that are cut
    at their beginning, for which a row has no room.
    """

    language: str
    trained: bool | None
    choices: Tally
    shortened: int
    generated: Generated | None


def translation(
    net: AUNet,
    reader: Reader,
    asked: Sequence[Question],
    trained: Collection[str] | None = None,
    generate: bool = True,
    row_ids: int = ROW,
    kept: Kept = NOTHING,
) -> Iterator[Translation]:
    """Yields the result of each language but English, one after the other.

    net: in evaluation mode. trained: the languages of its training text, under the names of the parallel text (see
    `trained_languages`). generate: whether it also writes translations. kept: results, which are taken from there as
    far as it has them, and added otherwise. Raises ModuleNotFoundError where it writes and sacrebleu is missing.
    """
    if generate:
        _metric()  # where it is missing, nothing is read in vain
    for language in asked[0].sentence.texts:
        if language == ENGLISH:
            continue
        items, tally = [question.item(language) for question in asked], Tally()
        for one in kept_answers(net, reader, items, row_ids, kept):
            tally.add(one)
        written = generated(net, reader, asked, language, kept) if generate else None
        cut = shortened(reader, items, row_ids)
        yield Translation(language, None if trained is None else language in trained, tally, cut, written)


def generated(net: AUNet, reader: Reader, asked: Sequence[Question], language: str, kept: Kept = NOTHING) -> Generated:
    """Returns what the model writes, the most likely byte each time. Raises ModuleNotFoundError without sacrebleu."""
    contexts = [one.context(language) for one in asked]
    known = {line["context"]: line for line in kept.lines if "context" in line}
    new = [one for one in contexts if key_of(one) not in known]
    sampling = Sampling(max_bytes=GENERATED, temperature=0, stop=(b"\n",))
    for context, one in zip(new, continued(net, reader, list(map(Request, new)), sampling), strict=True):
        line = {"context": key_of(context), "written": one.text.decode("utf-8").strip(), "finish": one.finish}
        kept.add({"language": language} | line)
        known[key_of(context)] = line
    kept.flush()
    written = [known[key_of(context)] for context in contexts]
    texts = tuple(one["written"] for one in written)
    wanted = [one.sentence.english for one in asked]
    unrelated = [next(other.english for other in one.choices if other is not one.sentence) for one in asked]
    score, interval = chrf(texts, wanted)
    return Generated(
        texts, sum(one["finish"] != "bytes" for one in written), score, interval,
        chrf([one.sentence.texts[language] for one in asked], wanted)[0], chrf(unrelated, wanted)[0],
    )  # fmt: skip


def chrf(written: Sequence[str], wanted: Sequence[str]) -> tuple[float, tuple[float, float]]:
    """Returns chrF2 (0 to 100) of texts, as sacrebleu counts it of a corpus, and its 95 % interval, by the spread of
    chrF2 over sentences. Raises ModuleNotFoundError where sacrebleu is missing."""
    metric = _metric()
    score = metric.corpus_score([*written], [[*wanted]]).score
    each = [metric.sentence_score(one, [other]).score for one, other in zip(written, wanted, strict=True)]
    half = Z * stdev(each) / math.sqrt(len(each)) if len(each) > 1 else 100.0
    return score, (max(score - half, 0.0), min(score + half, 100.0))


def _metric() -> "CHRF":
    try:
        from sacrebleu.metrics import CHRF
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("sacrebleu"):
            raise
        raise ModuleNotFoundError(
            "chrF needs sacrebleu, which is not installed: pip install 'aunet-lightning[evaluation]'", name=error.name
        ) from None
    return CHRF()


def trained_languages(checkpoint: Path) -> frozenset[str] | None:
    """Returns the languages of the text that a run trains on, as data.json in its folder tells; None where a checkpoint
    lies in no such folder. Raises UserError for a damaged file."""
    folder = RunFolder.around(checkpoint)
    if checkpoint.resolve().parent != folder.checkpoints or not folder.data.exists():
        return None
    try:
        return frozenset(json.loads(folder.data.read_text(encoding="utf-8"))["train"]["languages"])
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{folder.data} is damaged, so which languages the run trained on is unknown: restore it, or delete it"
        ) from None


def as_metrics(results: Iterable[Translation]) -> dict[str, float]:
    """Returns the share of right choices and chrF of each language as metrics."""
    found = {}
    for one in results:
        language = metric_name(one.language)
        found[f"eval/{TASK}_{language}"] = one.choices.accuracy
        if one.generated is not None:
            found[f"eval/chrf_{language}"] = one.generated.chrf
    return found


def table(results: Sequence[Translation]) -> list[list[str]]:
    """Returns a row for each language under a header, and below them means over all languages, those of the training
    and those that it never saw."""
    titles = ["language", "in training", "questions", "cut", "right", "95 %", "chance"]
    if any(one.generated for one in results):
        titles += ["chrF", "95 % of chrF", "ended", "chrF of the source", "chrF of another sentence"]
    groups = {
        "(all)": list(results),
        "(in training)": [one for one in results if one.trained],
        "(never in training)": [one for one in results if one.trained is False],
    }
    means = [_mean(name, group) for name, group in groups.items() if group]
    return [titles, *map(_row, results), *means]


def _row(one: Translation) -> list[str]:
    known = {True: "yes", False: "never", None: "unknown"}[one.trained]
    low, high = one.choices.interval
    row = [one.language, known, str(one.choices.n), str(one.shortened), f"{one.choices.accuracy:.3f}"]
    row += [f"{low:.3f} to {high:.3f}", f"{one.choices.chance / one.choices.n:.3f}"]
    if (text := one.generated) is not None:
        row += [f"{text.chrf:.1f}", f"{text.interval[0]:.1f} to {text.interval[1]:.1f}"]
        row += [f"{text.ended / len(text.texts):.2f}", f"{text.copied:.1f}", f"{text.unrelated:.1f}"]
    return row


def _mean(name: str, group: Sequence[Translation]) -> list[str]:
    """Returns the row of a mean in which each language counts once. It has no interval: languages share questions."""
    right = fmean(one.choices.accuracy for one in group)
    chance = fmean(one.choices.chance / one.choices.n for one in group)
    counts = sum(one.choices.n for one in group), sum(one.shortened for one in group)
    row = [name, "", *map(str, counts), f"{right:.3f}", "", f"{chance:.3f}"]
    if written := [one.generated for one in group if one.generated is not None]:
        ended = fmean(one.ended / len(one.texts) for one in written)
        row += [f"{fmean(one.chrf for one in written):.1f}", "", f"{ended:.2f}"]
        row += [f"{fmean(one.copied for one in written):.1f}", f"{fmean(one.unrelated for one in written):.1f}"]
    return row
