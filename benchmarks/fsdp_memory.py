"""Measured memory of FSDP2 training on this machine, against the planner's formula.

    python benchmarks/fsdp_memory.py                                            (a minute; gloo, float32)
    python benchmarks/fsdp_memory.py --start experiments/models/aunet2_8b.yaml  (how one of eight processes is built)

Each process trains two steps on rows with the planned number of units. Measured is the peak memory of tensors (network,
optimizer and steps), from the allocations that PyTorch's profiler records.
"""

import argparse
import json
import os
import resource
import socket
import tempfile
import time
import warnings
from pathlib import Path

import torch
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh

from aunet_lightning.costs import Cost, memory
from aunet_lightning.distributed.sharding import ParallelConfig, build
from aunet_lightning.planning import shape
from aunet_lightning.training.optimizer import OptimizerConfig, build_optimizer

RULES = [{"name": "fixed", "n": 5}, {"name": "every", "n": 2}]
ROW, RATES = 1024, [5.0, 10.0]


def work(rank, world, port, width, layers, rows, recompute, results):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(world)}
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (world,))
    ids = torch.full((rows, ROW), 97)
    levels = torch.zeros_like(ids)
    levels[:, ::5], levels[:, ::10] = 1, 2
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        parallel = ParallelConfig(activation_checkpointing=recompute)
        net = build(shape(3, width, layers), RULES, 0, parallel, mesh)
        optimizer = build_optimizer(net, OptimizerConfig())
        for _ in range(2):
            logits = net(ids, levels).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        profile.export_chrome_trace(file.name)
        events = json.load(file)["traceEvents"]
    results[rank] = max(event["args"]["Total Allocated"] for event in events if event["name"] == "[memory]")
    torch.distributed.destroy_process_group()


def start(path):
    """Builds the shard of one of eight processes, and prints the time and memory that took."""
    import yaml
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from aunet_lightning.model.config import AUNetConfig

    settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=8)
    before, since = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    rules = [settings["splitter"], *settings["upper_splitters"]]
    net = build(AUNetConfig(**settings["model"]["net"]), rules, 0, ParallelConfig(), init_device_mesh("cpu", (8,)))
    took = time.perf_counter() - since
    most = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    of_all = 4 * sum(parameter.numel() for parameter in net.parameters())
    print(f"{path}: weights {of_all / 1e9:.1f} GB; process 0 of 8 took {most / 1e9:.2f} GB and {took:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--start")
    options = parser.parse_args()
    if options.start:
        return start(options.start)
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
