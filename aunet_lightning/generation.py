"""Generation of text, by stepping the one forward with a state."""

from collections.abc import Sequence

import torch
from torch import Tensor

from aunet_lightning.model.aunet import AUNet
from aunet_lightning.numbers import Range, check
from aunet_lightning.reader.reader import Reader
from aunet_lightning.vocabulary import BOS, EOS

TEMPERATURES = Range(least=0.001, most=1000)  # beyond, logits ÷ temperature leave what float32 has; 0 is another way


@torch.no_grad()
@torch.compiler.set_stance("force_eager")  # each step has other shapes, for which a compiled network would be compiled
def generate(
    net: AUNet,
    reader: Reader,
    prompts: Sequence[bytes],
    n_bytes: int,
    temperature: float = 0.8,
    seed: int = 0,
) -> list[bytes]:
    """Continues each prompt by up to `n_bytes` bytes (fewer where the model ends the document).

    Prompts may have different lengths, and may be empty. temperature 0 takes the most likely byte.
    The same seed gives the same text. reader: that of the model. Returns the prompts with their continuations.
    Raises ValueError for a negative n_bytes, and for a temperature that is neither 0 nor among
    TEMPERATURES.
    """
    check_sampling(n_bytes, temperature)
    device = net.head.weight.device
    generator = torch.Generator(device).manual_seed(seed)
    text_of = reader.bytes_of
    rows = [[BOS, *map(int, ids)] for ids in reader.encode(prompts)]
    made = [0 for _ in rows]  # bytes
    # What all prompts have in common in length is read at once, the rest one by one: where a row is still
    # inside its prompt, the prompt's id is taken and not a sampled one.
    position = min(map(len, rows))
    state = net.initial_state(len(rows), reader.stack)
    ids = torch.tensor([row[:position] for row in rows], device=device)
    while any(n < n_bytes and row[-1] != EOS for n, row in zip(made, rows, strict=True)):
        output = net(ids, state=state)
        state = output.state
        sampled = _sample(output.logits[:, -1, : len(text_of)].float(), temperature, generator).tolist()
        for r, (row, id_) in enumerate(zip(rows, sampled, strict=True)):
            if len(row) == position:
                row.append(EOS if row[-1] == EOS else id_)
                made[r] += len(text_of[row[-1]])
        ids = torch.tensor([[row[position]] for row in rows], device=device)
        position += 1
    return [reader.decode(row)[: len(prompt) + n_bytes] for row, prompt in zip(rows, prompts, strict=True)]


def check_sampling(n_bytes: int, temperature: float, prefix: str = "") -> None:
    """Raises ValueError for what cannot be sampled, with `prefix` before the names of the settings."""
    check(f"{prefix}bytes", n_bytes, Range(least=0, most=10**12), whole=True)
    if temperature != 0:
        check(f"{prefix}temperature", temperature, TEMPERATURES)


def _sample(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    logits[:, BOS] = -torch.inf  # a document has one beginning
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]
