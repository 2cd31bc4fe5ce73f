"""From a label of the data to a part of a metric's name: whatever the label, and no two labels to one name."""

import hashlib
import re

LONGEST = 100  # characters of a name; MLflow takes keys of 250, and ours put at most 60 before it
BEGIN = 80  # of them for the beginning of a label that is too long
_OTHERS = re.compile(r"[^\w.\-]+")


def metric_name(label: str) -> str:
    """Returns the name under which a label, such as a language, stands in the key of a metric: `val/bpb_` + name.

    Letters of any script, digits and `_ . -` stay as they are. A run of other characters becomes its UTF-8 bytes in
    hex between colons: `a@b` is `a:40:b`. Of a label whose name would be longer than LONGEST the beginning is left,
    and a digest after a colon. No two labels have one name: a colon never stands for itself, and an even number of
    them tells whole labels from cut ones, whose digests (64 bits) differ.

    Names that differ only in case stay apart in SQLite and PostgreSQL. MySQL and SQL Server compare keys without
    case and accents unless their tables are made otherwise: there zh-Hans and zh-hans share one *latest* value.
    """
    whole = _escaped(label)
    if len(whole) <= LONGEST:
        return whole
    end = min(len(label), BEGIN)
    while len(_escaped(label[:end])) > BEGIN:
        end -= 1
    return f"{_escaped(label[:end])}:{hashlib.sha256(_bytes(label)).hexdigest()[:16]}"


def _escaped(text: str) -> str:
    return _OTHERS.sub(lambda others: f":{_bytes(others[0]).hex()}:", text)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
