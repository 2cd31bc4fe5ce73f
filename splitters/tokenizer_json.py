"""Hugging Face tokenizers JSONs: the vocabulary as bytes, with everything outside the vocabulary switched off.

All readers of such files use this module, so that each treats text as text: the splitter `trie`, the teacher
`tokenizer` and the token baseline.
"""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

OFF = ("truncation", "padding", "post_processor")  # the last adds tokens to the text and trims offsets
PARTS = ("normalizer", "pre_tokenizer", "decoder")
HIDDEN = "\U0010ffff"  # a noncharacter: no text spells an entry that begins with it
BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")  # a byte in SentencePiece
REMEDY = "name a file written by Tokenizer.save, or train one with aunet vocabulary"


def read_file(path: str | Path, what: str, remedy: str = REMEDY) -> str:
    """Returns the text of a file, whose path may begin with ~. Raises ValueError, naming it, if there is no text."""
    try:
        file = Path(path).expanduser()
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            problem = "" if text.strip() else f"the file {str(path)!r} is empty"
        elif file.is_dir():
            problem = f"{str(path)!r} is a folder, not a tokenizers JSON"
        else:
            problem = f"{str(path)!r} is not a regular file" if file.exists() else f"there is no file {str(path)!r}"
    except UnicodeDecodeError as error:
        problem = f"the file {str(path)!r} is not text ({error.reason} at byte {error.start})"
    except (OSError, ValueError, RuntimeError) as error:  # no permission; a NUL in the path; an unknown user's home
        problem = f"the file {str(path)[:200]!r} cannot be read ({error})"
    if problem:
        raise ValueError(f"{what}: {problem}: {remedy}")
    return text


def plain(fields: str, name: str, what: str = "tokenizer") -> dict[str, Any]:
    """Returns a tokenizers JSON without the parts that read text as something else, or at random.

    Truncation, padding, the post-processor and dropout are off. Added tokens count where they extend the vocabulary:
    special ones, and those in the model's own vocabulary, are not searched for in the text, and none absorbs the
    blanks around it. A special entry of the model's vocabulary is hidden from text that spells it, unless text needs
    it, because it is a single character or a byte, or part of a merge. Ids are renumbered in their order. Raises
    ValueError, citing `name`, for any other JSON.
    """
    try:
        parsed = json.loads(fields)
        if not isinstance(parsed, dict) or not isinstance(parsed.get("model"), dict):
            raise ValueError("it has no model" if isinstance(parsed, dict) else f"it holds a {type(parsed).__name__}")
        model: dict[str, Any] = dict(parsed["model"])
        given = sorted(parsed.get("added_tokens") or [], key=lambda token: token.get("id", 0))
        special = {token["content"] for token in given if token.get("special", True)}
        hidden = special - _needed(model, special)
        renamed = {entry: HIDDEN + entry for entry in hidden}
        vocab = model.get("vocab")
        if isinstance(vocab, dict):
            if wrong := [entry for entry, id_ in vocab.items() if type(id_) is not int]:
                raise ValueError(f"the id of its entry {wrong[0]!r} is {vocab[wrong[0]]!r}")
            order = sorted(vocab, key=vocab.__getitem__)
            model["vocab"] = {renamed.get(entry, entry): id_ for id_, entry in enumerate(order)}
        elif isinstance(vocab, list):
            model["vocab"] = [[renamed.get(entry, entry), score] for entry, score in vocab]
            order = [entry for entry, _ in vocab]
        else:
            raise ValueError("its model has no vocab")
        if model.get("unk_token") in hidden:
            model["unk_token"] = renamed[model["unk_token"]]
        if "dropout" in model:
            model["dropout"] = None
        inside = {*special, *order, ""}
        kept = {token["content"]: token for token in given if token["content"] not in inside}
        added = [_searched(token, len(order) + place) for place, token in enumerate(kept.values())]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{what}: {name!r} is not a tokenizers JSON ({_message(error)}): {REMEDY}") from None
    return {**parsed, **dict.fromkeys(OFF), "model": model, "added_tokens": added}


