"""BPE vocabularies as ids, for the baseline that reads tokens in place of bytes.

Byte ids keep their meaning: a token of one byte has that byte's id, and tokens of several bytes follow from 258. A
token predicts all of its bytes at once, so bits of tokens ÷ bytes of text are bits per byte of the same text.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from aunet_lightning.reader.bpe import MERGES, SIZES, check_size
from aunet_lightning.vocabulary import BYTES
from splitters.tokenizer_json import HIDDEN, library, merges_of, plain, read_file, refused, token_bytes

# A tokenizers JSON, or {vocab_size: n, merges: …} to train one on the training text.
TokenizerSpec = str | dict[str, int | str]
FORMAT = 1  # of cached tokens: changes when the same vocabulary encodes otherwise
LONGEST = 2**15 - 1  # bytes of an entry
SHOWN = 20  # characters of lost text in a message
SILENT = ("type", "cache_capacity", "fuse_unk")  # keys of a model that change no id


def check_tokenizer(spec: TokenizerSpec | None) -> None:
    """Raises ValueError for what is neither a file of a BPE nor a size."""
    if spec is None:
        return
    if isinstance(spec, str) and not spec.lstrip().startswith("{"):  # a command line leaves {vocab_size: 3e2} a string
        Tokenizer.from_file(spec)
        return
    if not isinstance(spec, dict) or set(spec) - {"merges"} != {"vocab_size"}:
        least, most = SIZES
        raise ValueError(
            f"tokenizer: {spec!r} is not understood: give {{vocab_size: 4096}} (a whole number from {least} to {most}, "
            "the 256 bytes among them), to be trained on the training text, and with it merges: "
            f"{' or '.join(MERGES)}, or the path of a tokenizers JSON"
        )
    check_size(spec["vocab_size"], "tokenizer: vocab_size")
    if (merges := spec.get("merges", MERGES[0])) not in MERGES:
        raise ValueError(f"tokenizer: merges is {merges!r}: choose one of {', '.join(MERGES)}")


class Tokenizer:
    """A byte-complete BPE as ids of ours. Raises ValueError where the JSON is not such a tokenizer.

    Everything in the JSON beyond its vocabulary is switched off (`splitters.tokenizer_json.plain`). `fields` is the
    tokenizers JSON as given; `name` is its name in errors; `digest` covers everything its ids depend on.
    """

    def __init__(self, fields: str, name: str = "the trained vocabulary") -> None:
        self.fields, self.name = fields, name
        self.ids: dict[int, int] = {}  # theirs → ours
        self.bytes: list[bytes] = [*BYTES]  # of ours
        single: set[bytes] = set()
        parsed = plain(fields, name)
        for token, data in sorted(token_bytes(parsed, name)):
            if len(data) == 1 and data not in single:
                self.ids[token] = data[0]
                single.add(data)
            else:
                self.ids[token] = len(self.bytes)
                self.bytes.append(data)
        if (longest := max(map(len, self.bytes))) > LONGEST:
            raise ValueError(f"tokenizer: an entry of {name!r} has {longest} bytes, it must have {LONGEST} or fewer")
        parsed["model"]["unk_token"] = None  # a character that it lacks is lost, and not another token
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # data workers are forked
        self._tokenizer = library(parsed, name)
        self.digest = _digest(parsed, self.bytes)

    @staticmethod
    def from_file(path: str) -> "Tokenizer":
        """Returns the tokenizer of a file, whose path may begin with ~."""
        remedy = "name a tokenizers JSON, or {vocab_size: 4096} to train one on the training text"
        return _made(read_file(path, "tokenizer", remedy), path)

    def same_as(self, fields: str | None) -> bool:
        """Returns whether another tokenizers JSON, as of a checkpoint, has the same ids for every text."""
        try:
            return fields == self.fields or (fields is not None and Tokenizer(fields).digest == self.digest)
        except ValueError:
            return False

    @property
    def size(self) -> int:
        """The number of ids, BOS and EOS among them."""
        return len(self.bytes)

    @cached_property
    def sizes(self) -> np.ndarray:
        """int16 [size]: bytes of text of each id, 0 for BOS and EOS."""
        return np.array([len(data) for data in self.bytes], np.int16)

    def encode(self, texts: Sequence[bytes], called: Callable[[int], str] = "text {}".format) -> list[np.ndarray]:
        """Returns the ids of each text, int32. `called` is how errors call one, by its place among them.

        Raises ValueError where ids do not spell a text out again, with the byte of the first difference, and for what
        is not UTF-8.
        """
        try:
            given = [text.decode("utf-8") for text in texts]
        except UnicodeDecodeError as error:
            raise ValueError(f"tokenizer: {self.name} reads UTF-8, and bytes {error.object[:40]!r} are not") from None
        with refused(f"tokenizer: {self.name} cannot encode text"):
            encodings = self._tokenizer.encode_batch(given, add_special_tokens=False)
        found = []
        for place, encoding in enumerate(encodings):
            ids = np.array([self.ids.get(token, -1) for token in encoding.ids], np.int32)
            if (ids < 0).any() or self.decode(ids) != texts[place]:
                raise ValueError(
                    f"tokenizer: {self.name} loses text, so its bits are not those of the text: in {called(place)}, "
                    f"{_difference(texts[place], self.decode(ids[ids >= 0]))}. Take a byte-level BPE that has all "
                    "bytes, no normalizer and no add_prefix_space (aunet vocabulary trains one)"
                )
            found.append(ids)
        return found

    def decode(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """Returns the text of some ids; BOS and EOS have none."""
        return b"".join(self.bytes[int(i)] for i in ids)


@lru_cache(maxsize=2)
def _made(fields: str, name: str) -> Tokenizer:
    return Tokenizer(fields, name)


def _digest(parsed: dict[str, Any], tokens: list[bytes]) -> str:
    """Returns a digest of everything that ids depend on, however the JSON writes it."""
    model = {key: value for key, value in parsed["model"].items() if value and key not in SILENT}
    model["vocab"] = [entry for entry in model["vocab"] if not entry.startswith(HIDDEN)]  # in the order of ids
    model["merges"] = list(merges_of(model))
    read = [model, *(parsed.get(part) for part in ("normalizer", "pre_tokenizer", "added_tokens"))]
    key = json.dumps([FORMAT, _stated(read), [data.hex() for data in tokens]], sort_keys=True)
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def _stated(value: Any) -> Any:
    """Returns a JSON value without keys that do not affect ids."""
    if isinstance(value, dict):
        return {key: _stated(each) for key, each in value.items() if each is not None and key != "trim_offsets"}
    return [_stated(each) for each in value] if isinstance(value, list | tuple) else value


def _difference(text: bytes, back: bytes) -> str:
    """Describes the first difference, with its place and text."""
    shorter = min(len(text), len(back))
    one, other = (np.frombuffer(data[:shorter], np.uint8) for data in (text, back))
    at = int(np.append(np.flatnonzero(one != other), shorter)[0])
    first = at
    while first and first < len(text) and text[first] & 0xC0 == 0x80:  # show complete characters
        first -= 1
    was, is_ = (data[first : first + 4 * SHOWN].decode("utf-8", "replace")[:SHOWN] for data in (text, back))
    return f"at byte {at}, {was!r} comes back as {is_!r}"
