"""Sizes cells: what each costs, and the settings that make all cost the same."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aunet_lightning.costs import Cost
from aunet_lightning.data.datamodule import ByteDataModule
from aunet_lightning.data.rates import RowShape, mean_row
from aunet_lightning.errors import UserError
from aunet_lightning.model.config import AUNetConfig
from aunet_lightning.study.cell_folder import CellFolder
from aunet_lightning.study.grid import Study, StudyCell
from aunet_lightning.study.settings import Settings, merge
from aunet_lightning.study.study_folder import StudyFolder
from aunet_lightning.training.budget import BudgetConfig, Spent
from splitters import Stack

FAR = 0.25  # a trunk this far from the wanted cost is worth a warning
DIGITS = 6  # of numbers in the digest of a cell
WIDEST = 128  # heads that a trunk may get
BESIDE: Settings = {  # the study has a page, and its cells have its time to train; of many models few are served
    "report": {"page": False}, "run": {"log_model": False}
}  # fmt: skip


@dataclass(frozen=True)
class Sized:
    """A cell with all its settings, ready for `aunet fit`, and its expected cost."""

    cell: StudyCell
    settings: Settings
    flops_per_byte: float  # of text, forward and backward
    parameters: int
    embedding_parameters: int  # of these, looked up and not multiplied with
    row: RowShape
    rows: int  # of a batch
    devices: int  # each a process
    steps: float | None  # that its budget buys; None where the budget is time

    @property
    def folder(self) -> Path:
        return Path(self.settings["run"]["folder"])

    @property
    def files(self) -> CellFolder:
        return CellFolder(self.folder)

    @property
    def definition(self) -> str:
        """A digest of what defines the cell on any machine: settings, what it is asked, and what its text and its model
        come to."""
        cell, row = self.cell, self.row
        come_to = [*row.positions, row.text_bytes, self.flops_per_byte, self.parameters]
        settings = {key: value for key, value in cell.settings.items() if key not in BESIDE}
        asked = [cell.parallel, [*cell.evaluate.items()], dict(cell.other_text)]
        known = [settings, cell.budget, asked, [f"{x:.{DIGITS}g}" for x in come_to]]
        return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:16]

    @property
    def is_done(self) -> bool:
        """Whether the cell was trained to its end, has read its parallel text, and was asked what it has to be."""
        files = self.files
        if not files.done.exists() or not (self.cell.parallel is None or files.predictions.exists()):
            return False
        asked = json.loads(files.done.read_text(encoding="utf-8")).get("evaluate", {})
        return self.cell.asked.items() <= asked.items()

    @property
    def rates(self) -> tuple[float, ...]:
        """Bytes of training text per unit, per stage transition; of a BPE model, per token."""
        if self.settings.get("tokenizer") is not None:
            return (self.row.text_bytes / (self.row.positions[0] - self.row.context),)
        return self.row.bytes_per_unit

    @property
    def bytes(self) -> float:
        """The bytes of text that it is expected to read; nan where its budget is time."""
        return math.nan if self.steps is None else self.steps * self.rows * self.row.text_bytes

    def progress(self, metrics: dict[str, float]) -> float:
        """Returns the share of its budget that a run has spent, from its last metrics."""
        spent = Spent(*(metrics.get(key, 0.0) for key in ("flops", "bytes_seen", "perf/training_seconds")))
        return min(BudgetConfig(**self.settings["model"]["budget"]).progress(spent) or 0.0, 1.0)


def data_of(settings: Settings) -> ByteDataModule:
    """Returns the data module of a cell's settings."""
    top = {key: settings[key] for key in ("splitter", "upper_splitters", "tokenizer") if key in settings}
    return ByteDataModule(**settings.get("data", {}), **top)


def row_of(data: ByteDataModule) -> RowShape:
    """Reads the text, and returns its mean row."""
    data.prepare_data()
    data.setup()
    return mean_row(data)


