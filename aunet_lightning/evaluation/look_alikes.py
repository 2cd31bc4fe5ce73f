"""Characters that look alike, of one script.

Unicode's list of confusables has at most a tenth of a language's characters: it is made against names that mix scripts.
So the rules are others. Two characters look alike where they differ in one sign (NFD: é and e, й and и, กี and กิ, か and
が; of Hangul syllables a vowel or a final consonant), where they are of one consonant (Ethiopic), where all but one of
their components are the same (Han), or where a table says so: single letters of ten scripts.
"""

from collections.abc import Iterator, Sequence
from unicodedata import normalize

from aunet_lightning.evaluation.han import components

ALIKE = (
    "ce ao bd pq gq ijl hnm uvw vy ft hk sz CG OQ EF IJL MN UV VW PR BR "
    "ос ое шщ ийнп лп гт ьъы эз цщ кх ШЩ ИНП ОС ГТ ЛП "
    "بتثنيپ جحخ دذ رز سش صض طظ عغ فق هة وؤ ىيئ "
    "คดต ชซข ฎฏ บป ผฝ พฟ ถภก ทฑ ດຕ ບປ ຜຝ ພຟ ຂຊ घध भम बव षप डङ टठढ ངད ཅཙ ཆཚ ཇཛ བཔ "
    "やゃ ゆゅ よょ つっ あぁ いぃ うぅ えぇ おぉ ヤャ ユュ ヨョ ツッ シツ ソン"
)
ETHIOPIC, FORMS = range(0x1200, 0x1380), 8  # of a consonant


def look_alikes(alphabet: Sequence[str]) -> dict[str, list[str]]:
    """Returns of each character those of the alphabet that look like it, where there are any, in its order."""
    shaped: dict[str, list[str]] = {}
    for character in alphabet:
        for shape in dict.fromkeys(_shapes(character)):
            shaped.setdefault(shape, []).append(character)
    found = {
        character: [
            other for shape in dict.fromkeys(_shapes(character)) for other in shaped[shape] if other != character
        ]
        for character in alphabet
    }
    return {character: list(dict.fromkeys(others)) for character, others in found.items() if others}


def _shapes(character: str) -> Iterator[str]:
    """Yields what a character shares with those that look like it."""
    signs = normalize("NFD", character)
    yield signs
    for i in range(1, len(signs)):
        yield signs[:i] + signs[i + 1 :]
    if ord(character[0]) in ETHIOPIC:
        yield f"consonant {ord(character[0]) // FORMS}"
    parts = components(character)
    for i in range(len(parts)):
        yield f"components {' '.join([*parts[:i], '·', *parts[i + 1 :]])}"
    for group in ALIKE.split():
        if character in group:
            yield f"letters {group}"
