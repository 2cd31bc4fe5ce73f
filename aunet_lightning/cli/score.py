"""The command aunet score: bits of texts from a checkpoint alone, by document and by byte."""

import argparse
import gzip
import io
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aunet_lightning.cli.options import add_device, device_of
from aunet_lightning.cli.texts import STDIN, files_of, format_of, is_file, plain, standard_input
from aunet_lightning.paths import PART, replace_text, user_path
from aunet_lightning.terminal import json_line, one_line

if TYPE_CHECKING:
    from aunet_lightning.data.documents import Document, Report
    from aunet_lightning.data.places import Place
    from aunet_lightning.reader.reader import Reader
    from aunet_lightning.scoring import Score

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
LINE = 'each line is an object such as {"text": "…", "lang": "en", "id": "1"}: correct the line, or leave it out'
ANY = "correct it, or leave it out"
GROUP = 256  # documents of a Parquet row group
TITLES = ("language", "documents", "bytes", "BPB")

Write = Callable[[Mapping[str, Any]], object]


class Item(NamedTuple):
    """A document to score."""

    id: str
    language: str
    place: str  # as messages and the page call it
    text: bytes
    context: bytes = b""


def score(arguments: list[str]) -> int:
    """`aunet score`: writes a line per document, and prints bits per byte of all and of each language."""
    options = _parser().parse_args(arguments)
    from aunet_lightning import scoring

    out = _out(options.out, options.files)
    page = user_path(options.page, "--page") if options.page else None
    more = options.context_ids, options.batch_ids, "--"
    scoring.check_rows(sys.maxsize if options.row_ids is None else options.row_ids, *more)
    device = device_of(options.device)
    items = list(_items(options.files))

    net, reader, trained_row = _load(options.ckpt_path)
    if reader.tokenizer is not None:
        _check_unicode(items)
    row = options.row_ids or trained_row
    if row is None:
        row = scoring.ROW
        _say(f"warning: the checkpoint does not record its rows, so they are of {row} ids (--row_ids)")
    scoring.check_rows(row, *more)
    documents = (scoring.Continuation(item.context, item.text) for item in items)
    scores = scoring.score(net.to(device), reader, documents, row, options.context_ids, options.batch_ids)
    kept = _Kept(0 if page is None else _shown())
    with _writer(out, options.bytes) as write:
        for item, one in zip(items, scores, strict=True):
            write(_row(item, one, options.bytes))
            kept.add(item, one)
    table = kept.table()
    if page is not None:
        _write_page(page, f"Surprisal: {options.ckpt_path}", table, kept, reader.tokenizer is not None)
    _report(table, row, options.context_ids, kept)
    for path in filter(None, (out, page)):
        _say(f"wrote {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "aunet score",
        description="Score texts with a checkpoint: bits of each document, and of each byte.",
        epilog="Files are JSON lines (.jsonl, .gz, .zst: a document per line, {text: …, lang: …, id: …}; what is under "
        "context is read before it and not scored), .json, .csv, .tsv, .parquet or .arrow with these fields, or plain "
        "text, one document. Ids are bytes; of a BPE model, tokens.",
    )
    parser.add_argument("ckpt_path", metavar="CKPT", help="a checkpoint of a run, or what aunet export wrote")
    parser.add_argument("files", nargs="+", metavar="FILE", help="a file of texts; - is standard input")
    parser.add_argument("--out", help="where to write a line per document: .jsonl, .jsonl.gz or .parquet (default: "
                        "standard output)")  # fmt: skip
    parser.add_argument("--bytes", action="store_true", help="write the surprisal (bits) and level of each byte, too")
    parser.add_argument("--page", metavar="HTML", help="write a page that shows surprisal and units of the first texts")
    parser.add_argument("--row_ids", type=int, help="ids that a row reads (default: as in training)")
    parser.add_argument(
        "--context_ids", type=int, default=0,
        help="begin each further row of a long document so many ids earlier; they are not scored again (default 0, as "
        "predict does)",
    )  # fmt: skip
    parser.add_argument("--batch_ids", type=int, help="ids that are read at once (default: by the memory they take)")
    add_device(parser)
    return parser


