"""Records commands that train nothing, and a study."""

import csv
import re
from pathlib import Path
from typing import Any

from same.recorder import Recorder
from same.runs import metrics
from same.settings import LANGUAGES, SENTENCE, STUDY
from same.tree import aunet, lines


def record_commands(to: Recorder) -> None:
    """Commands that train nothing."""
    import yaml

    def printed(key: str, *arguments: Any) -> None:
        with to.part(key):
            to.add(f"command/{key}", lines(aunet(*arguments)))

    printed("splitters", "splitters")
    rules = ["script_aware", "whitespace", "aunet_word", "trie", "syllable", "{name: fixed, n: 6}"]
    chosen = [part for rule in rules for part in ("--splitter", rule)]
    printed("split", "split", SENTENCE, *chosen)
    printed("split in stages", "split", SENTENCE, *chosen, "--stages", 3)
    with to.part("split --stats"):  # what it prints is that with its speed
        aunet("split", *LANGUAGES, "--stats", *chosen, "--csv", "stats.csv")
        _table(to, "command/split --stats", Path("stats.csv"), 2)
    for key, options in {
        "rates": ["--gpu_hours", 8, "--devices", 4, "--bytes_per_unit", 5.1, 10.2, "--out", "plan.yaml"],
        "data": ["--flops", 1e17, "--data", *LANGUAGES, "--splitter", "script_aware", "--stages", 3],
        "flat": ["--parameters", 1e8, "--stages", 1, "--precision", "32-true", "--gpu_memory", 24],
    }.items():
        printed(f"plan by {key}", "plan", *options)
    with to.part("plan.yaml"):
        to.add_flat("command/plan.yaml", yaml.safe_load(Path("plan.yaml").read_text(encoding="utf-8")))
    for path in sorted(Path("experiments/models").glob("*.yaml")):
        with to.part(f"settings of {path.name}"):
            shown = aunet("fit", "-c", path, "-c", "experiments/data/udhr.yaml", "--print_config")
            to.add_flat(f"settings/{path.stem}", yaml.safe_load(shown))
    Path("study.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False), encoding="utf-8")
    printed("compare --dry_run", "compare", "-c", "study.yaml", "--dry_run")


def record_study(to: Recorder) -> None:
    with to.part("study"):
        to.add("study/printed", lines(aunet("compare", "-c", "study.yaml", "--jobs", 1)))
        folder = next(path for path in Path("runs").rglob("table.csv") if "same" in path.parts).parent
        _table(to, "study/table", folder / "table.csv", 4)
        for cell in sorted(path.parent for path in folder.rglob("metrics.jsonl")):
            metrics(to, f"study/{cell.relative_to(folder)}", cell)


def _table(to: Recorder, key: str, path: Path, n_names: int) -> None:
    """Records a CSV file by row and column, without what a clock has to do with."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            name = " ".join(list(row.values())[:n_names])
            for column, value in row.items():
                if not re.search("second|time|commit|/s$|speed", column):
                    to.add(f"{key}/{name}/{column}", value)
