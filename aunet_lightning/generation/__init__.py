"""Generation of text, by stepping the one forward with a state."""

from collections.abc import Iterator, Sequence
from typing import Any

from aunet_lightning.generation.batch import Batch, Piece
from aunet_lightning.generation.drafting import DraftingBatch
from aunet_lightning.generation.reading import read
from aunet_lightning.generation.sampling import Sampling, check_sampling
from aunet_lightning.generation.text import Request, Text
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.reader.reader import Reader

__all__ = [
    "Batch", "DraftingBatch", "Piece", "Request", "Sampling", "Text", "batch_of", "check_sampling", "generate", "read",
    "stream", "texts",
]  # fmt: skip


def batch_of(
    net: AUNet, reader: Reader, sampling: Sampling, rows: int = 32, levels: bool = False, compiled: bool = False,
    draft: int | None = 1,
) -> Batch:  # fmt: skip
    """Returns a batch for `rows` texts. draft: ids that stage 1 drafts at once (see `DraftingBatch`; None: as many as
    are fastest); 1: none. For the rest see `Batch`."""
    if draft == 1:
        return Batch(net, reader, sampling, rows, levels, compiled)
    return DraftingBatch(net, reader, sampling, rows, levels, compiled, draft=draft)


def stream(
    net: AUNet, reader: Reader, requests: Sequence[Request], sampling: Sampling, rows: int = 32, **options: Any
) -> Iterator[Piece]:
    """Yields the texts of requests piece by piece, `rows` of them at once; options: of `batch_of`."""
    if requests:
        yield from batch_of(net, reader, sampling, min(rows, len(requests)), **options).run(requests)


def texts(
    net: AUNet, reader: Reader, requests: Sequence[Request], sampling: Sampling, rows: int = 32, **options: Any
) -> list[Text]:
    """Returns the requests continued, `rows` of them at once; options: of `batch_of`."""
    pieces = stream(net, reader, requests, sampling, rows, **options)
    found = {piece.number: piece.done for piece in pieces if piece.done is not None}
    return [found[number] for number in range(len(requests))]


def generate(
    net: AUNet,
    reader: Reader,
    prompts: Sequence[bytes],
    n_bytes: int,
    temperature: float = 0.8,
    seed: int = 0,
    compiled: bool = False,
    valid_utf8: bool = True,
) -> list[bytes]:
    """Continues each prompt by up to `n_bytes` bytes (fewer where the model ends the document).

    Prompts may have different lengths, and may be empty. temperature 0 takes the most likely byte.
    The same seed gives the same text. reader: that of the model. compiled: steps are compiled, which takes a minute and
    pays for tens of thousands of bytes. valid_utf8: only bytes that continue a well-formed text are taken, and the last
    character is whole; False: what the model writes by itself.
    Returns the prompts with their continuations; `texts` has more ways to sample.
    Raises ValueError for a negative n_bytes, for a temperature that is neither 0 nor among TEMPERATURES, and for
    steps that can't be compiled.
    """
    sampling = Sampling(n_bytes, temperature=temperature, valid_utf8=valid_utf8)
    requests = [Request(prompt, seed, sample) for sample, prompt in enumerate(prompts)]
    return [text.whole for text in texts(net, reader, requests, sampling, max(len(requests), 1), compiled=compiled)]
