"""The text of a study, as its runs read it."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from aunet_lightning.data.json_lines import licences
from aunet_lightning.study.results import StudyText
from aunet_lightning.study.sizing import Sized


def texts_of(sized: Sequence[Sized]) -> Iterator[StudyText]:
    """Yields the training and validation text of each language that a run has read."""
    seen: set[str] = set()
    for one in sized:
        if one.cell.language in seen or not one.files.data.exists():
            continue
        seen.add(one.cell.language)
        for part, of in json.loads(one.files.data.read_text(encoding="utf-8")).items():
            if part in ("train", "val"):
                files = list(map(str, of["files"]))
                named = sorted({licence for file in files for licence in licences(Path(file))})
                yield StudyText(one.cell.language, part, files, of["documents"], of["bytes"], named)
