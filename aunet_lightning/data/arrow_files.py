"""Parquet, and Arrow's own files and streams (Feather too): a row is a document, and few rows are in memory."""

import os
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aunet_lightning.data.documents import Document, Report
from aunet_lightning.data.records import Table, count_keys

ROWS = 64  # held at a time
PAGES = 1 << 20  # bytes of a Parquet column that are read at a time
MISSING = "pip install 'aunet-lightning[parquet]'"


class Columns(Table):
    """Columns of text with types."""

    name: str  # for errors

    def documents(self, path: Path, report: Report) -> Iterator[Document]:
        """Raises ValueError also for a missing column, and for one of other values than text."""
        try:
            import pyarrow  # noqa: F401
        except ModuleNotFoundError:
            raise ValueError(f"{path}: format {self.name} needs pyarrow: {MISSING}") from None
        number = 0
        with self.read_whole(path):
            for names, batch in self.batches(path):
                count_keys(names, report, len(batch))
                wanted = self.columns(names, path)
                for start in range(0, len(batch), ROWS):
                    part = batch.slice(start, ROWS)
                    columns = [self._strings(part.column(name), name, path) for name in wanted]
                    for values in zip(*columns, strict=True):
                        number += 1
                        fields = dict(zip(wanted, values, strict=True))
                        document = self.row(fields, report, f", row {number}", str(number))
                        if document is not None:
                            yield document

    @contextmanager
    def read_whole(self, path: object) -> Iterator[None]:
        """A context in which a fault of the file names it."""
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError) as error:
            problem = str(error).partition("\n")[0]
            raise ValueError(
                f"{path} cannot be read as {self.name} to its end ({problem}): is it complete, and of the format its "
                "name says?"
            ) from None

    @abstractmethod
    def batches(self, path: Path) -> Iterator[tuple[list[str], Any]]:
        """Yields the names of all columns, and a record batch: some rows of those that are read, or of all."""

    def _strings(self, column: Any, name: str, path: Path) -> list[str | None]:
        import pyarrow as pa

        of = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if of in (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.null()):
            held = column.cast(pa.large_binary()).to_pylist()  # pyarrow stops at text that is not UTF-8
            return [None if value is None else value.decode("utf-8", "surrogateescape") for value in held]
        if name == "id":
            return [None if value is None else str(value) for value in column.to_pylist()]
        raise ValueError(
            f"{path}: the column {name!r} is of type {column.type}, not text: name another (text_key, language_key)"
        )


class Parquet(Columns):
    name = "parquet"

    def batches(self, path: Path) -> Iterator[tuple[list[str], Any]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with (
            pa.OSFile(os.fsencode(path)) as opened,
            pq.ParquetFile(opened, buffer_size=PAGES, pre_buffer=False) as file,  # else whole groups of rows are read
        ):
            names = file.schema_arrow.names
            for batch in file.iter_batches(ROWS, columns=self.columns(names, path), use_threads=False):
                yield names, batch


class Arrow(Columns):
    """The file format, which is Feather's too, or the stream format, in which `datasets` keeps its tables."""

    name = "arrow"

    def batches(self, path: Path) -> Iterator[tuple[list[str], Any]]:
        import pyarrow as pa

        with pa.memory_map(os.fsencode(path)) as file:
            if file.read(6) == b"ARROW1":
                reader = pa.ipc.open_file(file)
                batches = map(reader.get_batch, range(reader.num_record_batches))
            else:
                file.seek(0)
                batches = reader = pa.ipc.open_stream(file)
            names = reader.schema.names
            self.columns(names, path)  # also where there are no rows
            yield from ((names, batch) for batch in batches)
