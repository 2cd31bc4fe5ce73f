"""The command line: what goes into files, help, completion, and text that is piped."""

import pytest

from aunet_lightning.study import progress as study_progress
from aunet_lightning.training.progress import BpbProgressBar
from tests.helpers import fit

BARS = ("\r", "█", "it/s", "%|")
GREETINGS = ("GPU available", "TPU available", "Tip:", "litlogger", "litmodels", "Seed set to")


@pytest.mark.parametrize("every", [0.0, 60.0], ids=["always due", "a minute"])
def test_no_bar_goes_into_a_file(every, here, capfd, monkeypatch):
    monkeypatch.setattr(BpbProgressBar, "EVERY", every)
    assert fit("--trainer.enable_progress_bar", "true", "--trainer.max_steps", "4", "--model.budget.bytes", "1e9") == 0
    out, err = capfd.readouterr()
    assert [word for word in (*BARS, *GREETINGS) if word in out + err] == []
    lines = [line for line in err.splitlines() if line.startswith(("step ", "validation: "))]
    assert (len(lines) > 4) == (every == 0)
    if every == 0:
        assert lines[0].startswith("step 1 of 4: train/bpb ")
        assert lines[-1].startswith("step 4 of 4: train/bpb ")
        assert "spent 0%" in lines[-1]


def test_a_study_in_a_file_is_a_line_a_minute(capsys, monkeypatch):
    shown = study_progress.CellProgress(4, 1)
    shown.show(1.5, ["a", "b"])
    assert capsys.readouterr().err == ""
    later = shown._next + 1
    monkeypatch.setattr(study_progress.time, "monotonic", lambda: later)
    shown.show(1.75, ["a", "b"])
    shown.show(2.0, ["a"])
    shown.close()
    assert capsys.readouterr().err == "1.8 of 4 cells; running: a, b\n"
