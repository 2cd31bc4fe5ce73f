"""The speed of generation: text that is fed byte by byte, as `generate` does it, held against another commit.

    python -m benchmarks.speed.generation [CHECKOUT]    prints the bars as JSON lines

Each tree is measured in a process of its own; the two take turns within a second, so that what else the machine does
hits both. The text is given and not sampled: weights are random, and their samples would have no words.
"""

import inspect
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]
TEXT = ROOT / "experiments/data/udhr/en.jsonl"
MODELS: dict[str, dict[str, Any]] = {
    "6 M": {"dims": [128, 256], "layers": [2, 6], "windows": [256, 512], "rules": ["whitespace"]},
    "13 M": {
        "dims": [128, 256, 384],
        "layers": [2, 2, 4],
        "windows": [256, 512, 512],
        "rules": ["whitespace", {"name": "every", "n": 2}],
    },
}
PROMPT, STEPS, ROUNDS = 600, 60, 7  # enough steps that what the other tree left in the cache is a small share
BATCH, LONG, READ = 32, 65_536, 2048


class Tree:
    """A checkout, in a process that answers one question at a time."""

    def __init__(self, root: pathlib.Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(root)}
        command = [sys.executable, str(pathlib.Path(__file__).resolve()), "answer"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=root, text=True
        )

    def ask(self, **question: Any) -> Any:
        """Returns seconds, or a profile."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def __enter__(self) -> "Tree":
        return self

    def __exit__(self, *error: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def answer() -> None:
    """Answers questions on standard input, with whatever tree PYTHONPATH names."""
    import torch

    from aunet_lightning import AUNet, AUNetConfig
    from splitters import Stack

    text = " ".join(json.loads(line)["text"] for line in TEXT.read_text("utf-8").splitlines()).encode()
    text *= 1 + (LONG + 10_000) // len(text)
    threads, nets, streams = torch.get_num_threads(), {}, {}

    def net_of(name: str) -> tuple[Any, Any]:
        if name not in nets:
            model = MODELS[name]
            stages = [
                {"dim": dim, "layers": layers, "head_dim": 64, "window": window}
                for dim, layers, window in zip(model["dims"], model["layers"], model["windows"], strict=True)
            ]
            torch.manual_seed(0)
            stack = Stack(model["rules"])
            nets[name] = AUNet(AUNetConfig(stages=stages), stack).eval(), stack
        return nets[name]

    def fresh(net: Any, rows: int, stack: Any) -> Any:
        """The state that `generate` begins with."""
        constant = "constant" in inspect.signature(net.initial_state).parameters  # an older tree has no such state
        return net.initial_state(rows, stack, **({"constant": True} if constant else {}))

    def step(model: str, rows: int, prompt: int, steps: int, compiled: bool) -> float:
        net, stack = net_of(model)
        torch.set_num_threads(1 if rows < 8 else threads)
        key = model, rows, prompt, compiled
        if key not in streams:
            ids = torch.tensor([[256, *text[97 * row : 97 * row + prompt + 2000]] for row in range(rows)])
            state = net(ids[:, :prompt], state=fresh(net, rows, stack)).state
            if compiled:
                from aunet_lightning.model.captured import Captured

                state = Captured(net, state)
            streams[key] = ids, prompt, state
        ids, at, state = streams[key]
        before = time.perf_counter()
        for t in range(at, at + steps):
            if compiled:
                state(int(ids[0, t]))
            else:
                state = net(ids[:, t : t + 1], state=state).state
        streams[key] = ids, at + steps, state
        return time.perf_counter() - before

    def read(model: str, with_state: bool) -> float:
        net, stack = net_of(model)
        torch.set_num_threads(threads)
        ids, levels = torch.tensor([[256, *text[: READ - 1]]]), torch.zeros(1, READ, dtype=torch.long)
        levels[0, 1:] = torch.from_numpy(stack.levels(text[: READ - 1]))
        before = time.perf_counter()
        net(ids, state=net.initial_state(1, stack)) if with_state else net(ids, levels)
        return time.perf_counter() - before

    def profile(model: str) -> dict[str, float]:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
            step(model, 1, PROMPT, 50, True)
        total = sum(event.self_cpu_time_total for event in found.key_averages())
        ordered = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)[:8]
        return {event.key: round(event.self_cpu_time_total / total, 3) for event in ordered}

    for line in sys.stdin:
        question = json.loads(line)
        with torch.inference_mode():
            found = {"step": step, "read": read, "profile": profile}[question.pop("what")](**question)
        print(json.dumps(found), flush=True)


def median_ratio(pairs: list[tuple[float, float]]) -> float:
    """Returns the median of the second of each pair over the first."""
    return statistics.median(b / a for a, b in pairs)


def bars(old: pathlib.Path | None) -> list[Any]:
    """Returns the bars of generation; old: a checkout of the commit that batch 1 is compared with."""
    from benchmarks.speed.bar import Bar

    found = []
    with Tree(ROOT) as ours:

        def step(
            tree: Tree, model: str, rows: int = 1, prompt: int = PROMPT, steps: int = STEPS, compiled: bool = False
        ) -> float:
            asked = {"model": model, "rows": rows, "prompt": prompt, "steps": steps, "compiled": compiled}
            return tree.ask(what="step", **asked) / steps

        def read(model: str, with_state: bool) -> float:
            return ours.ask(what="read", model=model, with_state=with_state)

        for model in MODELS:
            step(ours, model)  # the prompt
            step(ours, model, compiled=True)
            if old is not None:
                with Tree(old) as theirs:
                    step(theirs, model)
                    trio = [
                        (step(ours, model, compiled=True), step(theirs, model), step(ours, model))
                        for _ in range(ROUNDS)
                    ]
                detail = {
                    "ms: compiled, compared, eager": [1e3 * statistics.median(one) for one in zip(*trio, strict=True)]
                }
                detail["profile"] = ours.ask(what="profile", model=model)
                pairs = [(compiled, theirs) for compiled, theirs, _ in trio]
                found.append(Bar(f"generation, batch 1, {model}", median_ratio(pairs), 6, detail=detail))
            step(ours, model, BATCH, steps=2)
            pairs = [(step(ours, model, BATCH, steps=4) / BATCH, step(ours, model)) for _ in range(4)]
            found.append(Bar(f"generation, batch {BATCH} over batch 1, {model}", median_ratio(pairs), 10))
            read(model, True)
            pairs = [(read(model, True), read(model, False)) for _ in range(3)]
            found.append(Bar(f"reading a prompt over the forward, {model}", median_ratio(pairs), 0.6))
        step(ours, "6 M", prompt=LONG)
        step(ours, "6 M", prompt=1024)
        pairs = [(step(ours, "6 M", prompt=LONG), step(ours, "6 M", prompt=1024)) for _ in range(ROUNDS)]
        found.append(Bar("generation after 64 kB over after 1 kB, 6 M", median_ratio(pairs), 0.85))
    return found


if __name__ == "__main__":
    if sys.argv[1:] == ["answer"]:
        answer()
    else:
        for bar in bars(pathlib.Path(sys.argv[1]) if sys.argv[1:] else None):
            print(json.dumps(vars(bar) | {"met": bar.met}))
