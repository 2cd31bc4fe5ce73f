"""Tokens of a Hugging Face tokenizer."""

from pathlib import Path

import numpy as np

from splitters.edge_texts import short_texts
from splitters.registry import register
from splitters.teachers.spans import At, SpanTeacher
from splitters.tokenizer_json import library, plain, read_file, refused

BLANK_TOKENS = ("▁", "Ġ")  # a blank in SentencePiece and byte-level vocabularies


@register("tokenizer")
class TokenTeacher(SpanTeacher):
    """Tokens of any Hugging Face tokenizers JSON: BPE, Unigram, WordPiece.

    `file`: its path. Offsets are those in the text before normalisation; a mark that a normaliser composes or strips is
    outside the token. A boundary inside a character moves to that character's last byte. What the tokenizer itself
    puts before a word is not a token. Text that spells a special token is text, and truncation, padding, the
    post-processor and dropout are off (`tokenizer_json.plain`). Raises ValueError for a file that is not a tokenizers
    JSON, or whose tokenizer cannot encode every text.
    """

    source = "Hugging Face tokenizers"

    def __init__(self, file: str, at: At = "end") -> None:
        super().__init__("tokenizer", at)
        if not isinstance(file, str | Path):
            raise ValueError(f"tokenizer: file is {file!r}, it must be the path of a tokenizers JSON")
        self.file = str(file)
        self.tokenizer = library(plain(read_file(self.file, "tokenizer"), self.file), self.file)
        vocabulary = self.tokenizer.get_vocab()
        self.blanks = np.array([vocabulary[token] for token in BLANK_TOKENS if token in vocabulary], np.int64)
        remedy = "give its model an unknown token that its vocabulary has, or byte fallback"
        with refused(f"tokenizer: {self.file!r} cannot encode every text", remedy):
            for data in short_texts().values():
                self.split(data)

    def spans(self, text: str) -> np.ndarray:
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        spans = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        kept = np.ones(len(spans), bool)
        for token in np.flatnonzero(np.isin(np.array(encoding.ids, np.int64), self.blanks)).tolist():
            begin, end = spans[token].tolist()
            kept[token] = text[begin:end].isspace() or text[begin:end] in BLANK_TOKENS  # else the tokenizer added it
        return spans[kept]
