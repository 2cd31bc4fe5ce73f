"""What each cell costs, and how it is made to cost what the others do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aunet_lightning.costs import Cost
from aunet_lightning.data.datamodule import ByteDataModule
from aunet_lightning.data.rates import RowShape, mean_row
from aunet_lightning.errors import UserError
from aunet_lightning.model.config import AUNetConfig
from aunet_lightning.study.grid import Cell, Settings, Study, merge
from aunet_lightning.training.budget import BudgetConfig, Spent
from splitters import Stack

FAR = 0.25  # a trunk this far from the wanted cost is worth a warning
WIDEST = 128  # heads that a trunk may get


@dataclass(frozen=True)
class Sized:
    """A cell with all its settings, ready for `aunet fit`, and what it is expected to cost."""

    cell: Cell
    settings: Settings
    flops_per_byte: float  # of text, forward and backward
    parameters: int
    row: RowShape
    devices: int  # each a process
    steps: float | None  # that its budget buys; None where it is time

    @property
    def folder(self) -> Path:
        return Path(self.settings["run"]["folder"])

    def progress(self, metrics: dict[str, float]) -> float:
        """Returns the share of its budget that a run has spent, by its last metrics."""
        spent = Spent(*(metrics.get(key, 0.0) for key in ("flops", "bytes_seen", "perf/training_seconds")))
        return min(BudgetConfig(**self.settings["model"]["budget"]).progress(spent) or 0.0, 1.0)


class Sizer:
    """Sizes the cells of a study. Text is split once for all seeds."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._rows: dict[tuple[str, str, int], RowShape] = {}
        self.warnings: list[str] = []

    def sized(self, cell: Cell) -> Sized:
        """Raises UserError for settings that make no run, or no run of the wanted cost."""
        match = self.study.match
        try:
            row, config, stack = self._read(cell)
        except (ValueError, TypeError) as error:
            raise UserError(f"{cell.name}: {error}") from None
        if match.adjust != "bytes":
            assert match.bytes is not None
            config = self._fitted(cell, config, stack, row, match.budget / match.bytes)
        cost = Cost.of(config, stack)
        of_row = float(cost.row_flops(torch.tensor(row.positions)))
        rows = cell.settings.get("data", {}).get("batch_rows", 16)
        each = {"flops": of_row * rows, "bytes": row.text_bytes * rows}.get(match.by)
        steps = None if each is None else match.budget / each
        settings = self._complete(cell, config, steps)
        devices = self._devices(cell, rows)
        return Sized(cell, settings, of_row / row.text_bytes, cost.parameters, row, devices, steps)

    def _devices(self, cell: Cell, rows: int) -> int:
        trainer = cell.settings.get("trainer", {})
        devices = self.study.gpus_per_cell or trainer.get("devices", 1)
        if not isinstance(devices, int) or devices < 1 or trainer.get("num_nodes", 1) != 1:
            raise UserError(
                f"{cell.name}: trainer.devices is {devices!r}, trainer.num_nodes {trainer.get('num_nodes', 1)}: a cell "
                "runs on one host, on a number of devices that is known before (1, 2, …; or gpus_per_cell)"
            )
        if rows % devices:
            raise UserError(
                f"{cell.name}: data.batch_rows is {rows}: it must be a multiple of the devices of a cell ({devices})"
            )
        return devices

    def _read(self, cell: Cell) -> tuple[RowShape, AUNetConfig, Stack]:
        top = {key: cell.settings[key] for key in ("splitter", "upper_splitters", "tokenizer") if key in cell.settings}
        data = ByteDataModule(**cell.settings.get("data", {}), **top)
        key = (cell.splitter, cell.language, cell.stages)
        if key not in self._rows:
            data.prepare_data()
            data.setup()
            self._rows[key] = mean_row(data)
        net = cell.settings["model"]["net"]
        config = AUNetConfig(**merge(net, {"vocabulary": data.reader.size}))
        return self._rows[key], config, data.reader.stack

    def _fitted(self, cell: Cell, config: AUNetConfig, stack: Stack, row: RowShape, wanted: float) -> AUNetConfig:
        """Returns the configuration whose trunk brings FLOPs per byte nearest to `wanted`."""
        trunk, by = config.stages[-1], self.study.match.adjust
        first = trunk.head_dim if by == "trunk_dim" else 1
        field = "dim" if by == "trunk_dim" else "layers"
        best, best_at = config, float("inf")
        for i in range(1, WIDEST + 1):
            changed = AUNetConfig(**_plain(config, {field: first * i}))
            each = float(Cost.of(changed, stack).row_flops(torch.tensor(row.positions))) / row.text_bytes
            if abs(each - wanted) < abs(best_at - wanted):
                best, best_at = changed, each
            if each > wanted:
                break
        off = best_at / wanted - 1
        if abs(off) > FAR:
            self.warnings.append(
                f"{cell.name}: the nearest trunk ({field} {getattr(best.stages[-1], field)}) costs {off:+.0%} per "
                "byte; it reads so much less or more text"
            )
        return best

    def _complete(self, cell: Cell, config: AUNetConfig, steps: float | None) -> Settings:
        study, match = self.study, self.study.match
        trunk = {"dim": config.stages[-1].dim, "layers": config.stages[-1].layers}
        stages = [dict(stage) for stage in cell.settings["model"]["net"]["stages"]]
        stages[-1] |= trunk
        tags = {
            "study": study.study, "splitter": cell.splitter, "language": cell.language, "stages": str(cell.stages),
            "match": f"{match.by} {match.budget:g}", "seed": str(cell.seed),
        }  # fmt: skip
        over: Settings = {
            "model": {"net": {"stages": stages}, "budget": {match.by: match.budget}},
            "trainer": {"max_steps": -1, "enable_progress_bar": False, "check_val_every_n_epoch": None},
            "run": {
                "experiment": study.study, "name": cell.name, "folder": str(study.folder / "cells" / cell.name),
                "tracking_uri": study.tracking_uri, "tags": tags,
            },
        }  # fmt: skip
        if study.gpus_per_cell:
            over["trainer"]["devices"] = study.gpus_per_cell
        if steps is not None:
            over["trainer"]["val_check_interval"] = max(round(steps / study.validations), 1)
        return merge(cell.settings, over)


def _plain(config: AUNetConfig, trunk: dict[str, Any]) -> dict[str, Any]:
    plain = dict(vars(config))
    plain["stages"] = [dict(vars(stage)) for stage in config.stages]
    plain["stages"][-1] |= trunk
    return plain