class Sizer:
    """Sizes the cells of a study, splitting the text once for all seeds."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._rows: dict[tuple[str, str, int], RowShape] = {}
        self.warnings: list[str] = []

    def sized(self, cell: StudyCell) -> Sized:
        """Raises UserError for settings that give no run, or no run of the wanted cost."""
        match = self.study.match
        try:
            data, row, config = self._read(cell)
        except (ValueError, TypeError) as error:
            raise UserError(f"{cell.name}: {error}") from None
        if match.adjust != "bytes":
            assert match.bytes is not None
            config = self._fitted(cell, config, data.reader.stack, row, cell.budget / match.bytes)
        cost = Cost.of(config, data.reader.stack)
        of_row = float(cost.row_flops(torch.tensor(row.positions), row.refreshes))
        rows = data.batch_rows
        each = {"flops": of_row * rows, "bytes": row.text_bytes * rows}.get(match.by)
        steps = None if each is None else cell.budget / each
        settings = self._complete(cell, config, steps)
        devices = self._devices(cell, rows)
        counts = cost.parameters, cost.embedding_parameters
        return Sized(cell, settings, of_row / row.text_bytes, *counts, row, rows, devices, steps)

    def _devices(self, cell: StudyCell, rows: int) -> int:
        trainer = cell.settings.get("trainer", {})
        devices = self.study.gpus_per_cell or trainer.get("devices", 1)
        if not isinstance(devices, int) or devices < 1 or trainer.get("num_nodes", 1) != 1:
            raise UserError(
                f"{cell.name}: trainer.devices is {devices!r}, trainer.num_nodes {trainer.get('num_nodes', 1)}: a cell "
                "runs on one host, on a fixed number of devices (1, 2, …; or gpus_per_cell)"
            )
        if rows % devices:
            raise UserError(
                f"{cell.name}: data.batch_rows is {rows}: it must be a multiple of the devices of a cell ({devices})"
            )
        return devices

    def _read(self, cell: StudyCell) -> tuple[ByteDataModule, RowShape, AUNetConfig]:
        data = data_of(cell.settings)
        key = (cell.splitter, cell.language, cell.stages)
        if key not in self._rows:
            self._rows[key] = row_of(data)
        net = cell.settings["model"]["net"]
        config = AUNetConfig(**merge(net, {"vocabulary": data.reader.size}))
        return data, self._rows[key], config

    def _fitted(self, cell: StudyCell, config: AUNetConfig, stack: Stack, row: RowShape, wanted: float) -> AUNetConfig:
        """Returns the configuration whose trunk brings FLOPs per byte nearest to `wanted`."""
        trunk, by = config.stages[-1], self.study.match.adjust
        first = trunk.head_dim if by == "trunk_dim" else 1
        field = "dim" if by == "trunk_dim" else "layers"
        best, best_at = config, float("inf")
        for i in range(1, WIDEST + 1):
            changed = AUNetConfig(**_plain(config, {field: first * i}))
            of_row = Cost.of(changed, stack).row_flops(torch.tensor(row.positions), row.refreshes)
            each = float(of_row) / row.text_bytes
            if abs(each - wanted) < abs(best_at - wanted):
                best, best_at = changed, each
            if each > wanted:
                break
        off = best_at / wanted - 1
        if abs(off) > FAR:
            self.warnings.append(
                f"{cell.name}: the nearest trunk ({field} {getattr(best.stages[-1], field)}) costs {off:+.0%} per "
                "byte; it reads that much less or more text"
            )
        return best

    def _complete(self, cell: StudyCell, config: AUNetConfig, steps: float | None) -> Settings:
        study, match = self.study, self.study.match
        trunk = {"dim": config.stages[-1].dim, "layers": config.stages[-1].layers}
        stages = [dict(stage) for stage in cell.settings["model"]["net"]["stages"]]
        stages[-1] |= trunk
        tags = {
            "study": study.study, "splitter": cell.splitter, "language": cell.language, "stages": str(cell.stages),
            "match": f"{match.by} {cell.budget:g}", "seed": str(cell.seed),
        }  # fmt: skip
        over: Settings = {
            "model": {"net": {"stages": stages}, "budget": {match.by: cell.budget}},
            "trainer": {"max_steps": -1, "enable_progress_bar": False, "check_val_every_n_epoch": None},
            "run": {
                "experiment": study.study if cell.multiple is None else f"{study.study}-tune", "name": cell.name,
                "folder": str(StudyFolder(study.folder).cell(cell.name)),
                "tracking_uri": study.tracking_uri, "tags": tags,
            },
        }  # fmt: skip
        if study.gpus_per_cell:
            over["trainer"]["devices"] = study.gpus_per_cell
        if steps is not None:
            over["trainer"]["val_check_interval"] = max(round(steps / study.validations), 1)
        return merge(merge(BESIDE, cell.settings), over)


def _plain(config: AUNetConfig, trunk: dict[str, Any]) -> dict[str, Any]:
    plain = dict(vars(config))
    plain["stages"] = [dict(vars(stage)) for stage in config.stages]
    plain["stages"][-1] |= trunk
    return plain
