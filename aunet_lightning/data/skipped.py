"""What is skipped of files: how much of it stops a run, and what to do about it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lightning_utilities.core.rank_zero import rank_zero_warn  # Lightning's, without loading all of it

from aunet_lightning.data.corpus import Corpus
from aunet_lightning.data.documents import Report
from aunet_lightning.numbers import listed

TEXTLESS = ("empty line", "empty text")  # reasons of what has no text that could be lost
HELD_OUT = "text that is held out too"  # the reason of a stream's documents that are left out on purpose
FEW = 10  # lines of a part that may be lost in any case
LEAST = 1000  # lines of a stream, of which the share is taken until so many are read
REMEDIES = {  # by how a reason begins
    "not UTF-8": "convert the file to UTF-8, iconv -f ENCODING -t UTF-8 FILE > NEW",
    "NUL byte": "if it is UTF-16, convert it, iconv -f UTF-16LE (or BE) -t UTF-8 FILE > NEW",
    "invalid JSON": "JSON lines have an object on each line; a file of another form needs a format (format: json)",
    "no string under": "name the field that holds the text (text_key), if it is another",
    "empty": "name a file that holds text",
}


def check_skipped(part: str, corpus: Corpus, limit: float | None) -> None:
    """Warns of what was skipped in a part's files. Raises ValueError where it is more than the share `limit` (None:
    any) of what holds text, and more than a few lines; at a limit of 0, where it is anything."""
    report, warning = corpus.report, corpus.report.warning()
    if not report.documents:
        return  # which is an error of its own
    if too_many := _too_many(report, limit):
        raise ValueError(f"data.{part}_files: {too_many}")
    if warning:
        rank_zero_warn(f"{part} files: {warning}")
    empty = [str(path) for path, of_file in zip(corpus.paths, corpus.reports, strict=True) if not of_file.documents]
    if empty:
        rank_zero_warn(f"{part} files: no document is in {listed(empty)}")


def _too_many(report: Report, limit: float | None, least: int = 0) -> str | None:
    """Returns a sentence where more than the share `limit` (None: any) of the lines that hold text is skipped, and more
    than a few lines; at a limit of 0, where any is. least: lines that count as read in any case."""
    lost = sum(count for reason, count in report.skipped.items() if reason not in TEXTLESS)
    if limit is None or lost <= max(limit * max(report.documents + lost, least), FEW if limit else 0):
        return None
    return (
        f"{report.warning()}: that is more than data.skipped_limit, {limit:g}. Correct or leave out the files "
        f"({_remedy(report)}), or raise the limit (null: none)"
    )


@dataclass
class Watched(Report):
    """The report of a file of a stream: `skip` raises ValueError where too many lines of all that is read so far are
    skipped; before LEAST lines are read, too many of so many."""

    before: Report = field(default_factory=Report)  # of files that were read to their end
    limit: float | None = None
    path: str = ""
    text_key: str = ""

    def of_file(self, path: str, text_key: str) -> "Watched":
        return Watched(before=self.before, limit=self.limit, path=path, text_key=text_key)

    def skip(self, reason: str, place: str) -> None:
        super().skip(reason, place)
        if self.limit is None or reason in (*TEXTLESS, HELD_OUT):
            return
        total = Report()
        total.add(self.before)
        total.add(self, self.path)
        total.skipped.pop(HELD_OUT, None)
        if too_many := _too_many(total, self.limit, LEAST):
            missing = None if total.documents else self.has_no(self.text_key, "data.text_key")
            raise ValueError(f"data.train_files: {self.path}{'' if missing else place}: {missing or too_many}")


def why_nothing(report: Report, files: Sequence[object]) -> str:
    """Returns why no document is in files, and what to do."""
    warning = report.warning()
    found = warning or f"nothing is in {listed([*map(str, files)])}"
    return f"{found}: {_remedy(report)}"


def _remedy(report: Report) -> str:
    """Returns what to do about the most frequent reason."""
    reasons = sorted(report.skipped, key=lambda reason: (reason in TEXTLESS, -report.skipped[reason]))
    first = reasons[0] if reasons else "empty"
    return next((remedy for start, remedy in REMEDIES.items() if first.startswith(start)), "see the lines")
