"""Scripts by how they are written: with or without blanks between words, in clusters or not.

Regular expressions for one character, shared by the rules that depend on script.
"""

# Scripts without blanks between words. Yi, Tangut, Nushu and Khitan are syllabic or logographic like Han; the rest need
# a dictionary for line breaks, or are Tibetan or scripts of Indonesia.
IDEOGRAPHIC = ("Han", "Bopomofo", "Yi", "Tangut", "Nushu", "Khitan_Small_Script")
KANA = ("Hiragana", "Katakana")
UNSPACED_CLUSTERS = (
    "Thai", "Lao", "Khmer", "Myanmar", "Tai_Le", "New_Tai_Lue", "Tai_Tham", "Tai_Viet", "Ahom",
    "Balinese", "Javanese", "Batak", "Buginese", "Makasar", "Kawi",
)  # fmt: skip

SYLLABLE_SEPARATOR = r"[\u0f0b\u0f0c\u1361]"  # tsheg (Tibetan, Dzongkha), Ethiopic wordspace


def any_of(scripts: tuple[str, ...], of: str = "Script") -> str:
    """Returns a regex set of the characters of the scripts, by the property `of` (Script or Script_Extensions)."""
    return "[" + "".join(rf"\p{{{of}={name}}}" for name in scripts) + "]"


# Scripts that share marks and letters with those above; the shared characters count as spaced.
_SPACED = ("Latin", "Greek", "Cyrillic", "Cherokee", "Coptic", "Arabic", "Hebrew", "Devanagari", "Bengali", "Lisu")


def with_shared(scripts: tuple[str, ...]) -> str:
    """Returns a regex set of the scripts' characters and those shared among unspaced scripts only (ー 〆 〱)."""
    shared = rf"{any_of(scripts, 'Script_Extensions')}&&[\p{{L}}\p{{M}}\p{{N}}]--{any_of(_SPACED, 'Script_Extensions')}"
    return f"[{any_of(scripts)}[{shared}]]"


UNSPACED_SCRIPTS = (*IDEOGRAPHIC, *KANA, "Hangul", *UNSPACED_CLUSTERS, "Tibetan")
UNSPACED = with_shared(UNSPACED_SCRIPTS)
