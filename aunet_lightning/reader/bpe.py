"""Training of BPE vocabularies with Hugging Face tokenizers, for the splitter `trie` and the baseline of tokens."""

import json
from collections.abc import Iterable
from typing import Any

# Runs that no entry crosses: a word with the blank before it, digits in threes, punctuation. Entries
# are only a vocabulary here: where text is cut is the business of the walk, which looks at no later byte.
WORDS = r" ?[\p{L}\p{M}\u200c\u200d]+| ?\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]+|\s+"
LONGEST_RUN = 1024  # characters; the longest of the shipped text, a Lao clause, has 179
SIZES = (257, 1 << 20)  # the 256 bytes and a merge; beyond a million, memory for nothing


def check_size(size: int, what: str) -> None:
    """Raises ValueError for a size that no vocabulary has."""
    least, most = SIZES
    if type(size) is not int or not least <= size <= most:
        raise ValueError(
            f"{what} is {size!r}, it must be a whole number from {least} (256 bytes, and a merge) to {most}"
        )


def train_bpe(texts: Iterable[bytes], size: int) -> str:
    """Trains a byte-level BPE of `size` entries, the 256 bytes among them, and returns it as a tokenizers JSON.

    Runs of letters, of blanks and of punctuation are learned from in stretches of `LONGEST_RUN` characters, so that
    time grows with the text and not with the square of its longest run. The result reads complete runs. Raises
    ValueError for a size that is not from 257 to 2**20.
    """
    check_size(size, "the size of a vocabulary")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _words(WORDS.replace("+", f"{{1,{LONGEST_RUN}}}"))
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator((text.decode("utf-8", "replace") for text in texts), trainer)
    tokenizer.pre_tokenizer = _words(WORDS)
    return tokenizer.to_str(pretty=False)


def first_entries(trained: str, size: int) -> str:
    """Returns a vocabulary of `train_bpe` cut to its first entries: what training stops at with a smaller size."""
    fields = json.loads(trained)
    model = fields["model"]
    model["vocab"] = {entry: id_ for entry, id_ in model["vocab"].items() if id_ < size}
    model["merges"] = [merge for merge in model["merges"] if "".join(merge) in model["vocab"]]
    return json.dumps(fields, ensure_ascii=False)


def _words(pattern: str) -> Any:
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
