"""Teachers of the learned splitter `distilled`: they see the whole text, and so may look ahead.

Every splitter can teach. What is here cannot be a splitter, because its boundaries depend on later bytes.
"""

import difflib
import importlib
import inspect
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import regex

from splitters.contract import Splitter, Teacher, one_of
from splitters.edge_texts import short_texts
from splitters.engine.characters import code_point_classes
from splitters.registry import AnySplitter, Spec, available, construct, resolve_part
from splitters.rules.grapheme import Grapheme
from splitters.rules.whitespace import BLANK
from splitters.tokenizer_json import library, plain, read_file, refused

REPLACEMENT = 0xFFFD  # stands for a byte of no character: neither a letter nor a blank
SPELLED = (("spelled", r"[\p{L}\p{N}]"),)  # what makes a word of a stretch of text
BLANKS = (("blank", BLANK),)
BLANK_TOKENS = ("▁", "Ġ")  # a blank as SentencePiece and byte-level vocabularies write it

At = Literal["start", "end"]


class SpanTeacher(Teacher):
    """Finds stretches of characters, with a boundary on the first (`at: start`) or the last (`at: end`) of each.

    The boundary falls on the last byte of that character.
    """

    def __init__(self, name: str, at: str) -> None:
        self.at = one_of(name, "at", at, ("start", "end"))

    @abstractmethod
    def spans(self, text: str) -> np.ndarray:
        """Returns int [n, 2]: the index of each stretch's first character, and of the one after its last.

        text: each byte of no valid character in it is a U+FFFD.
        """

    def split(self, data: bytes) -> np.ndarray:
        text, last_bytes = _characters(data)
        begins, ends = self.spans(text).reshape(-1, 2).T
        places = (begins if self.at == "start" else ends - 1)[begins < ends]
        boundary = np.zeros(len(data), bool)
        boundary[last_bytes[places]] = True
        return boundary


def _characters(data: bytes) -> tuple[str, np.ndarray]:
    """Returns the text, each byte of no valid character as a U+FFFD, and the offset of each character's last byte."""
    read = data.decode("utf-8", "surrogateescape")
    points = np.frombuffer(read.encode("utf-32-le", "surrogatepass"), np.uint32)
    lone = (points >= 0xDC80) & (points <= 0xDCFF)
    n_bytes = np.where(lone, 1, 1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF))
    text = np.where(lone, REPLACEMENT, points).astype("<u4").tobytes().decode("utf-32-le") if lone.any() else read
    return text, np.cumsum(n_bytes) - 1


def _are(classes: tuple[tuple[str, str]], text: str) -> np.ndarray:
    """Returns bool [len(text)]: whether each character is of the class."""
    return code_point_classes(classes)[np.frombuffer(text.encode("utf-32-le"), np.uint32)] == 0


class Words(SpanTeacher):
    """Words by ICU's dictionaries in Chinese, Japanese, Thai, Lao, Khmer and Burmese, by UAX #29 elsewhere.

    A word is a stretch with a letter or a digit in it; blanks and punctuation between words have no boundary,
    and grapheme clusters stay whole. `locale`: ICU chooses the dictionary by the script, whatever the locale, so one
    teacher serves all languages; the few locales with rules of their own (en-US-u-va-posix) change those of UAX #29.
    Raises ValueError where the optional package icu4py is missing.
    """

    source = "ICU's word break iterators, by icu4py"

    def __init__(self, at: At = "start", locale: str = "root") -> None:
        super().__init__("words", at)
        try:
            from icu4py.breakers import WordBreaker
        except ImportError as error:
            raise ValueError(
                f"words: its dictionaries are those of icu4py, which cannot be imported ({error}): "
                "pip install 'aunet-lightning[words]'"
            ) from None
        if not isinstance(locale, str):
            raise ValueError(f"words: locale is {locale!r}, it must be a name such as 'root' or 'en-US-u-va-posix'")
        self.locale, self.clusters = locale, Grapheme()
        WordBreaker("", locale)  # made once now, so that what ICU does not take is said now

    def spans(self, text: str) -> np.ndarray:
        from icu4py.breakers import WordBreaker

        if not text:
            return np.zeros((0, 2), np.int64)
        sizes = np.fromiter(map(len, WordBreaker(text, self.locale)), np.int64)  # its offsets would be UTF-16
        begins = np.cumsum(sizes) - sizes
        begins = begins[self._begin_clusters(text)[begins]]  # ICU tears a few: Burmese and Khmer stacked consonants
        ends = np.append(begins[1:], len(text))
        words = np.logical_or.reduceat(_are(SPELLED, text), begins)
        return np.stack([begins, ends], axis=1)[words]

    def _begin_clusters(self, text: str) -> np.ndarray:
        """Returns bool [len(text)]: whether each character is the first of a grapheme cluster."""
        data = text.encode()
        return self.clusters.split(data)[_characters(data)[1]]


