"""The files of a cell: those of its run, and what the study keeps beside them."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from aunet_lightning.tracking.run_folder import RunFolder

LONGEST_ERROR = 300  # characters
TAIL = 20_000  # bytes of the metrics that are read for the latest ones


class CellFolder(RunFolder):
    """The files of a cell: those of its run, and what the study keeps beside them."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.given = path / "settings.yaml"  # for `aunet fit -c`
        self.done = path / "cell.json"  # exists once the cell has finished: its duration and commit
        self.answers = path / "answers.jsonl"  # to the study's items
        self.robustness = path / "robustness.jsonl"  # bits of changed validation text
        self.lock = path / "lock"
        self.job = path / "job.json"  # the job of a cluster that runs it
        self.jobs = path / "jobs"  # what submitit keeps of it

    def other_text(self, name: str) -> Path:
        """Returns the path of the bits of a text of another kind."""
        return self.path / f"other-{name}.jsonl"

    def log(self, rank: int = 0) -> Path:
        """Returns the path of what a process of the cell prints."""
        return self.path / (f"log-{rank}.txt" if rank else "log.txt")

    def last_error(self) -> str:
        """Returns the last line that the cell printed."""
        try:
            text = self.log().read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            text = ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1][:LONGEST_ERROR] if lines else "it printed nothing"

    def points(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Yields step and metrics of each logged point of a finished run."""
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            point = json.loads(line)
            yield point["step"], point["metrics"]

    def last_metrics(self) -> dict[str, float]:
        """Returns the latest metrics of a run that may be writing: incomplete lines are skipped."""
        if not self.metrics.exists():
            return {}
        with self.metrics.open("rb") as file:
            file.seek(max(self.metrics.stat().st_size - TAIL, 0))
            lines = file.read().decode(errors="ignore").split("\n")
        found: dict[str, float] = {}
        for line in lines[1:-1] if len(lines) > 2 else lines[:-1]:
            with contextlib.suppress(ValueError):
                found |= json.loads(line)["metrics"]
        return found
