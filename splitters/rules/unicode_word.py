"""Words by Unicode's default word boundaries (UAX #29), with the cuts and joins of HAT (arXiv 2501.10322).

UAX #29 looks ahead: whether a mark such as the one in don't or 3.14 is inside a word shows only at the character after
it (WB6, WB7b, WB12). Here punctuation belongs to the word before it in either case, and ends it. So all is known at the
first character of the next unit, where the boundary falls, but for one mark that is no punctuation: the fraction slash.
"""

from splitters.engine.automaton import CharacterRule
from splitters.engine.characters import INVALID
from splitters.registry import register

_WORD = r"\p{{Word_Break={}}}"
IGNORED = r"[\p{Word_Break=Extend}\p{Word_Break=Format}\u200d]"  # WB4: they belong to the character before them
PUNCTUATION = r"\p{P}"
DIGIT = rf"[\p{{Word_Break=Numeric}}--{PUNCTUATION}]"
SLASH = r"\u2044"
_LETTER = r"[\p{Word_Break=ALetter}\p{Word_Break=Hebrew_Letter}]"
_PICTURE = r"\p{Extended_Pictographic}"

LETTERS = ("letter", "lower", "upper", "digit")  # of which each joins each: WB5, WB8, WB9, WB10
SPELLED = (*LETTERS, "katakana")
LINE_BREAK = ("break", "cr")  # states after one, and at the beginning of the text
BLANKS = (*LINE_BREAK, "blanks", "blank")  # after blanks that are a unit


@register("unicode_word")
class UnicodeWord(CharacterRule):
    """A boundary at the first character of each word by UAX #29, cut after punctuation and at camelCase, as in HAT.

    One blank (U+0020) belongs to the word after it, punctuation to the word or blank before it. Other blanks, two or
    more of them, and line breaks are units. Scripts without blanks are cut at each character, as UAX #29 does without a
    dictionary. A fraction slash (U+2044) after a digit belongs to the number whatever follows it, where UAX #29 waits
    for a digit.
    """

    source = "UAX #29 as in HAT, arXiv 2501.10322"
    classes = (
        ("cr", r"\r"),
        ("lf", r"\n"),
        ("newline", _WORD.format("Newline")),
        ("joiner", r"\u200d"),
        ("ignored", IGNORED),
        ("punctuation picture", rf"[{PUNCTUATION}&&{_PICTURE}]"),
        ("punctuation", PUNCTUATION),
        ("space", " "),
        ("blanks", _WORD.format("WSegSpace")),
        ("narrow", _WORD.format("ExtendNumLet")),  # U+202F; the others are punctuation
        ("blank", r"\s"),
        ("lower picture", rf"[{_LETTER}&&\p{{Ll}}&&{_PICTURE}]"),
        ("letter picture", rf"[{_LETTER}&&{_PICTURE}]"),
        ("lower", rf"[{_LETTER}&&\p{{Ll}}]"),
        ("upper", rf"[{_LETTER}&&\p{{Lu}}]"),
        ("letter", _LETTER),
        ("digit", DIGIT),
        ("katakana", _WORD.format("Katakana")),
        ("slash", SLASH),
        ("flag", _WORD.format("Regional_Indicator")),
        ("picture", _PICTURE),
    )
    start = ("break", "")  # what stands before, and what was ignored since

    def step(self, state, kind):
        before, ignored = state
        if kind in ("joiner", "ignored"):
            return ("rest" if before in LINE_BREAK else before, kind), before in LINE_BREAK
        if kind == INVALID:
            return ("rest", ""), False
        joined = ignored == "joiner" and kind.endswith("picture")  # WB3c
        kind = kind.removesuffix(" picture")
        if kind == "punctuation":
            return (kind, ""), before in BLANKS and not joined
        if kind in ("cr", "lf", "newline"):
            return ("cr" if kind == "cr" else "break", ""), not (before == "cr" and kind == "lf")
        if kind in ("space", "blanks", "blank"):
            joined = kind != "blank" and before in ("space", "blanks") and not ignored  # WB3d
            return ("blanks" if joined else kind, ""), not joined
        joined = before == "space" or (before != "punctuation" and (joined or _joins(before, kind)))
        if (kind == "slash" and before != "digit") or (kind == "flag" and before == "flag"):
            kind = "rest"  # no fraction; a pair of flags is complete
        return ("letter" if kind == "upper" else kind, ""), not joined


def _joins(before: str, kind: str) -> bool:
    """Returns whether a character belongs to the word of the one before it."""
    if before in LETTERS and kind in LETTERS:
        return not (before == "lower" and kind == "upper")
    if before in (*SPELLED, "narrow") and kind in (*SPELLED, "narrow"):
        return "narrow" in (before, kind) or before == kind  # WB13, WB13a, WB13b
    return (before, kind) in (("digit", "slash"), ("slash", "digit"), ("flag", "flag"))
