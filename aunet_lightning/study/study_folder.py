"""The files of a study."""

from pathlib import Path


class StudyFolder:
    """The grid and the report of a study."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = path / "lock"
        self.grid = path / "grid.yaml"
        self.rates = path / "rates.json"  # what rows were fitted to
        self.vocabularies = path / "vocabularies"
        self.plan = path / "plan.md"
        self.plan_record = path / "plan.json"  # by which changes after it are told
        self.page = path / "report.html"
        self.markdown = path / "report.md"
        self.table = path / "table.csv"
        self.heatmap = path / "heatmap.png"
        self.latex = path / "table.tex"
        self.figures = path / "figures"  # of the page, as SVG and CSV
        self.artifacts = (self.page, self.markdown, self.table, self.latex, self.heatmap, self.grid)  # for MLflow

    def items(self, language: str) -> Path:
        """Returns the folder of the items that cells of a language are asked."""
        return self.path / "items" / language

    def cell(self, name: str) -> Path:
        return self.path / "cells" / name