class ZeroWidthSpace(SpanTeacher):
    """Words as the text itself marks them: by zero-width spaces (U+200B) and by blanks.

    A mark has no boundary of its own. With `at: end` the student learns the last character of a word before it sees
    the mark; with `at: start`, the first character after it, nothing looks ahead.
    """

    source = "zero-width spaces in the text, as Khmer has them"

    def __init__(self, at: At = "end") -> None:
        super().__init__("zero_width_space", at)

    def spans(self, text: str) -> np.ndarray:
        inside = np.concatenate([[False], ~_are(BLANKS, text), [False]])
        return np.flatnonzero(inside[1:] != inside[:-1]).reshape(-1, 2)


class Regex(SpanTeacher):
    """Matches of your own regular expressions, which may look ahead: all that the library `regex` takes.

    `patterns`: one or a list, each searched by itself from the beginning of the text (in version 1 of `regex`, as the
    rule `pattern` does). Empty matches count for nothing. Raises ValueError for what is no regular expression, and for
    one that `regex` runs out of memory on.
    """

    source = "pre-tokenizers as of GPT-2"

    def __init__(self, patterns: str | Sequence[str], at: At = "end") -> None:
        super().__init__("regex", at)
        listed = [patterns] if isinstance(patterns, str) else patterns
        if not isinstance(listed, list | tuple) or not listed or not all(isinstance(each, str) for each in listed):
            raise ValueError(f"regex: patterns is {patterns!r}, it must be a regular expression or a list of some")
        self.patterns = [_expression(pattern) for pattern in listed]

    def spans(self, text: str) -> np.ndarray:
        found = [match.span() for pattern in self.patterns for match in pattern.finditer(text)]
        return np.array(found, np.int64)


def _expression(pattern: str) -> Any:
    try:
        expression = regex.compile(pattern, regex.V1)
        for data in short_texts().values():
            for _ in expression.finditer(data.decode("utf-8", "replace")):
                pass
    except (regex.error, ValueError) as error:
        raise ValueError(f"regex: {pattern!r} is no regular expression: {error}") from None
    except (MemoryError, RecursionError):  # on patterns that call themselves, or are nested too deep
        raise ValueError(f"regex: {pattern[:80]!r} is nested too deep, or calls itself without end") from None
    return expression


