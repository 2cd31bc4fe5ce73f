"""Text from a model, by stepping the one forward with a state."""

from collections.abc import Sequence

import torch
from torch import Tensor

from aunet_lightning.model.aunet import AUNet
from aunet_lightning.vocabulary import BOS, EOS
from splitters import Stack


@torch.no_grad()
def generate(
    net: AUNet, stack: Stack, prompts: Sequence[bytes], n_bytes: int, temperature: float = 0.8, seed: int = 0
) -> list[bytes]:
    """Continues each prompt by up to `n_bytes` bytes (fewer where the model ends the document).

    Prompts may have different lengths, and may be empty. temperature 0 takes the most likely byte.
    The same seed gives the same text. Returns the prompts with their continuations. Raises ValueError
    for a negative n_bytes or temperature.
    """
    check_sampling(n_bytes, temperature)
    device = net.head.weight.device
    generator = torch.Generator(device).manual_seed(seed)
    rows = [[BOS, *prompt] for prompt in prompts]
    wanted = [len(row) + n_bytes for row in rows]
    # What all prompts have in common in length is read at once, the rest byte by byte: where a row
    # is still inside its prompt, the prompt's byte is taken and not a sampled one.
    common = min(map(len, rows))
    state = net.initial_state(len(rows), stack)
    ids = torch.tensor([row[:common] for row in rows], device=device)
    for position in range(common, max(wanted)):
        output = net(ids, state=state)
        state = output.state
        sampled = _sample(output.logits[:, -1].float(), temperature, generator).tolist()
        for row, byte in zip(rows, sampled, strict=True):
            if len(row) == position:
                row.append(EOS if row[-1] == EOS else byte)
        ids = torch.tensor([[row[position]] for row in rows], device=device)
    return [bytes(row[1 : row.index(EOS) if EOS in row else length]) for row, length in zip(rows, wanted, strict=True)]


def check_sampling(n_bytes: int, temperature: float) -> None:
    """Raises ValueError for what cannot be sampled."""
    if n_bytes < 0 or temperature < 0:
        raise ValueError(f"sampling {n_bytes} bytes at temperature {temperature}: both must be 0 or more")


def _sample(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    logits[:, BOS] = -torch.inf  # a document has one beginning
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]
