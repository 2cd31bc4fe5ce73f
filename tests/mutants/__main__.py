"""Plants each fault in a copy of the tree and runs the tests that should notice: python -m tests.mutants [WORD …].

What is imported from elsewhere (PyTorch, Lightning, MLflow) is imported once; each fault has a child of this process,
which imports the tree with the fault. First the same tests run without any fault: they have to pass. WORDs choose
faults by what is in their line.
"""

import argparse
import contextlib
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

from tests.mutants.faults import FAULTS, Fault

ROOT = Path(__file__).parents[2]
OURS = ("aunet_lightning", "splitters", "tests")
TREES = (*OURS, "experiments", "docs", "README.md", "Makefile", "pyproject.toml", "constraints.txt")
ELSEWHERE = (
    "hypothesis", "jsonargparse", "lightning.pytorch.cli", "mlflow.store.tracking.sqlalchemy_store", "mlflow.tracking",
    "numba", "regex", "safetensors.torch", "tokenizers", "torch.distributed.fsdp", "torchmetrics", "zstandard",
)  # fmt: skip
OPTIONS = ("-q", "--disable-warnings", "-o", "addopts=", "--hypothesis-seed=0", "--hypothesis-profile=mutants")
LONGEST = 300.0  # seconds of a fault's tests; one that hangs is noticed too


class Noted:
    """A plug-in of pytest that remembers what ran and what failed first."""

    def __init__(self) -> None:
        self.ran, self.failed, self.broken = 0, "", ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.ran += report.when == "call"
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.broken = f"{report.nodeid} cannot be imported"


@dataclass
class Running:
    """A child that runs some tests in a copy of the tree."""

    tree: Path
    pid: int
    begin: float
    fault: Fault | None = None  # None: the same tests without a fault

    def result(self, status: int) -> dict:
        path = self.tree / "result.json"
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8")) | {"seconds": time.monotonic() - self.begin}
        how = "a hang" if os.WIFSIGNALED(status) else f"exit code {os.waitstatus_to_exitcode(status)}"
        return {"ran": 0, "failed": how, "broken": "", "seconds": time.monotonic() - self.begin}


def copied(folder: Path) -> Path:
    """Copies the tree, with what Python and numba have compiled of it."""
    folder.mkdir()
    for name in TREES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("runs", ".hypothesis"))
        else:
            shutil.copy2(source, folder / name)
    stores = ROOT / ".pytest_cache" / "d" / "mlflow"
    if stores.is_dir():
        shutil.copytree(stores, folder / ".pytest_cache" / "d" / "mlflow")
    return folder


def planted(tree: Path, fault: Fault) -> str:
    """Writes a file of the tree with the fault in it; returns its text without. Raises ValueError where the line that
    is to be changed is not there, or more than once: the table has to follow the code."""
    path = tree / fault.file
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if (n := text.count(fault.old)) != 1:
        raise ValueError(f"{fault.what}: {fault.file} holds {fault.old!r} {n} times, it must be once: mend the table")
    path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
    return text


def start(tree: Path, tests: Sequence[str], fault: Fault | None = None) -> Running:
    """Runs tests in a child, which imports the tree anew."""
    (tree / "result.json").unlink(missing_ok=True)
    sys.stdout.flush()
    begin = time.monotonic()
    if pid := os.fork():
        return Running(tree, pid, begin, fault)
    os.setsid()
    log = os.open(tree / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    sys.path[:] = [str(tree), *(path for path in sys.path if Path(path).resolve() != ROOT)]
    sys.dont_write_bytecode = True
    os.environ["PYTHONPATH"] = str(tree)
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    os.chdir(tree)
    noted = Noted()
    stop = ["-x"] if fault is not None else []
    pytest.main([*OPTIONS, *stop, "--rootdir", str(tree), *tests], plugins=[noted])
    (tree / "result.json").write_text(json.dumps(vars(noted)), encoding="utf-8")
    os._exit(0)


def finished(running: list[Running]) -> Iterator[tuple[Running, dict]]:
    """Yields what ended, and ends what takes too long."""
    for one in list(running):
        pid, status = os.waitpid(one.pid, os.WNOHANG)
        if not pid and time.monotonic() - one.begin > LONGEST * (1 if one.fault else 10):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.pid, signal.SIGKILL)
            _, status = os.waitpid(one.pid, 0)
            pid = one.pid
        if pid:
            running.remove(one)
            yield one, one.result(status)


def fault_of(one: Running, result: dict) -> str:
    """Returns what is wrong with a result, or nothing."""
    if result["broken"]:
        return result["broken"]
    if not result["ran"] and not result["failed"]:
        return "no test ran"
    if one.fault is None:
        return f"{result['failed']} fails without a fault" if result["failed"] else ""
    return "" if result["failed"] else "SURVIVED"


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="only faults with one of these in their line")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 4))
    options = parser.parse_args()
    faults = [one for one in FAULTS if not options.words or any(word in str(one) for word in options.words)]
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in ELSEWHERE:
        importlib.import_module(name)
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)  # a failure need not be the smallest
    hypothesis.settings.register_profile("mutants", deadline=None, database=None, phases=phases)
    begin, wrong, running = time.monotonic(), [], list[Running]()
    with tempfile.TemporaryDirectory() as folder:
        trees = [copied(Path(folder) / str(i)) for i in range(options.jobs)]
        for fault in faults:  # the table first: a line that has changed is known at once
            (trees[0] / fault.file).write_text(planted(trees[0], fault), encoding="utf-8")
        by_file: dict[str, list[str]] = {}
        for test in dict.fromkeys(test for fault in faults for test in fault.tests):
            by_file.setdefault(test.partition("::")[0], []).append(test)
        waiting: list[tuple[Fault | None, Sequence[str]]] = [(None, tests) for tests in by_file.values()]
        waiting += [(fault, fault.tests) for fault in faults]
        texts: dict[Path, str] = {}
        print(f"{len(faults)} faults, {options.jobs} at a time\n")
        while waiting or running:
            free = [tree for tree in trees if all(one.tree != tree for one in running)]
            while free and waiting:
                (fault, tests), tree = waiting.pop(0), free.pop()
                if fault is not None:
                    texts[tree] = planted(tree, fault)
                running.append(start(tree, tests, fault))
            for one, result in finished(running):
                if one.fault is not None:
                    (one.tree / one.fault.file).write_text(texts.pop(one.tree), encoding="utf-8")
                trouble = fault_of(one, result)
                if trouble:
                    wrong.append(f"{one.fault.what if one.fault else 'without a fault'}: {trouble}")
                    print((one.tree / "log.txt").read_text(encoding="utf-8", errors="replace")[-2000:])
                if one.fault is not None:
                    told = trouble or result["failed"].removeprefix("tests/")
                    print(
                        f"{one.fault.what:<58} {one.fault.file:<44} {told:<90} {result['seconds']:5.1f} s", flush=True
                    )
            time.sleep(0.05)
    print(f"\n{len(faults)} faults, {len(wrong)} troubles, {time.monotonic() - begin:.0f} s", *wrong, sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
