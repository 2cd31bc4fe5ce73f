"""Training of BPE vocabularies with Hugging Face tokenizers, for the splitter `trie` and the baseline of tokens."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from aunet_lightning.reader.parity import learn

Text = tuple[str, bytes]  # a language, and a document in it

# Runs that no entry crosses: a word with the blank before it, digits in threes, punctuation. Entries
# are only a vocabulary here: where text is cut is the business of the walk, which looks at no later byte.
WORDS = r" ?[\p{L}\p{M}\u200c\u200d]+| ?\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]+|\s+"
LONGEST_RUN = 1024  # characters; the longest of the shipped text, a Lao clause, has 179
BOUNDED = WORDS.replace("+", f"{{1,{LONGEST_RUN}}}")
SIZES = (257, 1 << 20)  # the 256 bytes and a merge; beyond a million, memory for nothing


MERGES = ("frequency", "parity")  # which pair is merged next: the most frequent, or that of the worst language


def check_size(size: Any, what: str) -> None:
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
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _words(BOUNDED)
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator((text.decode("utf-8", "replace") for text in texts), trainer)
    return _as_json(tokenizer)


def train_parity(texts: Iterable[Text], size: int, parallel: Iterable[Text] | None = None) -> str:
    """Trains the same on texts in several languages, with merges that are fair to each (`reader.parity`). With one
    language it returns what `train_bpe` does.

    parallel: the same content in each language, by which languages are compared; None: each by the bytes of its text.
    Raises ValueError likewise, and where a language has no parallel text.
    """
    check_size(size, "the size of a vocabulary")
    from tokenizers import Tokenizer, models

    found = learn(_counted(texts), size, None if parallel is None else _counted(parallel))
    return _as_json(Tokenizer(models.BPE(found.entries, found.merges)))


def _counted(texts: Iterable[Text]) -> dict[str, dict[bytes, int]]:
    """Returns how often each run occurs that entries are learned from, by language."""
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex(BOUNDED), "isolated")
    found: dict[str, Counter[str]] = {}
    for language, text in texts:
        runs = split.pre_tokenize_str(text.decode("utf-8", "replace"))
        found.setdefault(language, Counter()).update(run for run, _ in runs)
    return {language: {run.encode(): n for run, n in runs.items()} for language, runs in found.items()}


def _as_json(tokenizer: Any) -> str:
    from tokenizers import decoders

    tokenizer.pre_tokenizer = _words(WORDS)
    tokenizer.decoder = decoders.ByteLevel()
    return str(tokenizer.to_str(pretty=False))


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
