"""What MLflow's pages show: which chart each metric is in, and that views fit into their tag and are kept."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient

from aunet_lightning.tracking import views
from aunet_lightning.tracking.mlflow_page import COLOUR, NOTE
from aunet_lightning.tracking.run_folder import RunFolder
from tests.mlflow_runs import logger

LANGUAGES = ("en", "th", "zh-Hans", "a_th")


def keys_of(languages, stages=3):
    found = {"val/bpb", "best/val_bpb", "train/loss", "perf/bytes_per_second", "cost/parameters", "bytes_seen", "flops"}
    for stage in range(2, stages + 1):
        found |= {f"val/bytes_per_unit_stage{stage}", f"train/bytes_per_unit_stage{stage}"}
        found |= {f"val_stage{stage}/length_p{n}_{one}" for n in range(14) for one in languages}
    return found | {f"{name}_{one}" for name in ("val/bpb", "generated/bytes", "test/bpb") for one in languages}


@given(st.sets(st.sampled_from(sorted(keys_of(LANGUAGES)))))
def test_each_metric_is_in_one_chart_and_languages_share_theirs(keys):
    found = views.charts(keys)
    drawn = [chart for chart in found["compareRunCharts"] if not chart["deleted"]]
    shown = [key for chart in drawn for key in chart.get("selectedMetricKeys", [chart["metricKey"]])]
    assert len(shown) == len(set(shown))
    left_to_mlflow = {key for key in keys if key.startswith(("val_stage2/", "val_stage3/"))}
    constant = keys & {"cost/parameters", "bytes_seen", "flops"}
    languages = {one for one in LANGUAGES if f"val/bpb_{one}" in keys}
    if languages or not any(key.startswith(("generated/", "test/bpb_")) for key in keys):
        assert keys - set(shown) == left_to_mlflow | constant
    named = [chart["metricKey"] for chart in found["compareRunCharts"]]
    assert set(named) == keys - left_to_mlflow  # or MLflow adds a chart of its own
    assert len(named) == len(set(named))
    (together,) = [chart for chart in drawn if chart.get("displayName") == "val/bpb by language"] or [None]
    assert (together is None) == (not languages)
    assert together is None or {*together["selectedMetricKeys"]} == {f"val/bpb_{one}" for one in languages}
    sections = [section["name"] for section in found["compareRunSections"]]
    assert {chart["metricSectionId"] for chart in drawn} <= {*sections}
    assert [name for name in views.SECTIONS if name in sections] == [
        name for name in sections if name in views.SECTIONS
    ]
    assert tuple(sections[-2:]) == views.OTHERS


def test_a_view_of_many_languages_fits_into_its_tag():
    view = views.charts(keys_of([f"language{i}" for i in range(30)]))
    assert views.unpacked(views.packed(view)) == view
    assert views.unpacked(json.dumps(view)) == view
    assert len(views.packed(view)) <= views.LONGEST


def test_an_experiment_shows_all_that_its_runs_have(tmp_path, uri):
    ours = logger(tmp_path / "a", uri, tags={"splitter": "trie"})
    client = MlflowClient(uri)
    mine = {"searchFilter": "tags.x = 'y'", "selectedColumns": ["tags.`x`"]}
    client.set_experiment_tag(ours.experiment_id, views.TAG + "means", json.dumps(mine))
    ours.log_metrics({"val/bpb": 2.5, "val/bpb_th": 2.0}, 7)
    ours.finalize("success")
    other = logger(tmp_path / "b", uri, tags={"splitter": "fixed"})
    other.log_metrics({"val/bpb_en": 2.0}, 3)
    other.finalize("success")
    tags = client.get_experiment(ours.experiment_id).tags
    means = views.unpacked(tags[views.TAG + "means"])
    assert mine.items() <= means.items()
    assert {"val/bpb", "val/bpb_th", "val/bpb_en"} <= views.metrics_of(means)
    runs = [client.get_run(one.run_id).data.tags for one in (ours, other)]
    assert len({run[COLOUR] for run in runs}) == 2
    assert "**2.500 bits per byte** at step 7" in runs[0][NOTE]
    assert {"mlflow.user", "mlflow.source.name", "command"} <= runs[0].keys()


@pytest.mark.parametrize("switch", [None, "false"])
def test_a_run_has_its_text_and_the_load_of_its_machine(tmp_path, uri, monkeypatch, switch):
    if switch:
        monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", switch)
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    text = {"train": {"digest": "0" * 64, "documents": 3, "bytes": 9, "languages": ["en", "th"], "files": ["a.jsonl"]}}
    folder.data.write_text(json.dumps(text))
    ours = logger(tmp_path, uri)
    for step in range(2):
        ours.log_metrics({"val/bpb": 2.5}, step)
        ours.send()
    run = MlflowClient(uri).get_run(ours.run_id)
    (given,) = run.inputs.dataset_inputs
    assert given.dataset.name == "train: en, th"
    assert json.loads(given.dataset.source) == {"files": ["a.jsonl"]}
    assert ("system/cpu_utilization_percentage" in run.data.metrics) == (switch is None)
    assert "system" not in (tmp_path / "run" / "metrics.jsonl").read_text()
