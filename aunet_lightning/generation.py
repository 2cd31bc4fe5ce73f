"""Generation of text, by stepping the one forward with a state."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from aunet_lightning.model.aunet import AUNet
from aunet_lightning.model.captured import Captured
from aunet_lightning.model.state import State
from aunet_lightning.numbers import Range, check
from aunet_lightning.reader.reader import Reader
from aunet_lightning.vocabulary import BOS, EOS

PART = 4096  # ids of each prompt that are read at once
SHARED = 8  # rows of a step from which threads pay
TEMPERATURES = Range(least=0.001, most=1000)  # beyond, logits ÷ temperature leave what float32 has; 0 is another way


def generate(
    net: AUNet,
    reader: Reader,
    prompts: Sequence[bytes],
    n_bytes: int,
    temperature: float = 0.8,
    seed: int = 0,
    compiled: bool = False,
) -> list[bytes]:
    """Continues each prompt by up to `n_bytes` bytes (fewer where the model ends the document).

    Prompts may have different lengths, and may be empty. temperature 0 takes the most likely byte.
    The same seed gives the same text. reader: that of the model. compiled: steps are compiled, which takes a minute and
    pays for tens of thousands of bytes. Returns the prompts with their continuations.
    Raises ValueError for a negative n_bytes, for a temperature that is neither 0 nor among TEMPERATURES, and for
    steps that can't be compiled.
    """
    check_sampling(n_bytes, temperature)
    with torch.inference_mode(not net.sharded), torch.no_grad():  # what FSDP gathers must serve training afterwards
        rows = _continued(net, reader, prompts, n_bytes, temperature, seed, compiled)
    return [reader.decode(row)[: len(prompt) + n_bytes] for row, prompt in zip(rows, prompts, strict=True)]


def _continued(
    net: AUNet, reader: Reader, prompts: Sequence[bytes], n_bytes: int, temperature: float, seed: int, compiled: bool
) -> list[list[int]]:
    """Returns the ids of the prompts and what follows them."""
    generator = torch.Generator(net.head.weight.device).manual_seed(seed)
    text_of = reader.bytes_of
    rows = [[BOS, *map(int, ids)] for ids in reader.encode(prompts)]
    made, going = [0 for _ in rows], [n_bytes > 0 for _ in rows]  # made: bytes
    with torch.compiler.set_stance("force_eager"):  # a compiled network would be compiled for each shape
        logits, state = read(net, rows, net.initial_state(len(rows), reader.stack, constant=True))
    captured = Captured(net, state) if compiled and n_bytes else None
    with torch.compiler.set_stance("default" if captured else "force_eager"), _threads(len(rows), net):
        while any(going):
            sampled = _sample(logits[:, : len(text_of)].float(), temperature, generator)
            for r, id_ in enumerate(sampled.tolist()):
                if going[r]:
                    rows[r].append(id_)
                    made[r] += len(text_of[id_])
                    going[r] = made[r] < n_bytes and id_ != EOS
            if not any(going):
                break
            if captured is not None:
                logits = captured(int(sampled))
                continue
            output = net(sampled[:, None], state=state, lengths=None if all(going) else [*map(int, going)])
            logits, state = output.logits[:, -1], output.state
    return rows


def read(net: AUNet, rows: Sequence[Sequence[int]], state: State) -> tuple[Tensor, State]:
    """Reads ids of different lengths at once, in parts; returns the logits after each row's last, and the state."""
    device, last = net.head.weight.device, None
    for at in range(0, max(map(len, rows)), PART):
        parts = [list(row[at : at + PART]) for row in rows]
        lengths = [len(part) for part in parts]
        most = max(lengths)
        ids = torch.tensor([part + [EOS] * (most - len(part)) for part in parts], device=device)
        output = net(ids, state=state, lengths=lengths if min(lengths) < most else None)
        assert output.state is not None
        state, ends = output.state, torch.tensor(lengths, device=device)
        found = output.logits[torch.arange(len(rows), device=device), (ends - 1).clamp(min=0)]
        last = found if last is None else torch.where(ends[:, None] > 0, found, last)
    assert last is not None
    return last, state


@contextmanager
def _threads(rows: int, net: AUNet) -> Iterator[None]:
    """One thread on a CPU where a step is of few rows: its products are too small to share."""
    before = torch.get_num_threads()
    if rows < SHARED and net.head.weight.device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
