"""Weight initialisation: a function of the seed and of a weight's place alone, however it is sharded.

A parameter is drawn in pieces of several rows, each with its own generator; a device that holds some rows draws
the pieces that contain them.
"""

import hashlib

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

PIECE = 1 << 20  # numbers, about


def seed_of(name: str) -> int:
    """Returns the seed of a name."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 1


@torch.no_grad()
def draw(parameter: Tensor, std: float, scale: float, name: str) -> None:
    """Fills a parameter, sharded by rows or not, with normals of deviation `std`, cut at three, times `scale`."""
    local, first = held(parameter)
    n_rows, shape = parameter.shape[0], parameter.shape[1:]
    rows = max(PIECE // max(shape.numel(), 1), 1)
    for piece in range(first // rows, -(-(first + len(local)) // rows)):
        generator = torch.Generator("cpu").manual_seed(seed_of(f"{name}/{piece}"))
        begin, end = piece * rows, min((piece + 1) * rows, n_rows)
        drawn = torch.empty(end - begin, *shape, dtype=torch.float32, device="cpu")
        nn.init.trunc_normal_(drawn, std=std, a=-3 * std, b=3 * std, generator=generator)
        begins, ends = max(begin, first), min(end, first + len(local))
        local[begins - first : ends - first] = (drawn * scale)[begins - begin : ends - begin].to(local)


@torch.no_grad()
def ones(parameter: Tensor) -> None:
    """Fills a parameter, sharded or not, with ones."""
    held(parameter)[0].fill_(1.0)


def held(parameter: Tensor) -> tuple[Tensor, int]:
    """Returns this device's rows of a parameter, and the index of the first."""
    if not isinstance(parameter, DTensor):
        return parameter, 0
    mesh, cut = parameter.device_mesh, [i for i, placed in enumerate(parameter.placements) if placed.is_shard(0)]
    local, first = parameter.to_local(), 0
    for i in cut:  # dimensions of the mesh, cut as by torch.chunk
        n, size = len(parameter), -(-len(parameter) // mesh.size(i))
        first = min(mesh.get_local_rank(i) * size, n)
        assert len(local) == min(size, n - first), (len(local), n, mesh)
    return local, first
