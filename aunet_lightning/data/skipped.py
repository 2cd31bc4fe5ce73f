"""What is skipped of files: how much of it stops a run, and what to do about it."""

from collections.abc import Sequence

from lightning_utilities.core.rank_zero import rank_zero_warn  # Lightning's, without loading all of it

from aunet_lightning.data.corpus import Corpus
from aunet_lightning.data.documents import Report
from aunet_lightning.numbers import listed

TEXTLESS = ("empty line", "empty text")  # reasons of what has no text that could be lost
FEW = 10  # lines of a part that may be lost in any case
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
    lost = sum(count for reason, count in report.skipped.items() if reason not in TEXTLESS)
    if limit is not None and lost > max(limit * (report.documents + lost), FEW if limit else 0):
        raise ValueError(
            f"data.{part}_files: {warning}: that is more than data.skipped_limit, {limit:g}. Correct or leave out the "
            f"files ({_remedy(report)}), or raise the limit (null: none)"
        )
    if warning:
        rank_zero_warn(f"{part} files: {warning}")
    empty = [str(path) for path, of_file in zip(corpus.paths, corpus.reports, strict=True) if not of_file.documents]
    if empty:
        rank_zero_warn(f"{part} files: no document is in {listed(empty)}")


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