def _load(path: str) -> "tuple[Any, Reader, int | None]":
    """Returns a network, its reader, and the ids of its training rows where they are known."""
    from aunet_lightning import peers
    from aunet_lightning.checkpoints.load import load_with_contents

    if peers.is_peer(user_path(path, "the checkpoint")):
        return *peers.load_peer(user_path(path, "the checkpoint")), None
    net, reader, contents = load_with_contents(path)
    return net, reader, contents.row_ids


def _say(text: str) -> None:
    print(f"aunet: {text}", file=sys.stderr)


def _out(given: str | None, files: Sequence[str]) -> Path | None:
    if given is None:
        return None
    path = user_path(given, "--out")
    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"--out is {given}: end its name in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    if path.is_dir():
        raise ValueError(f"--out is {given}, which is a folder: name a file in it, such as {path / 'scores.jsonl'}")
    if path.exists() and any(is_file(Path(file)) and path.samefile(file) for file in files):
        raise ValueError(f"--out is {given}, which is also read: name another file")
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ModuleNotFoundError:
            raise ValueError(
                f"--out is {given}, and Parquet needs pyarrow: pip install 'aunet-lightning[parquet]'"
            ) from None
    return path


# Texts


def _items(files: Sequence[str]) -> Iterator[Item]:
    """Yields the documents of files. Raises ValueError for a file without any, and for a line that is no document."""
    for argument in files:
        found = [] if argument == STDIN else files_of(argument)
        for path, language in found:
            yield from _of_file(path, language)
        if argument == STDIN:
            yield from _of_input(standard_input())
        elif not found:
            raise ValueError(f"{argument!r} is not a file (looked from {Path.cwd()})")


def _of_file(path: "Path | Place", language: str) -> Iterator[Item]:
    from aunet_lightning.data.documents import JSONL, Report
    from aunet_lightning.data.places import place_of
    from aunet_lightning.data.sources import FORMATS

    name, report = os.fsencode(str(path)).decode("utf-8", "backslashreplace"), Report()
    format = format_of(path)
    with place_of(path).opened() as copy:
        if format is None:
            yield _whole(plain(copy), name, language)
        else:
            documents = FORMATS.get(format)(context_key="context").documents(copy, report)
            yield from _of_lines(documents, report, name, language, LINE if format == JSONL else ANY)


def _of_input(data: bytes) -> Iterator[Item]:
    from aunet_lightning.data.documents import Report
    from aunet_lightning.data.json_lines import JsonLines

    name, language, report = "standard input", "text", Report()
    if _is_lines(data):
        documents = JsonLines(context_key="context").of_lines(io.BytesIO(data), report)
        yield from _of_lines(documents, report, name, language, LINE)
    else:
        yield _whole(data, name, language)


def _whole(data: bytes, name: str, language: str) -> Item:
    if not data:
        raise ValueError(f"{name} is empty: there is no text to score")
    return Item(name, language, name, data)


def _is_lines(data: bytes) -> bool:
    """Whether a text is JSON lines: its first line is an object."""
    first = data.lstrip().partition(b"\n")[0]
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _of_lines(
    documents: "Iterator[Document]", report: "Report", name: str, language: str, remedy: str
) -> Iterator[Item]:
    found = False
    for one in documents:
        _check_lines(report, name, remedy)
        found = True
        yield Item(one.name, one.language or language, f"{name}, {one.name}", one.text, one.context)
    _check_lines(report, name, remedy)
    if not found:
        raise ValueError(f"{name} is empty: it has no line with a text to score")
    if warning := report.warning():
        _say(f"warning: {one_line(name)}: {warning}")


def _check_lines(report: "Report", name: str, remedy: str) -> None:
    from aunet_lightning.data.skipped import TEXTLESS

    for reason in report.skipped:
        if reason not in TEXTLESS:
            raise ValueError(f"{name}{report.examples[reason][0]}: {reason}; {remedy}")


def _check_unicode(items: Sequence[Item]) -> None:
    for item in items:
        for text in (item.context, item.text):
            try:
                text.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{item.place} is not UTF-8 at byte {error.start}, and a BPE model reads nothing else: convert it, "
                    "iconv -f … -t UTF-8 FILE > NEW"
                ) from None


# Results


def _row(item: Item, one: "Score", per_byte: bool) -> dict[str, Any]:
    row = {"id": item.id, "lang": item.language, "bytes": len(item.text), "bits": one.bits, "bpb": one.bpb}
    if item.context:
        row["greedy"] = bool(one.greedy.all())
    return row | ({"surprisal": one.surprisal, "levels": one.levels} if per_byte else {})


