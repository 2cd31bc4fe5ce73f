"""Times the smoothing of unit vectors: the associative scan against a loop over units, forward and backward.

python benchmarks/smoothing.py [--device cuda]
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from aunet_lightning.model.scan import smooth

SHAPES = ((8, 90, 160), (16, 512, 512), (4, 2048, 1024))  # rows, units, width


def loop(x: Tensor, p: Tensor) -> Tensor:
    h, out = torch.zeros_like(x[:, 0]), []
    for new, weight in zip(x.unbind(1), p[..., None].unbind(1), strict=True):
        h = torch.lerp(h, new, weight)
        out.append(h)
    return torch.stack(out, 1)


def seconds(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, p: Tensor) -> float:
    """Returns the best of five times, forward and backward."""
    times = []
    for _ in range(6):
        x, p = x.detach().requires_grad_(), p.detach().requires_grad_()
        if x.is_cuda:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        function(x, p).sum().backward()
        if x.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    print("| rows, units, width | loop, ms | scan, ms | ratio | largest difference |\n|---|---:|---:|---:|---:|")
    for shape in SHAPES:
        x, p = torch.randn(*shape, device=device), torch.rand(*shape[:2], device=device)
        slow, fast = seconds(loop, x, p) * 1e3, seconds(smooth, x, p) * 1e3
        difference = (loop(x, p) - smooth(x, p)).abs().max().item()
        print(f"| {', '.join(map(str, shape))} | {slow:.1f} | {fast:.1f} | {slow / fast:.1f} | {difference:.0e} |")


if __name__ == "__main__":
    main()
