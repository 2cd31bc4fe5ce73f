"""Names: of metrics, made of any label without collisions; of runs, made of their settings."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from splitters import DEFAULT

LONGEST = 100  # characters of a name; MLflow takes keys of 250, of which prefixes use at most 60
BEGIN = 80  # of them for the beginning of a label that is cut
SEED = 1  # where a run names none
LONGEST_OPTION = 30  # characters of an option in a run's name; the digest distinguishes runs
_OTHERS = re.compile(r"[^\w.\-]+")


def metric_name(label: str) -> str:
    """Returns the name of a label, such as a language, in the key of a metric: `val/bpb_` + name.

    Letters of any script, digits and `_ . -` are kept. A run of other characters becomes its UTF-8 bytes in hex
    between colons: `a@b` is `a:40:b`. A name longer than LONGEST is cut, and a colon and a digest of the label
    follow. No two labels share a name: a colon never represents itself, and an even number of colons distinguishes
    complete labels from cut ones, whose digests (64 bits) differ.

    SQLite and PostgreSQL distinguish names by case. MySQL and SQL Server by default ignore case and accents in keys:
    there zh-Hans and zh-hans share one *latest* value.
    """
    escaped = _escaped(label)
    if len(escaped) <= LONGEST:
        return escaped
    end = min(len(label), BEGIN)
    while len(_escaped(label[:end])) > BEGIN:
        end -= 1
    return f"{_escaped(label[:end])}:{hashlib.sha256(_bytes(label)).hexdigest()[:16]}"


def _escaped(text: str) -> str:
    return _OTHERS.sub(lambda others: f":{_bytes(others[0]).hex()}:", text)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def rule_name(rule: str | Mapping[str, Any] | None) -> str:
    """Returns a rule as one word fit for a folder's name: `fixed-n4`, `cap-of-whitespace-max_bytes64`."""
    if rule is None:
        return "bytes"
    if isinstance(rule, str):
        return rule.rpartition(":")[2]
    options = [f"{key}{_word(value)}" for key, value in rule.items() if key != "name"]
    return "-".join([str(rule["name"]).rpartition(":")[2], *options])


def _word(value: Any) -> str:
    if isinstance(value, Mapping) and "name" not in value:  # numbers by language or script
        return "".join(f"-{_word(key)}{_word(number)}" for key, number in value.items())
    if isinstance(value, Mapping):
        return "-" + rule_name(value)
    if isinstance(value, list | tuple):
        return "+".join(map(_word, value))
    text = Path(value).stem if isinstance(value, str) and "/" in value else str(value)
    return re.sub(r"[^\w.]+", "_", text)[:LONGEST_OPTION]


def run_name(settings: Mapping[str, Any]) -> str:
    """Returns the default name of a run: its units, stages, widths and seed."""
    stages = settings["model"]["net"]["stages"]
    widths = "-".join(str(stage["dim"]) for stage in stages)
    return f"{units_name(settings)}-{len(stages)}stages-{widths}-seed{settings.get('seed_everything', SEED)}"


def units_name(settings: Mapping[str, Any]) -> str:
    """Returns the name of the units a model reads: of its first splitter, its vocabulary, or plain bytes."""
    tokenizer = settings.get("tokenizer")
    if tokenizer is None:
        return rule_name(settings.get("splitter", DEFAULT))
    return rule_name({"name": "bpe"} | (tokenizer if isinstance(tokenizer, dict) else {"file": tokenizer}))