def _as_json(row: Mapping[str, Any]) -> str:
    rounded = {**row, "bits": round(row["bits"], 3), "bpb": round(row["bpb"], 5)}
    if "surprisal" in row:
        rounded |= {"surprisal": [round(bits, 4) for bits in row["surprisal"].tolist()]}
        rounded |= {"levels": row["levels"].tolist()}
    return json_line(rounded)


@contextmanager
def _writer(out: Path | None, per_byte: bool) -> Iterator[Write]:
    """A context whose value writes a row; a file appears complete or not at all."""
    if out is None:
        yield lambda row: print(_as_json(row))
        return
    part = out.with_name(out.name + PART)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        if out.suffix == ".parquet":
            with _parquet(part, per_byte) as write:
                yield write
        else:
            zipped = out.suffix == ".gz"
            with gzip.open(part, "wt", encoding="utf-8") if zipped else part.open("w", encoding="utf-8") as file:
                yield lambda row: file.write(_as_json(row) + "\n")
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _parquet(path: Path, per_byte: bool) -> Iterator[Write]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    columns = {
        "id": pa.string(), "lang": pa.string(), "bytes": pa.int64(), "bits": pa.float64(), "bpb": pa.float64(),
        "greedy": pa.bool_(),
    }  # fmt: skip
    if per_byte:
        columns |= {"surprisal": pa.list_(pa.float32()), "levels": pa.list_(pa.uint8())}
    schema, rows = pa.schema(columns), list[Mapping[str, Any]]()

    def flush() -> None:
        file.write_table(pa.Table.from_pylist(rows, schema))
        rows.clear()

    def write(row: Mapping[str, Any]) -> None:
        rows.append(row)
        if len(rows) == GROUP:
            flush()

    with ParquetWriter(path, schema) as file:
        yield write
        flush()


class _Kept:
    """What is kept of the scores: sums by language, and the first documents of each."""

    def __init__(self, first: int) -> None:
        self.most = first
        self._first: dict[str, list[tuple[Item, Score]]] = {}
        self.sums: dict[str, list[float]] = {}  # documents, bytes, bits
        self.shortened = 0

    def add(self, item: Item, one: "Score") -> None:
        of = self.sums.setdefault(item.language, [0, 0, 0.0])
        of[:] = of[0] + 1, of[1] + len(item.text), of[2] + one.bits
        self.shortened += one.unread > 0
        if len(mine := self._first.setdefault(item.language, [])) < self.most:
            mine.append((item, one))

    @property
    def first(self) -> "list[tuple[Item, Score]]":
        """The documents to show: those of each language in turn."""
        turns = itertools.zip_longest(*self._first.values())
        return [one for turn in turns for one in turn if one is not None][: self.most]

    @property
    def documents(self) -> int:
        return int(sum(n for n, *_ in self.sums.values()))

    def table(self) -> list[list[str]]:
        """Returns a row for all text and one per language, below their titles."""
        from aunet_lightning.reports.table import TOTAL, row_of

        of_all = [sum(column) for column in zip(*self.sums.values(), strict=True)]
        rows = {TOTAL: of_all} | {row_of(language): self.sums[language] for language in sorted(self.sums)}
        return [[*TITLES]] + [
            [name, f"{n:.0f}", f"{size:.0f}", f"{bits / size:.4f}"] for name, (n, size, bits) in rows.items()
        ]


def _report(table: Sequence[Sequence[str]], row: int, context: int, kept: _Kept) -> None:
    from aunet_lightning.reports.table import aligned

    if kept.shortened:
        _say(f"warning: {kept.shortened} contexts do not fit into a row of {row} ids, which has their end alone")
    again = f", {context} of them again from the row before" if context else ""
    _say(f"texts were read in rows of {row} ids (bytes; of a BPE tokens){again}")
    print("\n".join(aligned(table, left=TITLES[:1])), file=sys.stderr)


def _shown() -> int:
    from aunet_lightning.reports.surprisal import DOCUMENTS

    return DOCUMENTS


def _write_page(path: Path, title: str, table: Sequence[Sequence[str]], kept: _Kept, tokens: bool) -> None:
    from aunet_lightning.reports.surprisal import Scored, page

    scored = [Scored(item.place, item.language, item.text, one, len(item.context)) for item, one in kept.first]
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, page(title, table, scored, kept.documents, tokens))
