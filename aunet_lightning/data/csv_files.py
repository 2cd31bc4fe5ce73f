"""CSV and TSV, perhaps compressed: a header names the columns, and each row is a document."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from aunet_lightning.data.decompressed import lines_of
from aunet_lightning.data.documents import Document, Report
from aunet_lightning.data.records import Table, count_keys

LONGEST = (1 << 31) - 1  # characters of a field: the most that csv takes


class Csv(Table):
    """Commas between fields; a field in quotes may hold commas, line ends, and quotes that are doubled."""

    delimiter, quoting = ",", csv.QUOTE_MINIMAL

    def documents(self, path: Path, report: Report) -> Iterator[Document]:
        """Raises ValueError also for a missing column and for quotes that do not match."""
        lines = (line.decode("utf-8", "surrogateescape") for line in lines_of(path))
        rows = csv.reader(lines, delimiter=self.delimiter, quoting=self.quoting, strict=True)  # type: ignore[arg-type]
        at, names, wanted = 0, list[str](), list[tuple[int, str]]()
        while True:
            limit = csv.field_size_limit(LONGEST)  # a setting of the process
            try:
                row = next(rows, None)
            except csv.Error as error:
                raise ValueError(f"{path}:{at + 1} is not {self.describe()} ({error})") from None
            finally:
                csv.field_size_limit(limit)
            if row is None:
                return
            at, line = rows.line_num, at + 1
            if not names:
                names = [name.removeprefix("\ufeff") for name in row]
                wanted = [(names.index(name), name) for name in self.columns(names, path)]
                continue
            fields = self._fields(row, names, wanted, report, f":{line}")
            if fields is not None:
                yield from self.made(fields, report, line)

    def _fields(
        self, row: list[str], names: list[str], wanted: list[tuple[int, str]], report: Report, place: str
    ) -> dict[str, str] | None:
        if not row:
            report.skip("empty line", place)
            return None
        count_keys(names, report)
        if len(row) != len(names):
            report.skip(f"not {len(names)} fields, as in the header", place)
            return None
        fields = {name: row[column] for column, name in wanted}
        if any("\0" in value for value in fields.values()):
            report.skip("NUL byte", place)
            return None
        return fields

    def made(self, fields: Mapping[str, str], report: Report, line: int) -> Iterator[Document]:
        """Yields the document of a row, if it has one."""
        kept = {name: value for name, value in fields.items() if value or name == self.text_key}
        if (document := self.row(kept, report, f":{line}", str(line))) is not None:
            yield document

    def describe(self) -> str:
        return "CSV: put quotes around fields that hold quotes or line ends, and double the quotes in them"


class Tsv(Csv):
    """Tabs between fields, and quotes as in CSV."""

    delimiter = "\t"

    def describe(self) -> str:
        return "TSV with quotes as in CSV: where quotes are characters like others, give format: tsv_unquoted"


class TsvUnquoted(Tsv):
    """Tabs between fields; quotes are characters like others."""

    quoting = csv.QUOTE_NONE

    def describe(self) -> str:
        return "TSV: a line is a row"


class TsvParallel(TsvUnquoted):
    """A column per language, which the header names; the fields of a row say the same, and have its number as name."""

    def columns(self, names: Sequence[str], path: Path) -> list[str]:
        if len(names) < 2 or len({*names}) < len(names) or not all(names):
            raise ValueError(
                f"{path}: the header of tsv_parallel names a language for each of two columns or more, and has "
                f"{', '.join(map(repr, names))}"
            )
        return [*names]

    def made(self, fields: Mapping[str, str], report: Report, line: int) -> Iterator[Document]:
        for language, text in fields.items():
            of_field = {self.text_key: text, self.language_key: language}
            if (document := self.row(of_field, report, f":{line}, {language}", str(line))) is not None:
                yield document

    def describe(self) -> str:
        return "tsv_parallel: a line is a row, with tabs between languages"
