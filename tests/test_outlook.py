"""What a run says of its end: how long, how much text, how often."""

import json
import re
from pathlib import Path

import pytest

from aunet_lightning.training import outlook
from tests.helpers import fit, points


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (3599, "60 min"), (3600, "1.0 h"), (86400 * 2.5, "2.5 days")],
)
def test_durations_are_words(seconds, said):
    assert outlook.duration(seconds) == said


@pytest.mark.parametrize(
    "end", [("--trainer.max_steps", "40"), ("--trainer.max_steps", "400", "--model.budget.bytes", "9000")]
)
@pytest.mark.usefixtures("here")
def test_a_run_says_what_is_ahead(monkeypatch, capsys, end):
    monkeypatch.setattr(outlook, "AFTER", 0.0)
    shape = ("--trainer.val_check_interval", "8", "--trainer.log_every_n_steps", "1", "--data.holdout_every", "9")
    assert fit(*end, *shape, "--run.folder", "ahead") == 0
    folder = Path("ahead")
    out = capsys.readouterr().out
    found = re.search(r"about \d+ s left: (\d+) steps in all, (.*) MB of text \(each document (.*) times\)", out)
    logged = points(folder)
    steps = max(step for step, _ in logged) + 1
    assert int(found[1]) == pytest.approx(steps, rel=0.15)
    assert float(found[2]) == pytest.approx(logged[steps - 1, "bytes_seen"] / 1e6, rel=0.2, abs=0.05)
    assert re.search(r"step 8 of \d+, [\d.]+ bits per byte, about \d+ s left", out)
    lines = [json.loads(line)["metrics"] for line in (folder / "metrics.jsonl").open()]
    left = [metrics["perf/seconds_left"] for metrics in lines if "perf/seconds_left" in metrics]
    assert all(value >= 0 for value in left)
    assert left[-1] < left[0]
