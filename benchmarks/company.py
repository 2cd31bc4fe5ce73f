"""Counts boundaries of a learned splitter, and bytes of greedy text, that depend on the shape of a call.

python benchmarks/company.py CHECKPOINT [--positions 400000]

The same rows are read alone, 4 and 16 at once, and byte by byte, deciding in float64 (as the network does without
gradients) and in float32. Log-odds are compared too: a difference d flips a boundary wherever log-odds lie within d of
0, so density times difference is the flips to expect where none was found.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from aunet_lightning.checkpoints.load import load
from aunet_lightning.generation import generate
from aunet_lightning.model.aunet import AUNet

UDHR = Path(__file__).parents[1] / "experiments" / "data" / "udhr"
LENGTH = 512
NEAR = 1e-3  # log-odds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--positions", type=int, default=400_000)
    options = parser.parse_args()
    net, reader = load(options.checkpoint)
    texts = [json.loads(line)["text"] for file in sorted(UDHR.glob("*.jsonl")) for line in file.open(encoding="utf-8")]
    data = "\n".join(texts).encode()
    n = min(len(data), options.positions) // LENGTH // 16 * 16
    ids = torch.frombuffer(bytearray(data[: n * LENGTH]), dtype=torch.uint8).view(n, LENGTH).long()
    for exact in (True, False):
        if not exact:
            net._exact_stages = lambda: 0  # type: ignore[method-assign]
        print("float64" if exact else "float32")
        alone = log_odds(net, ids, 1)
        density = (alone.abs() < NEAR).double().mean().item() / NEAR
        for rows in (4, 16):
            compare(f"{rows} rows at once", log_odds(net, ids, rows), alone, density)
        few = ids[: max(n // 8, 16)]
        compare(
            "byte by byte, 16 rows",
            torch.cat([stepped(net, part) for part in few.split(16)]),
            alone[: len(few)],
            density,
        )
        prompts = [text.encode()[:80] for text in texts[:16]]
        together = generate(net, reader, prompts, 100, temperature=0)
        one_by_one = [generate(net, reader, [prompt], 100, temperature=0)[0] for prompt in prompts]
        differ = sum(a != b for a, b in zip(together, one_by_one, strict=True))
        print(f"  greedy text of {len(prompts)} prompts, 100 bytes each: {differ} differ between together and alone")


def compare(name: str, found: Tensor, alone: Tensor, density: float) -> None:
    flips, difference = ((found > 0) != (alone > 0)).sum().item(), (found - alone).abs().double().mean().item()
    print(
        f"  {name}: {flips} of {found.numel()} boundaries flip; log-odds differ by {difference:.1e} on average, so "
        f"{density * difference * 1e6:.1e} in a million are to be expected"
    )


@torch.no_grad()
def log_odds(net: AUNet, ids: Tensor, rows: int) -> Tensor:
    """Returns the log-odds [B, L] of rows ids [B, L], read so many at once."""
    found = [net(part).decisions[0].log_odds for part in ids.split(rows)]
    return torch.cat([part for part in found if part is not None])


@torch.no_grad()
def stepped(net: AUNet, ids: Tensor) -> Tensor:
    """Returns the same, read byte by byte."""
    state, found = net.initial_state(len(ids)), []
    for byte in ids.split(1, 1):
        output = net(byte, state=state)
        state = output.state
        found.append(output.decisions[0].log_odds)
    return torch.cat([part for part in found if part is not None], 1)


if __name__ == "__main__":
    main()
