"""The same items as tasks of EleutherAI's evaluation harness (lm_eval), for any model that it knows."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from aunet_lightning.evaluation.items import Item, read_items
from aunet_lightning.evaluation.task import TASKS

METRICS = "acc", "acc_bytes"  # by all bits, and by bits per byte


def write_lm_eval(files: Iterable[Path]) -> list[str]:
    """Writes a YAML beside each file of items, which are of one task and language; returns the names of its tasks.

    A name is aunet_TASK_LANGUAGE; aunet_TASK, aunet_GROUP and aunet_eval name all that belong to them. The YAML has the
    full path of the items. Where these are not UTF-8 there is none, as the harness hands strings to models.

    Raises ValueError for a file that is not of items, or has those of several tasks or languages.
    """
    names = []
    for path in files:
        items = list(read_items(path))
        if len({(item.task, item.language) for item in items}) > 1:
            raise ValueError(f"{path} has items of several tasks or languages: write a file for each")
        if items and all(_is_utf8(item) for item in items):
            settings = _settings(items[0], path)
            path.with_suffix(".yaml").write_text(yaml.safe_dump(settings, allow_unicode=True, sort_keys=False), "utf-8")
            names.append(settings["task"])
    return names


def _settings(item: Item, path: Path) -> dict[str, Any]:
    """Returns the settings of a task, of which this is an item."""
    return {
        "task": f"aunet_{item.task}_{item.language}",
        "tag": ["aunet_eval", f"aunet_{TASKS.get(item.task).group}", f"aunet_{item.task}"],
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path.resolve())}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "context",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "target_delimiter": "",
        "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in METRICS],
        "metadata": {"version": 1.0},
    }


def _is_utf8(item: Item) -> bool:
    try:
        return all(text.decode() is not None for text in (item.context, *item.choices))
    except UnicodeDecodeError:
        return False
