"""Options of an AU-Net, checked on construction."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from aunet_lightning.numbers import Range, check_fields
from aunet_lightning.registry import Registry
from aunet_lightning.vocabulary import VOCABULARY

Offsets = Literal["clamp", "modulo"]
_UPSAMPLING, _EMBEDDING = "aunet_lightning.model.upsampling", "aunet_lightning.model.embedding"
UPSAMPLINGS = Registry("net.upsampling", f"{_UPSAMPLING}:Upsampling", {
    "multi_linear": f"{_UPSAMPLING}:MultiLinear",
    "repeat": f"{_UPSAMPLING}:Repeat",
    "copy": f"{_UPSAMPLING}:Copy",
    "insert": f"{_UPSAMPLING}:Insert",
})  # fmt: skip
EMBEDDINGS = Registry("net.embedding", f"{_EMBEDDING}:Embedding", {
    "byte": f"{_EMBEDDING}:ByteEmbedding",
    "ngrams": f"{_EMBEDDING}:HashedNgrams",
})  # fmt: skip


@dataclass
class StageConfig:
    """One resolution of the sequence."""

    dim: int
    """width of the stage's vectors"""
    layers: int
    """blocks in its encoder, and again in its decoder; in the deepest stage, blocks of the trunk"""
    head_dim: int = 64
    """width of an attention head; it divides dim and is even"""
    window: int | None = None
    """positions of this stage that each one sees, itself included; null: all before it"""
    conv: int | None = None
    """width of a causal depthwise convolution at the beginning of each of its blocks; null: none"""
    skip: bool = True
    """whether the encoder's output is added to the upsampled output of the stage above"""
    max_units: int | None = None
    """a cap on this stage's units per row, or per document where documents are masked (so that a document does not
    depend on those before it); boundaries past it are dropped, counted and logged"""

    def __post_init__(self) -> None:
        width, count = Range(least=1, most=2**17), Range(least=1, most=2**31 - 1)
        check_fields(
            self, "stage",
            dim=width, layers=Range(least=1, most=1000), head_dim=width, window=count, conv=Range(least=1, most=4096),
            max_units=count,
        )  # fmt: skip
        if self.dim % self.head_dim or self.head_dim % 2:
            raise ValueError(f"stage.head_dim is {self.head_dim}, it must be even and divide dim {self.dim}")


@dataclass
class AUNetConfig:
    """An AU-Net. One stage is a flat byte transformer."""

    stages: list[StageConfig]
    """from bytes to the deepest stage (the trunk)"""
    upsampling: str = "multi_linear"
    """how a unit's vector reaches its bytes: multi_linear W_up·u + W_p·u, repeat W_up·(u + e_p), copy W_up·u (H-Net's),
    insert W_up·u at the first, or module:Class"""
    max_offset: int = 16
    """how many offsets p inside a unit have a matrix (or embedding) of their own"""
    offsets: Offsets = "clamp"
    """offsets past the last: clamp shares it; modulo wraps as the published weights expect"""
    document_masking: bool = True
    """whether a document attends only to itself, whatever else is packed into its row"""
    rope_theta: float = 500_000.0
    """base of the rotary position embedding"""
    norm_eps: float = 1e-5
    """epsilon of every RMSNorm"""
    ffn_multiple_of: int = 16
    """the hidden width of SwiGLU is ffn_multiplier · 8/3 · dim, rounded up to a multiple of this"""
    ffn_multiplier: float = 1.0
    """see ffn_multiple_of; the published 8B model has 1.3"""
    qk_norm: bool = False
    """whether each head's queries and keys are normed (RMSNorm) before they turn"""
    residual_init: float = 1.0
    """multiple of the deviation with which layers that add to a residual stream begin; 0: blocks begin as nothing"""
    dropout: float = 0.0
    """share of the channels that training sets to 0, in what each block adds and in the embedding"""
    round_units_to: int = 16
    """units per row are padded to the batch's longest row, rounded up to this, so that shapes recur"""
    vocabulary: int = VOCABULARY
    """number of ids read and predicted: bytes, BOS and EOS, and the tokens of a BPE baseline"""
    embedding: str = "byte"
    """how an id becomes a vector of stage 1: byte (a vector for each id), ngrams (that and one for each n-gram that
    ends with it, by its hash) or module:Class"""
    ngrams: list[int] = field(default_factory=lambda: [2, 3, 4, 6])
    """with embedding ngrams: the lengths n, in bytes (of a BPE model: in tokens), each with a table of its own"""
    ngram_rows: int = 16_384
    """with embedding ngrams: rows of each table; n-grams of one hash share a row"""
    ngram_dropout: float = 0.0
    """with embedding ngrams: share of the places where training leaves out the n-grams longer than some n"""

    def __post_init__(self) -> None:
        # Tests, notebooks and checkpoints give plain mappings.
        self.stages = [StageConfig(**stage) if isinstance(stage, dict) else stage for stage in self.stages]
        if not self.stages:
            raise ValueError("stages is empty: give at least one stage, for example {dim: 64, layers: 2}")
        UPSAMPLINGS.check(self.upsampling)
        EMBEDDINGS.check(self.embedding)
        if self.offsets not in get_args(Offsets):
            raise ValueError(f"offsets is {self.offsets!r}: choose one of {', '.join(get_args(Offsets))}")
        width = Range(least=1, most=2**17)
        check_fields(
            self, "net",
            max_offset=Range(least=1, most=4096), rope_theta=Range(least=1, most=1e15),
            norm_eps=Range(above=0, most=1), residual_init=Range(least=0, most=100), dropout=Range(least=0, below=1),
            ffn_multiple_of=width, ffn_multiplier=Range(above=0, most=100),
            round_units_to=width, vocabulary=Range(least=VOCABULARY, most=2**24),
            ngrams=Range(least=2, most=64), ngram_rows=Range(least=1, most=2**27),
            ngram_dropout=Range(least=0, below=1),
        )  # fmt: skip
        if len({*self.ngrams}) < max(len(self.ngrams), self.embedding == "ngrams"):
            raise ValueError(f"ngrams is {self.ngrams}, it must be lengths that differ, such as [2, 3, 4, 6]")
        if self.vocabulary > VOCABULARY and len(self.stages) > 1:
            raise ValueError(
                f"vocabulary is {self.vocabulary}, with {len(self.stages)} stages: tokens are read by a model of one"
            )
        if self.stages[0].max_units is not None:
            raise ValueError("stages[0].max_units is set, but stage 1 is bytes: cap the stages above it")

    @property
    def depth(self) -> int:
        """The number of stage transitions, which is the highest level."""
        return len(self.stages) - 1
