"""The speed and memory of training: against the published formulation in its plain form, and against another commit."""

from pathlib import Path

from benchmarks.speed.bar import Bar
from benchmarks.speed.worker import Worker, alternate

FASTER, SMALLER, THAN_OLD, FLAT = 3.5, 0.6, 2.0, 0.85


def bars(old: Path | None) -> list[Bar]:
    """old: a checkout to compare with."""
    found = []
    for case in ("two", "three"):
        workers = {"network": Worker(case), "plain": Worker(case, "plain")}
        if old is not None:
            workers["compared"] = Worker(case, tree=old)
        of = alternate(workers, 8)
        ratio = of["plain"]["seconds"] / of["network"]["seconds"]
        found.append(Bar(f"training, {case} stages, to the plain form", ratio, FASTER, detail=of))
        memory = of["network"]["peak"] / of["plain"]["peak"]
        found.append(Bar(f"peak memory, {case} stages, to the plain form", memory, SMALLER, at_least=False))
    if old is not None:
        of = alternate({"network": Worker("cell", threads=1), "compared": Worker("cell", tree=old, threads=1)}, 30, 5)
        ratio = of["compared"]["seconds"] / of["network"]["seconds"]
        found.append(Bar("training, a cell of nonspace, one core, to the commit compared", ratio, THAN_OLD, detail=of))
    sizes = [f"rows of {size} kB" for size in (2, 16, 64)]
    of = alternate({name: Worker(name, batches=1) for name in sizes}, 4, 1)
    rates = [of[name]["bytes_per_second"] for name in sizes]
    return [
        *found,
        Bar("training, slowest to fastest of rows of 2, 16 and 64 kB", min(rates) / max(rates), FLAT, detail=of),
    ]
