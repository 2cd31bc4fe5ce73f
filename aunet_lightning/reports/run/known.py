"""What the page of a run knows: the files of its folder, read as far as they are there."""

import csv
import itertools
import json
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from aunet_lightning.errors import UserError
from aunet_lightning.reports.overfitting import Measured, Overfit, overfit
from aunet_lightning.reports.run.kept import CloseLook, Look, read_close_look, read_looks
from aunet_lightning.reports.table import TOTAL
from aunet_lightning.tracking.names import metric_name
from aunet_lightning.tracking.points import read_points
from aunet_lightning.tracking.run_folder import RunFolder
from aunet_lightning.training.definition import kept_settings
from aunet_lightning.training.outlook import three_digits

Line = Sequence[tuple[float, float]]  # of a curve: steps, value


@dataclass(frozen=True)
class Known:
    """A run: its folder, what it is doing, and its seconds by what they went to."""

    folder: RunFolder
    state: str  # running, finished, stopped, or failed: why
    seconds: Mapping[str, float]
    reached: int = 0  # the step, where it is known: logs may end before it

    @cached_property
    def settings(self) -> dict[str, Any]:
        try:
            return kept_settings(self.folder) if self.folder.config.exists() else {}
        except UserError:
            return {}

    @property
    def of_tokens(self) -> bool:
        return self.settings.get("tokenizer") is not None

    @cached_property
    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """Every logged metric by name: (steps trained, value), in order. A metric of step k is of the model after
        k + 1 steps."""
        found: dict[str, dict[int, float]] = {}
        for point in read_points(self.folder.metrics, mend=False).points:
            for name, value in point["metrics"].items():
                found.setdefault(name, {})[point["step"] + 1] = value
        return {name: [(float(step), of[step]) for step in sorted(of)] for name, of in found.items()}

    def last(self, name: str) -> float:
        """Returns the latest value of a metric; nan where it has none."""
        of = self.curves.get(name)
        return of[-1][1] if of else math.nan

    def at(self, name: str, step: float) -> float:
        """Returns the latest value of a metric up to a step; nan without one."""
        return next((value for at, value in reversed(self.curves.get(name, [])) if at <= step), math.nan)

    @property
    def steps(self) -> int:
        of = self.curves.get("train/bpb", [])
        logged = [of[-1][0] if of else 0, *self.measured_at, *(look.step for look in self.looks)]
        return self.reached or int(max(logged))

    @cached_property
    def measured_at(self) -> list[float]:
        """The steps of the validations."""
        return [step for step, _ in self.curves.get("val/bpb", [])]

    @property
    def overfit(self) -> Overfit | None:
        """How the model overfits, if it does."""
        training, measured, before = self.curves.get("train/bpb", []), list[Measured](), 0
        for step, bpb in self.curves.get("val/bpb", []):
            end = bisect_right(training, step, key=lambda point: point[0])
            measured.append(Measured(step, bpb, _mean(value for _, value in training[before:end])))
            before = end
        return overfit(measured)

    @cached_property
    def text(self) -> dict[str, Any]:
        """Of train and val: documents, bytes, languages, files."""
        try:
            return dict(json.loads(self.folder.data.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}

    @property
    def languages(self) -> list[str]:
        """The languages of the held-out text."""
        return list(self.text.get("val", {}).get("languages", []))

    @property
    def read_by_language(self) -> dict[str, str]:
        """How much text of each language the run has, and how often it was read: as all of it, but with a mix."""
        train = self.text.get("train", {})
        sizes, seen = train.get("bytes_by_language", {}), self.last("bytes_seen")
        if not sizes or math.isnan(seen):
            return {}
        all_ = seen / max(train["bytes"], 1)
        times = {name: self.last(f"train/times_read_{metric_name(name)}") for name in sizes}
        return {
            name: f"{amount(size, 'B')} × {three_digits(all_ if math.isnan(own := times.get(name, math.nan)) else own)}"
            for name, size in {TOTAL: train["bytes"], **sizes}.items()
        }

    def of_languages(self, name: str) -> dict[str, Line]:
        """Returns the curves of a metric by language, `name` being that of all text."""
        found = {language: self.curves.get(f"{name}_{metric_name(language)}", []) for language in self.languages}
        return {language: curve for language, curve in found.items() if curve}

    @cached_property
    def table(self) -> tuple[list[str], dict[str, list[float]]]:
        """The models of the table of BPB (the run's first), and the row of each language, all text first."""
        try:
            header, *rows = csv.reader(self.folder.columns.read_text(encoding="utf-8").splitlines())
            return header[1:], {language: [float(value) for value in values] for language, *values in rows}
        except (OSError, ValueError):
            bpb = {TOTAL: self.last("val/bpb")} if self.measured_at else {}
            return ["AU-Net"], {language: [value] for language, value in bpb.items()}

    @cached_property
    def looks(self) -> list[Look]:
        return read_looks(self.folder.looks)

    @cached_property
    def close(self) -> CloseLook:
        return read_close_look(self.folder.close_look)


def thinned(line: Line, most: int) -> list[tuple[float, float]]:
    """Returns at most so many points of a curve: means of as many stretches."""
    if len(line) <= most:
        return list(line)
    cuts = [round(i * len(line) / most) for i in range(most + 1)]
    parts = [line[a:b] for a, b in itertools.pairwise(cuts)]
    return [(_mean(x for x, _ in part), _mean(y for _, y in part)) for part in parts]


def _mean(values: Iterable[float]) -> float:
    found = [value for value in values if math.isfinite(value)]
    return sum(found) / len(found) if found else math.nan


def spaced(of: Sequence[Any], most: int) -> list[Any]:
    """Returns at most so many: the first, the last, and others evenly between."""
    if len(of) <= most:
        return list(of)
    return [of[round(i * (len(of) - 1) / (most - 1))] for i in range(most)]


def amount(value: float, unit: str) -> str:
    """Returns a number with a prefix: 245 kB, 0.65 TFLOPs."""
    if not math.isfinite(value):
        return f"an unknown number of {unit}"
    power = 0
    while abs(value) >= 999.5 and power < 6:
        value, power = value / 1000, power + 1
    return f"{value:.3g} {('', 'k', 'M', 'G', 'T', 'P', 'E')[power]}{unit}"