def _needed(model: dict[str, Any], special: set[str]) -> set[str]:
    """Returns the special entries without which some text cannot be spelled."""
    merged = {part for left, right in merges_of(model) for part in (left, right, left + right)}
    return {entry for entry in special if len(entry) == 1 or entry in merged or BYTE.fullmatch(entry)}


def merges_of(model: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """Yields the merges of a BPE, in either of their two notations."""
    for merge in model.get("merges") or []:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield left, right


def _searched(token: dict[str, Any], id_: int) -> dict[str, Any]:
    flags = {"single_word": False, "normalized": True, **token}
    return {**flags, "id": id_, "special": False, "lstrip": False, "rstrip": False}


@contextmanager
def refused(problem: str, remedy: str = REMEDY) -> Iterator[None]:
    """Turns any error of the library into a ValueError. Its panics are not an Exception."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise ValueError(f"{problem} ({error}): {remedy}") from None


def library(parsed: dict[str, Any], name: str) -> Any:
    """Returns the Hugging Face tokenizer of a result of `plain`. Raises ValueError if the library refuses it."""
    from tokenizers import Tokenizer

    with refused(f"tokenizer: {name!r} is not a tokenizers JSON"):
        return Tokenizer.from_str(json.dumps(parsed))


def token_bytes(parsed: dict[str, Any], name: str, what: str = "tokenizer") -> list[tuple[int, bytes]]:
    """Returns (id, bytes) of each token that text can contain, of a BPE that `plain` has read.

    Reads byte-level BPEs (GPT-2's letters for bytes) and SentencePiece BPEs (▁ for a blank, <0x0A> for a byte). Raises
    ValueError for other models, and for an empty vocabulary.
    """
    model = parsed["model"]
    try:
        kind = model.get("type") or ("BPE" if "merges" in model else "WordPiece")
        if kind != "BPE":
            raise ValueError(f"its model is a {kind}, not a BPE")
        if not isinstance(model["vocab"], dict):
            raise ValueError("its vocab has no ids")
        for affix in ("end_of_word_suffix", "continuing_subword_prefix"):
            if model.get(affix):
                raise ValueError(f"its {affix} {model[affix]!r} is not part of the text")
        read = _from_letters if _is_byte_level(parsed) else partial(_from_piece, blank=_blank_of(parsed))
        found = [(id_, read(entry)) for entry, id_ in model["vocab"].items() if not entry.startswith(HIDDEN)]
        found += [(token["id"], token["content"].encode()) for token in parsed["added_tokens"]]
    except ValueError as error:
        raise ValueError(
            f"{what}: {name!r} is not a tokenizers JSON with a BPE model ({_message(error)}): "
            "train one with aunet vocabulary, or name a byte-level BPE"
        ) from None
    found = [(id_, entry) for id_, entry in found if entry]
    if not found:
        raise ValueError(f"{what}: the vocabulary of {name!r} is empty: train one with aunet vocabulary")
    return found


def _message(error: Exception) -> str:
    return str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"


def _is_byte_level(parsed: dict[str, Any]) -> bool:
    return any('"ByteLevel"' in json.dumps(parsed.get(part)) for part in PARTS)


def _blank_of(parsed: dict[str, Any]) -> str:
    """Returns the symbol of a blank: ▁, or the Metaspace's own replacement."""
    parts = json.dumps({part: parsed.get(part) for part in PARTS}, ensure_ascii=False)
    found = re.search(r'"Metaspace"[^{}]*"replacement": "(.)"', parts)
    return found[1] if found else "▁"


@lru_cache(maxsize=1)
def byte_letters() -> dict[str, int]:
    """GPT-2's letters for bytes: printable Latin-1 represents itself, the others map to U+0100 and up, in order."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(0x100 + i): byte for i, byte in enumerate(hidden)}


def _from_letters(entry: str) -> bytes:
    letters = byte_letters()
    return bytes(letters[letter] for letter in entry) if all(letter in letters for letter in entry) else b""


def _from_piece(entry: str, blank: str) -> bytes:
    if byte := BYTE.fullmatch(entry):
        return bytes([int(byte[1], 16)])
    return entry.replace(blank, " ").encode()