class Tokenizer(SpanTeacher):
    """Tokens of any Hugging Face tokenizers JSON: BPE, Unigram, WordPiece.

    `file`: its path. Offsets are those in the text before normalisation; a mark that a normaliser composes or strips is
    outside the token. A boundary inside a character moves to that character's last byte. What the tokenizer itself
    puts before a word is not a token. Text that spells a special token is text, and truncation, padding, the
    post-processor and dropout are off (`tokenizer_json.plain`). Raises ValueError for a file that is not a tokenizers
    JSON, or whose tokenizer cannot encode every text.
    """

    source = "Hugging Face tokenizers"

    def __init__(self, file: str, at: At = "end") -> None:
        super().__init__("tokenizer", at)
        if not isinstance(file, str | Path):
            raise ValueError(f"tokenizer: file is {file!r}, it must be the path of a tokenizers JSON")
        self.file = str(file)
        self.tokenizer = library(plain(read_file(self.file, "tokenizer"), self.file), self.file)
        vocabulary = self.tokenizer.get_vocab()
        self.blanks = np.array([vocabulary[token] for token in BLANK_TOKENS if token in vocabulary], np.int64)
        remedy = "give its model an unknown token that its vocabulary has, or byte fallback"
        with refused(f"tokenizer: {self.file!r} cannot encode every text", remedy):
            for data in short_texts().values():
                self.split(data)

    def spans(self, text: str) -> np.ndarray:
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        spans = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        kept = np.ones(len(spans), bool)
        for token in np.flatnonzero(np.isin(np.array(encoding.ids, np.int64), self.blanks)).tolist():
            begin, end = spans[token].tolist()
            kept[token] = text[begin:end].isspace() or text[begin:end] in BLANK_TOKENS  # else it was put there
        return spans[kept]


TEACHERS: dict[str, type[Teacher]] = {
    "regex": Regex,
    "tokenizer": Tokenizer,
    "words": Words,
    "zero_width_space": ZeroWidthSpace,
}


def check_form(teacher: Splitter | Teacher) -> None:
    """Raises ValueError where a teacher of one's own does not return what it must on the shared edge texts."""
    if isinstance(teacher, Splitter) or type(teacher).__module__ == __name__:
        return
    name = type(teacher).__name__
    for data in short_texts().values():
        try:
            got = teacher.split(data)
        except Exception as error:  # it can raise anything
            raise ValueError(f"teacher {name} raised {type(error).__name__} on {data!r}: {error}") from error
        if not isinstance(got, np.ndarray) or got.dtype != np.bool_ or got.shape != (len(data),):
            form = f"{got.dtype} {list(got.shape)}" if isinstance(got, np.ndarray) else type(got).__name__
            raise ValueError(f"teacher {name} returned {form} for {data!r}, not bool [{len(data)}]")


def peeks(teacher: Splitter | Teacher) -> bool:
    """Returns whether its boundaries may depend on later bytes: those of a splitter never do."""
    return isinstance(teacher, Teacher)


def resolve_teacher(spec: Spec | Teacher) -> Splitter | Teacher:
    """Builds a teacher from what stands in a YAML file: a name, or `{name: …, option: …}`; else a splitter.

    `module:Class` is one's own. Objects pass through. Raises ValueError for an unknown name (listing the teachers),
    for options that it does not take, and for a splitter that learns or that groups units.
    """
    if isinstance(spec, Teacher):
        return spec
    options = {str(key): value for key, value in spec.items()} if isinstance(spec, Mapping) else {"name": spec}
    name = options.pop("name", None)
    if isinstance(name, str):
        cls = _import_class(name) if ":" in name else TEACHERS.get(name)
        if cls is not None:
            return construct("teacher", name, cls, options)
        if ":" not in name and name not in available():
            raise ValueError(_unknown(name))
    return resolve_part("distilled", spec)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, [*TEACHERS, *available()], n=1)
    return (
        f"unknown teacher {name!r}: known are {', '.join(TEACHERS)}, every splitter (aunet splitters lists them), "
        f"or module:Class for your own.{f' Did you mean {near[0]!r}?' if near else ''}"
    )


def _import_class(path: str) -> type[Teacher] | None:
    """Returns the teacher `module:Class`, or None where that is a splitter."""
    module, _, attribute = path.partition(":")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the user's module can raise anything
        raise ValueError(f"teacher {path!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not (inspect.isclass(cls) and issubclass(cls, Teacher | AnySplitter)):
        raise ValueError(
            f"teacher {path!r}: {cls!r} must be a class that inherits from splitters.teachers.Teacher, "
            "or from splitters.Splitter"
        )
    if not issubclass(cls, Teacher):
        return None
    if missing := sorted(cls.__abstractmethods__):
        raise ValueError(f"teacher {path!r}: {cls.__name__} lacks {', '.join(missing)}")
    return cls
