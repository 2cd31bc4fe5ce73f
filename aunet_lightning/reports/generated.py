"""How much of what a model generates is valid UTF-8, per language."""

import codecs
from collections.abc import Mapping, Sequence

from aunet_lightning.generation import generate
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.reader.reader import Reader
from aunet_lightning.tracking.names import metric_name

PROMPT = 32  # bytes of held-out text that a text begins with
TEXTS = 4  # of a language
ROWS = 32  # generated at once


def validity(
    net: AUNet, reader: Reader, texts: Mapping[str, Sequence[bytes]], n_bytes: int
) -> dict[str, tuple[int, int]]:
    """Returns per language (valid, all) bytes of about `n_bytes` that the model generates at temperature 1, the same
    each time, after the beginnings of some of its texts, TEXTS times in all."""
    prompts = [
        (language, _begin(some[i % len(some)])) for language, some in texts.items() if some for i in range(TEXTS)
    ]
    each = -(-n_bytes // TEXTS)
    counts: dict[str, tuple[int, int]] = {}
    for at in range(0, len(prompts), ROWS):
        rows = prompts[at : at + ROWS]
        made = generate(net, reader, [prompt for _, prompt in rows], each, temperature=1.0, seed=at, valid_utf8=False)
        for (language, prompt), text in zip(rows, made, strict=True):
            new = text[len(prompt) :]
            found, before = valid_bytes(new, len(new) == each), counts.get(language, (0, 0))
            counts[language] = before[0] + found[0], before[1] + found[1]
    return counts


def _begin(text: bytes) -> bytes:
    return text[:PROMPT].decode("utf-8", "ignore").encode()


def valid_bytes(text: bytes, cut: bool) -> tuple[int, int]:
    """Returns how many bytes are part of a character, and of how many: of a text that is `cut`, the beginning of a
    character at its end is left out."""
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    valid = len(decoder.decode(text).encode())
    pending = len(decoder.getstate()[0]) if cut else 0
    return valid, len(text) - pending


def as_metrics(counts: Mapping[str, tuple[int, int]]) -> dict[str, float]:
    """Returns `generated/valid_utf8` and `generated/bytes`, over all text and with _LANGUAGE."""
    valid, total = (sum(count[i] for count in counts.values()) for i in (0, 1))
    found = {"": (valid, total)} | {f"_{metric_name(language)}": count for language, count in counts.items()}
    shares = {f"generated/valid_utf8{end}": good / n for end, (good, n) in found.items() if n}
    return shares | {f"generated/bytes{end}": float(n) for end, (_, n) in found.items() if n}
