"""Words by dictionary, for scripts that do not mark them."""

import numpy as np

from splitters.registry import register
from splitters.rules.grapheme import Grapheme
from splitters.teachers.spans import At, SpanTeacher, are, characters

SPELLED = r"[\p{L}\p{N}]"  # a stretch of text is a word if it has one of these


@register("words")
class Words(SpanTeacher):
    """Words by ICU's dictionaries in Chinese, Japanese, Thai, Lao, Khmer and Burmese, by UAX #29 elsewhere.

    A word is a stretch with a letter or a digit in it. Blanks and punctuation between words have no boundary, and
    grapheme clusters stay intact. `locale`: ICU chooses the dictionary by the script, whatever the locale, so one
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
                f"words: its dictionaries come with icu4py, which cannot be imported ({error}): "
                "pip install 'aunet-lightning[words]'"
            ) from None
        if not isinstance(locale, str):
            raise ValueError(f"words: locale is {locale!r}, it must be a name such as 'root' or 'en-US-u-va-posix'")
        self.locale, self.clusters = locale, Grapheme()
        WordBreaker("", locale)  # a locale that ICU refuses fails here

    def spans(self, text: str) -> np.ndarray:
        from icu4py.breakers import WordBreaker

        if not text:
            return np.zeros((0, 2), np.int64)
        sizes = np.fromiter(map(len, WordBreaker(text, self.locale)), np.int64)  # its offsets would be UTF-16
        begins = np.cumsum(sizes) - sizes
        begins = begins[self._begin_clusters(text)[begins]]  # ICU tears a few: Burmese and Khmer stacked consonants
        ends = np.append(begins[1:], len(text))
        words = np.logical_or.reduceat(are(SPELLED, text), begins)
        return np.stack([begins, ends], axis=1)[words]

    def _begin_clusters(self, text: str) -> np.ndarray:
        """Returns bool [len(text)]: whether each character is the first of a grapheme cluster."""
        data = text.encode()
        return self.clusters.split(data)[characters(data)[1]]
