"""Memory of processes that train under FSDP on this machine, against the planner's formula.

    python benchmarks/fsdp_memory.py            (some minutes; gloo, float32)

Each process trains three steps on rows with as many units as planned. Measured is the highest resident memory less that
before the network was built.
"""

import argparse
import os
import resource
import socket

import torch
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh

from aunet_lightning.costs import Cost, memory
from aunet_lightning.distributed.sharding import ParallelConfig, build
from aunet_lightning.planning import shape
from aunet_lightning.training.optimizer import OptimizerConfig, adamw

RULES = [{"name": "fixed", "n": 5}, {"name": "every", "n": 2}]
ROW, RATES = 1024, [5.0, 10.0]


def resident() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def work(rank, world, port, width, layers, rows, recompute, results):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(world)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (world,))
    config = shape(3, width, layers)
    warm = torch.nn.Linear(8, 8)  # the libraries' own
    warm(torch.zeros(8, 8)).sum().backward()
    before = resident()
    net = build(config, RULES, 0, ParallelConfig(activation_checkpointing=recompute), mesh)
    optimizer = adamw(net, OptimizerConfig())
    ids = torch.full((rows, ROW), 97)
    levels = torch.zeros_like(ids)
    levels[:, ::5], levels[:, ::10] = 1, 2
    for _ in range(3):
        logits = net(ids, levels).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    results[rank] = peak - before
    torch.distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--layers", type=int, default=8)
    options = parser.parse_args()
    config = shape(3, options.width, options.layers)
    cost = Cost.of(config, RULES)
    print(f"{cost.parameters / 1e6:.0f} M parameters; rows of {ROW} bytes")
    print("| processes | rows each | recomputed | formula | measured | ratio |\n|---:|---:|---|---:|---:|---:|")
    for world, rows, recompute in ((2, 1, False), (2, 4, False), (2, 4, True), (4, 1, False), (4, 4, False)):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        results = mp.Manager().dict()
        arguments = (world, port, options.width, options.layers, rows, recompute, results)
        mp.spawn(work, arguments, nprocs=world)
        positions = cost.positions(ROW, RATES).tolist()
        planned = memory(config, positions, rows, RULES, "32-true", world, [recompute] * 3).total
        measured = max(results.values())
        sizes = f"{planned / 1e6:.0f} MB | {measured / 1e6:.0f} MB | {measured / planned:.2f}"
        print(f"| {world} | {rows} | {'yes' if recompute else 'no'} | {sizes} |", flush=True)


if __name__ == "__main__":
    main()
