"""A process that imports a checkout and records one part of it: python -m same.child PART OUT.json."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from same.commands import record_commands, record_study
from same.recorder import Recorder
from same.rules import record_golden, record_nets, record_splitters
from same.runs import record_continued, record_runs, record_sharded, train_sharded
from same.settings import RUNS, SETTINGS, THREADS


def record_rules(to: Recorder) -> None:
    for part in (record_golden, record_splitters, record_nets, record_commands, record_study, record_continued):
        part(to)


PARTS: dict[str, Callable[[Recorder], None]] = {
    "rules": record_rules,
    "runs": lambda to: record_runs(to, [*RUNS]),
    "sharded": record_sharded,
}


def child(part: str, out: str) -> int:
    import yaml

    tree = Path(os.environ["SAME_TREE"]).resolve()
    import aunet_lightning
    import splitters

    for package in (aunet_lightning, splitters):
        assert tree in Path(str(package.__file__)).resolve().parents, f"{package.__file__} is not in {tree}"
    import torch

    torch.set_num_threads(int(THREADS))
    if not Path("base.yaml").exists():
        Path("base.yaml").write_text(yaml.safe_dump(SETTINGS, sort_keys=False, allow_unicode=True), encoding="utf-8")
    if part.startswith("rank"):
        train_sharded(int(part.removeprefix("rank")))
        return 0
    recorder = Recorder()
    PARTS[part](recorder)
    Path(out).write_text(json.dumps(recorder.found, ensure_ascii=False), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(child(*sys.argv[1:]))
