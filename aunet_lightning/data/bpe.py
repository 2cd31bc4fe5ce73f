"""Training of BPE vocabularies with Hugging Face tokenizers, for the splitter `trie`."""

from collections.abc import Iterable

# Runs that no entry crosses: a word with the blank before it, digits in threes, punctuation. Entries
# are only a vocabulary here: where text is cut is the business of the walk, which looks at no later byte.
WORDS = r" ?[\p{L}\p{M}\u200c\u200d]+| ?\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]+|\s+"


def train_bpe(texts: Iterable[bytes], size: int) -> str:
    """Trains a byte-level BPE of `size` entries, the 256 bytes among them, and returns it as a tokenizers JSON.

    Raises ValueError for a size below 257.
    """
    if size < 257:
        raise ValueError(
            f"the size of a vocabulary is {size}, it must be 257 or more: 256 bytes, and what they merge to"
        )
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator((text.decode("utf-8", "replace") for text in texts), trainer)
    return tokenizer.to_str(pretty=False)
