"""A process that trains one network, step by step, as another process asks it to. Steps of several workers alternate,
so that what else the machine does hits all of them alike.

python benchmarks/speed/worker.py '{"case": "two", "form": "network"}' reads a line for each step and answers with one
of JSON. It keeps to what every commit since 917e473 has, so that PYTHONPATH may name another checkout.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CELL = [{"dim": 64, "layers": 1, "head_dim": 32, "window": 64}, {"dim": 160, "layers": 3, "head_dim": 32}]
CASES: dict[str, dict[str, Any]] = {
    "two": {
        "stages": [{"dim": 128, "layers": 2, "window": 256}, {"dim": 256, "layers": 6, "window": 512}],
        "rules": ["whitespace"], "rows": 4, "row_bytes": 2048, "masked": False,
    },
    "three": {
        "stages": [
            {"dim": 128, "layers": 2, "window": 256}, {"dim": 256, "layers": 2, "window": 512},
            {"dim": 384, "layers": 4, "window": 512},
        ],
        "rules": ["whitespace", {"name": "every", "n": 2}], "rows": 4, "row_bytes": 2048, "masked": False,
    },
    "cell": {
        "stages": [CELL[0] | {"conv": 4}, CELL[1]], "rules": ["script_aware"], "rows": 8, "row_bytes": 512,
        "masked": True,
    },
} | {
    f"rows of {size} kB": {
        "stages": [CELL[0], CELL[1] | {"window": 128}], "rules": ["script_aware"], "rows": 64 // size,
        "row_bytes": size * 1024, "masked": False,
    }
    for size in (2, 16, 64)
}  # fmt: skip


def text(size: int) -> bytes:
    """Returns text of the shipped corpus in languages with blanks, English first."""
    folder = ROOT / "experiments" / "data" / "udhr"
    found = b"\n".join(
        json.loads(line)["text"].encode()
        for language in ("en", "de", "fr", "es", "tr", "sw", "vi")
        if (file := folder / f"{language}.jsonl").exists()
        for line in file.open(encoding="utf-8")
    )
    return (found * (size // len(found) + 1))[:size]


def main() -> None:
    asked = json.loads(sys.argv[1])
    case = CASES[asked["case"]]
    import torch
    import torch.nn.functional as F

    import splitters
    from aunet_lightning import AUNet, AUNetConfig

    torch.set_num_threads(asked["threads"])
    if asked["form"] != "plain":
        try:
            from aunet_lightning.processes import keep_freed_memory

            keep_freed_memory()  # as training does
        except ImportError:  # an earlier commit
            pass
    torch.manual_seed(1)
    config = AUNetConfig(stages=case["stages"], document_masking=case["masked"])
    if asked["form"] == "plain":
        sys.path.insert(0, str(ROOT))
        from benchmarks.speed.plain_form import PlainAUNet

        net: Any = PlainAUNet(config)
    else:
        net = AUNet(config)
    if asked["form"] == "compiled":
        net.compile()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    rows, length = case["rows"], case["row_bytes"]
    data, stack = text(asked["batches"] * rows * (length + 1)), splitters.Stack(case["rules"])
    ids = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(-1, rows, length + 1).long()
    levels = torch.from_numpy(stack.levels(data).copy()).view(-1, rows, length + 1)

    def step(k: int) -> None:
        here, split, following = ids[k, :, :-1], levels[k, :, :-1], ids[k, :, 1:]
        if hasattr(net, "rooms_for"):  # a batch of the data module has these counts
            counts = [[1 + int((row[1:] > s).sum()) for row in split] for s in range(config.depth)]
            logits = net(here, split, rooms=net.rooms_for(counts)).logits
        else:
            output = net(here, split)
            logits = output if isinstance(output, torch.Tensor) else output.logits
        F.cross_entropy(logits.flatten(0, 1), following.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    held = _resident()
    for k, _ in enumerate(sys.stdin):
        begin = time.perf_counter()
        step(k % asked["batches"])
        seconds = time.perf_counter() - begin
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - held
        print(json.dumps({"seconds": seconds, "peak": peak, "bytes": rows * length}), flush=True)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Worker:
    """A worker process, from outside. tree: the checkout whose network it trains."""

    def __init__(self, case: str, form: str = "network", tree: Path = ROOT, threads: int = 2, batches: int = 6) -> None:
        asked = {"case": case, "form": form, "threads": threads, "batches": batches}
        env = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "5000"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(asked)], env=env, cwd=tree, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.steps: list[dict[str, float]] = []

    def step(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.steps.append(json.loads(self.process.stdout.readline()))

    def end(self, skip: int) -> dict[str, float]:
        """Returns the median seconds of a step without the first ones, bytes per second, and the peak of memory."""
        self.process.communicate()
        seconds = statistics.median(step["seconds"] for step in self.steps[skip:])
        return {
            "seconds": seconds,
            "bytes_per_second": self.steps[0]["bytes"] / seconds,
            "peak": self.steps[-1]["peak"],
        }


def alternate(workers: dict[str, Worker], times: int, skip: int = 2) -> dict[str, dict[str, float]]:
    """Lets each worker take a step in turn; returns what `Worker.end` says of each."""
    try:
        for _ in range(times):
            for worker in workers.values():
                worker.step()
        return {name: worker.end(skip) for name, worker in workers.items()}
    finally:
        for worker in workers.values():
            worker.process.kill()


if __name__ == "__main__":
    main()
