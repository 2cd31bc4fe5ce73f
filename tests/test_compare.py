"""A study: its grid, what its cells cost, and that it is run, stopped, continued and told as it should be."""

import itertools
import json
import lzma
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from aunet_lightning.cli import compare
from aunet_lightning.cli.main import main
from aunet_lightning.data.datamodule import ByteDataModule
from aunet_lightning.errors import UserError
from aunet_lightning.evaluation.task import TASKS
from aunet_lightning.reports.study.report import as_markdown
from aunet_lightning.study import running, timing
from aunet_lightning.study.branching import beginning, branched, release, waits
from aunet_lightning.study.cell_folder import CellFolder
from aunet_lightning.study.collect import collect
from aunet_lightning.study.fitting import Fitter
from aunet_lightning.study.fork_server import kinds
from aunet_lightning.study.grid import cells, load
from aunet_lightning.study.kept import read as read_results
from aunet_lightning.study.kept import write as write_results
from aunet_lightning.study.protocol import told
from aunet_lightning.study.results import CellResult, Point
from aunet_lightning.study.settings import merge
from aunet_lightning.study.sizing import Sizer
from aunet_lightning.study.study_folder import StudyFolder
from aunet_lightning.study.tuning import at_best, trials, tuned
from aunet_lightning.training.budget import BudgetConfig, Spent
from aunet_lightning.training.optimizer import OptimizerConfig
from splitters.engine.characters import byte_classes
from tests.helpers import ROOT, UDHR, place_store

COMPARE = ROOT / "experiments" / "compare"
GRID = {
    "study": "tiny",
    "text": {"train": str(UDHR / "{language}.jsonl"), "val": str(UDHR / "{language}.jsonl")},
    "languages": ["en", "th"],
    "seeds": [1],
    "match": {"by": "flops", "budget": "4e8"},
    "reference": "bpe",
    "splitters": {
        "whitespace": {"splitter": "whitespace"},
        "router": {"splitter": {"name": "router", "bytes_per_unit": 6}},
        "bpe": {
            "splitter": None,
            "tokenizer": {"vocab_size": 300},
            "model": {"net": {"stages": [{"dim": 16, "layers": 1, "head_dim": 8}]}},
        },
    },
    "settings": {
        "upper_splitters": [],
        "data": {"row_bytes": 128, "batch_rows": 8, "workers": 0},
        "model": {
            "net": {
                "stages": [
                    {"dim": 16, "layers": 1, "head_dim": 8, "window": 16},
                    {"dim": 24, "layers": 2, "head_dim": 8},
                ]
            },
            "optimizer": {"warmup_steps": 3},
        },
        "trainer": {"accelerator": "cpu", "log_every_n_steps": 1},
        "run": {"checkpoint_every": 3},
    },
    "validations": 2,
}


def study_of(tmp_path, **changes):
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(merge(GRID, changes), sort_keys=False))
    return path


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch, store_template):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    place_store(store_template, tmp_path / "runs" / "mlflow.db")
    monkeypatch.setenv("AUNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_rows_have_the_rates_that_are_asked_for(tmp_path):
    rules = {"trie": {"splitter": "trie"}, "fixed": {"splitter": "fixed"}, "router": GRID["splitters"]["router"]}
    rules |= {"words": {"splitter": "whitespace"}, "bpe": GRID["splitters"]["bpe"]}
    study, _ = load([study_of(tmp_path, languages=["th"], splitters=rules, rates=[4, 6])])
    fitter = Fitter(study)
    found = {cell.splitter: Sizer(study).sized(cell) for cell in cells(study, fitter)}
    rated = [f"{name} {rate} B" for name in ("router", "bpe", "trie", "fixed") for rate in (4, 6)]
    assert [*found] == ["whitespace", *rated, "words"]
    for name, sized in found.items():
        if name.startswith(("bpe", "trie", "fixed")):
            assert sized.rates[0] == pytest.approx(sized.cell.rate, rel=0.2 if "trie" in name else 0.1), name
        assert (sized.cell.rule, sized.cell.rate) == (name.split()[0], sized.cell.rate)
    assert found["words"].cell.rate is None
    assert not fitter.notes
    again = Fitter(study)
    again._fit = None  # nothing is searched twice
    assert [cell.settings for cell in cells(study, again)] == [one.cell.settings for one in found.values()]
    study.rates, fitter = [5000], Fitter(study)
    assert [cell.splitter for cell in cells(study, fitter) if cell.rule in ("bpe", "trie")] == ["bpe", "trie"]
    assert next(note for note in fitter.notes if note.endswith("so it is left out")).startswith("th: {vocab_size: 300}")


def test_factors_cross_rows_and_skip_those_to_which_they_mean_nothing(tmp_path):
    factors = {"align": ["last", "first"], "conv": [None, 3], "model.optimizer.cooldown": [None, 0.5]}
    study, _ = load([study_of(tmp_path, languages=["en"], factors=factors)])
    found = {cell.splitter: cell for cell in cells(study, Fitter(study))}
    whole = [name for name in found if name.startswith("whitespace")]
    assert len(whole) == 8
    assert len([name for name in found if name.startswith("bpe")]) == 4
    one = found["whitespace align first conv 3 model.optimizer.cooldown 0.5"]
    assert one.levels == {"align": "first", "conv": "3", "model.optimizer.cooldown": "0.5"}
    assert one.settings["splitter"] == {"name": "whitespace", "align": "first"}
    assert [stage["conv"] for stage in one.settings["model"]["net"]["stages"]] == [3, 3]
    assert one.settings["model"]["optimizer"] == {"warmup_steps": 3, "cooldown": 0.5}


def test_each_budget_is_a_cell_and_the_largest_is_first(tmp_path):
    study, _ = load([study_of(tmp_path, languages=["en"], match={"budget": None, "budgets": ["4e8", 1e8]})])
    found = cells(study, Fitter(study))
    assert [(cell.name, cell.budget) for cell in found[::3]] == [
        ("en-whitespace-2stages-seed1-4e+08", 4e8), ("en-whitespace-2stages-seed1-1e+08", 1e8)
    ]  # fmt: skip
    one, other = (Sizer(study).sized(cell) for cell in found[::3])
    assert (one.settings["model"]["budget"], other.settings["model"]["budget"]) == ({"flops": 4e8}, {"flops": 1e8})
    assert one.steps == pytest.approx(4 * other.steps)
    assert one.settings["report"] == {"page": False}  # which would take time from cells
    study, _ = load([study_of(tmp_path, languages=["en"], settings={"report": {"page": True}})])
    assert Sizer(study).sized(cells(study, Fitter(study))[0]).settings["report"] == {"page": True}


def test_a_row_of_the_base_that_is_null_is_left_out(tmp_path):
    """One that is null in the only file that names it sets nothing."""
    base = study_of(tmp_path, splitters={"sets nothing": None})
    rows = load([base])[0].splitters
    assert rows["sets nothing"] == {}
    Path("over.yaml").write_text("splitters: {whitespace: null, three: {splitter: fixed}}")
    Path("on.yaml").write_text("base: grid.yaml\n" + Path("over.yaml").read_text())
    for files in ([base, Path("over.yaml")], [Path("on.yaml")]):
        assert load(files)[0].splitters == {k: of for k, of in rows.items() if k != "whitespace"} | {
            "three": {"splitter": "fixed"}
        }


def test_a_smaller_budget_branches_from_the_largest_and_equals_a_run_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs/mlflow.db")
    settings = {"model": {"optimizer": {"cooldown": 0.5}}, "trainer": {"deterministic": True}}
    path = study_of(tmp_path, languages=["en"], match={"budget": None, "budgets": [6e8, 2e9]}, settings=settings)
    study, _ = load([path])
    study.splitters = {"whitespace": GRID["splitters"]["whitespace"]}
    large, small = (Sizer(study).sized(cell) for cell in branched(study, cells(study, Fitter(study))))
    assert large.settings["run"]["keep_at"] == [pytest.approx(0.15)]
    assert small.cell.branch == (large.cell.name, large.settings["run"]["keep_at"][0])
    assert waits(small.cell.branch, large.files)
    for name, settings in (("large", large.settings), ("alone", merge(small.settings, {"run": {"folder": "alone"}}))):
        Path(f"{name}.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        assert main(["fit", "-c", f"{name}.yaml"]) == 0
    assert not waits(small.cell.branch, large.files)
    begins = beginning(small.cell.branch, large.files)
    Path("small.yaml").write_text(yaml.safe_dump(small.settings), encoding="utf-8")
    assert main(["fit", "-c", "small.yaml", "--ckpt_path", str(begins)]) == 0
    alone, branch = (torch.load(folder / "checkpoints/last.ckpt") for folder in (Path("alone"), small.folder))
    assert 0.3 * alone["global_step"] < torch.load(begins)["global_step"] <= 0.5 * alone["global_step"]
    assert branch["global_step"] == alone["global_step"]
    for name, weight in alone["state_dict"].items():
        assert torch.equal(weight, branch["state_dict"][name]), name
    assert small.files.last_metrics()["flops"] == CellFolder(Path("alone")).last_metrics()["flops"]
    release(small.cell.branch, large.files)
    assert begins.exists()  # the other run is not known to be done, and may continue from there
    large.files.done.touch()
    release(small.cell.branch, large.files)
    assert [path.resolve() for path in large.files.saved().values()] == [large.files.last.resolve()]
    assert not begins.exists()


@pytest.mark.parametrize("first", ["large", "small"])
def test_a_study_frees_the_checkpoints_of_branches_that_are_done(first, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "POLL", 0.01)
    settings = {"model": {"optimizer": {"cooldown": 0.5}}}
    path = study_of(tmp_path, languages=["en"], match={"budget": None, "budgets": [4e8, 1e8]}, settings=settings)
    study, _ = load([path])
    large, small = (Sizer(study).sized(cell) for cell in branched(study, cells(study, Fitter(study)))[::3])
    branch = small.cell.branch
    assert branch.cell == large.cell.name
    for step in (3, 9):
        large.files.checkpoints.mkdir(parents=True, exist_ok=True)
        large.files.step(step).touch()
    large.files.last.symlink_to(large.files.step(9).name)
    large.files.record_kept({branch.share: 3})

    class Ends:
        def start(self, cell, slot):
            cell.files.path.mkdir(parents=True, exist_ok=True)
            cell.files.done.write_text("{}")
            return SimpleNamespace(codes=[0], sentinels=[], stop=lambda: None, kill=lambda: None)

    order = [large, small] if first == "large" else [small, large]
    running._run_cells(Ends(), order[:1], study, print)
    assert {*large.files.saved()} == {3, 9}  # the other one may still need it
    running._run_cells(Ends(), order, study, print)
    assert {*large.files.saved()} == {9}


def test_a_study_that_may_fill_the_disk_is_warned_of(tmp_path, monkeypatch, capsys):
    study_of(tmp_path, languages=["en"], seeds=[1, 2])
    study, _ = load([Path("grid.yaml")])
    parameters = sum(Sizer(study).sized(cell).parameters for cell in cells(study, Fitter(study)))
    needed = 12 * parameters * 2  # the last and the best
    for free, expected in ((needed + 1, ""), (needed, f"the checkpoints of 6 cells take up to {needed / 1e9:.3g} GB")):
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        assert main(["compare", "-c", "grid.yaml", "--dry_run"]) == 0
        assert expected in (err := capsys.readouterr().err)
        assert bool(expected) == ("GB" in err)


def test_a_study_runs_in_pieces(tmp_path, monkeypatch, capsys):
    budgets = {"match": {"budget": None, "budgets": [4e8, 1e8]}}
    study_of(tmp_path, **budgets, settings={"model": {"optimizer": {"cooldown": 0.5}}})
    ran = []
    monkeypatch.setattr(running, "run_cells", lambda sized, *_: ran.extend(one.cell.name for one in sized))
    monkeypatch.setattr(compare, "_apart", lambda function, *arguments: function(*arguments))  # not in a new process
    patterns = ("--only", "th-whitespace-*1e+08", "--only", "*bpe*4e+08")
    assert main(["compare", "-c", "grid.yaml", *patterns]) == 0
    large, small = ("th-whitespace-2stages-seed1-4e+08", "th-whitespace-2stages-seed1-1e+08")
    # In the order of the patterns; the large one as the small one branches from it.
    assert ran == [large, small, "en-bpe-1stages-seed1-4e+08", "th-bpe-1stages-seed1-4e+08"]
    assert "0 of 12 cells are done" in capsys.readouterr().out
    assert main(["compare", "-c", "grid.yaml", "--only", "zh-*"]) == 1
    assert "--only zh-* is the name of no cell; they are called en-whitespace" in capsys.readouterr().err


def test_cells_with_kept_results_do_not_run(tmp_path, monkeypatch, capsys):
    budgets = {"match": {"budget": None, "budgets": [4e8, 1e8]}}
    path = study_of(tmp_path, languages=["en"], **budgets, settings={"model": {"optimizer": {"cooldown": 0.5}}})
    ran = []
    monkeypatch.setattr(running, "run_cells", lambda sized, *_: ran.extend(one.cell.name for one in sized))
    monkeypatch.setattr(compare, "_apart", lambda function, *arguments: function(*arguments))  # not in a new process
    study, _ = load([path])
    sized = {one.name: Sizer(study).sized(one) for one in cells(study, Fitter(study))}
    old, one = "en-bpe-1stages-seed1-1e+08", "en-whitespace-2stages-seed1-4e+08"
    results = replace(collect(study, [*sized.values()], "", ""), plan="Planned before.", commit="of before")
    done = [
        CellResult(
            name, "whitespace", "en", 2, 1, "done", budget=4e8, bpb=2.0, definition=definition, bytes_per_unit=[5]
        )
        for name, definition in ((one, sized[one].definition), (old, "of before"))
    ]
    write_results(replace(results, cells=done), tmp_path / "r.csv.xz")
    arguments = ("compare", "-c", "grid.yaml", "--only", "*whitespace*", "--results", "r.csv.xz")
    assert main([*arguments, "--only", "*bpe*1e+08"]) == 0
    told = capsys.readouterr()
    # The kept cell runs where another one branches from it.
    assert ran == [one, "en-whitespace-2stages-seed1-1e+08", "en-bpe-1stages-seed1-4e+08", old]
    assert "1 of 2 results in r.csv.xz are of other settings or text" in told.err
    assert "1 of 6 cells are done" in told.out
    kept = read_results(tmp_path / "r.csv.xz")
    assert [(cell.name, cell.bpb) for cell in kept.cells] == [(one, 2.0)]
    assert (kept.plan, kept.commit) == ("Planned before.", "of before")  # nothing ran here
    ran.clear()
    Path("other.yaml").write_text("study: other")
    shutil.copy("r.csv.xz", "other.csv.xz")
    other = "compare -c grid.yaml -c other.yaml --only *whitespace*4e+08 --results other.csv.xz"
    assert main(other.split()) == 0
    assert read_results(tmp_path / "other.csv.xz").cells[0].bpb == 2.0
    assert "No plan was written" in read_results(tmp_path / "other.csv.xz").plan
    assert main(["compare", "-c", "grid.yaml", "--only", "*whitespace*4e+08", "--results", "r.csv.xz"]) == 0
    assert ran == []
    assert main(["compare", "--results", "r.csv.xz", "--out", "again"]) == 0
    assert "Planned before." in Path("again/report.md").read_text(encoding="utf-8")
    assert main(["compare", "--results", "r.csv.xz", "--out", "again", "--reference", "whitespace"]) == 0
    assert "to whitespace (ref)" in Path("again/report.md").read_text(encoding="utf-8")
    assert main(["compare", "--results", "r.csv.xz", "--out", "again", "--reference", "fixed"]) == 1
    assert "--reference fixed is not a row of r.csv.xz: choose one of whitespace" in capsys.readouterr().err
    Path("r.csv.xz").write_bytes(lzma.compress(b"a,b"))
    assert main([*arguments]) == 1
    assert "r.csv.xz is not a file of results that aunet compare --results wrote" in capsys.readouterr().err


def test_a_plan_is_written_first_and_changes_after_it_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(timing, "MINUTE", 1.5)
    monkeypatch.setattr(timing, "LEAST", 0.5)
    one = {"whitespace": GRID["splitters"]["whitespace"]}
    given = {**GRID, "splitters": one, "languages": ["en"], "seeds": [1, 2], "question": "Which?", "reference": None}
    Path("grid.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    assert main(["compare", "-c", "grid.yaml", "--plan"]) == 0
    plan = Path("runs/tiny/plan.md").read_text()
    assert "before any cell had begun" in plan
    assert "2 cells: 1 rows (whitespace); languages en; seeds 1, 2; flops 4e+08." in plan
    steps = Sizer(load([Path("grid.yaml")])[0]).sized(cells(load([Path("grid.yaml")])[0], None)[0]).steps
    assert f"A step spends {100 / steps:.2g} %" in plan
    assert not Path("runs/tiny/cells").exists()
    assert re.search(r"About [\d.]+ hours on", plan)
    assert main(["compare", "-c", "grid.yaml", "--plan", "--only", "*-seed2"]) == 0
    assert "hours for the 1 of 2 cells that are still to be run on" in Path("runs/tiny/plan.md").read_text()
    files, text = StudyFolder(Path("runs/tiny")), Path("grid.yaml").read_text()
    assert told(files, text).endswith("before any cell had begun. Nothing was changed after.")
    other = yaml.safe_dump(given | {"seeds": [1], "jobs": 2}, sort_keys=False)
    assert told(files, other).endswith("Changed after: seeds: [1, 2] → [1].")
    capsys.readouterr()


def test_each_row_has_its_best_learning_rate_unless_it_is_at_the_edge(tmp_path):
    tune = {"multiples": [0.5, 1, 2], "languages": ["th"]}
    study, _ = load([study_of(tmp_path, tune=tune, match={"budget": None, "budgets": [1e8, 4e8]})])
    found = branched(study, cells(study, Fitter(study)))
    search = [Sizer(study).sized(cell) for cell in trials(study, found)]
    assert len({one.cell.name for one in search}) == len(search) == 3 * 3
    for one in search:
        data = one.settings["data"]
        assert (data["val_files"], data["holdout_every"], one.cell.budget) == (None, 10, 1e8)
        assert one.settings["model"]["optimizer"]["matrix_lr"] == 0.02 * one.cell.multiple
        assert {*one.settings["data"]["train_files"]} == {str(UDHR / "th.jsonl")}

    def measured(best):
        for one in search:
            one.files.path.mkdir(parents=True, exist_ok=True)
            bpb = abs(one.cell.multiple - best[one.cell.splitter])
            one.files.metrics.write_text(json.dumps({"step": 1, "metrics": {"val/bpb": bpb}}) + "\n")
            one.files.done.write_text("{}")
        return tuned(search)

    with pytest.raises(UserError, match=r"of bpe the best learning rate is 2 times its own, .*may be too low"):
        at_best(found, measured({"whitespace": 1, "router": 1, "bpe": 2}))
    rows = measured({"whitespace": 1, "router": 1.1, "bpe": 0.9})
    best = at_best(found, rows)
    told = as_markdown(collect(study, [], "", "", rows))
    assert re.search(
        r"\| splitter \| × 0.5 \| × 1 \| × 2 \|.*\| router \| 0.600 \| \*\*0.100\*\* \| 0.900 \|", told, re.DOTALL
    )
    assert {cell.settings["model"]["optimizer"]["lr"] for cell in best} == {OptimizerConfig.lr}
    search[0].files.done.unlink()
    with pytest.raises(UserError, match=r"the search for whitespace has cells without a result"):
        at_best(found, tuned(search))


def test_later_settings_win_key_by_key_and_a_splitter_as_a_whole():
    base = {"a": {"b": 1, "c": [1, 2]}, "splitter": {"name": "fixed", "n": 3}}
    over = {"a": {"c": [3]}, "splitter": {"name": "router"}}
    assert merge(base, over) == {"a": {"b": 1, "c": [3]}, "splitter": {"name": "router"}}
    assert base["a"] == {"b": 1, "c": [1, 2]}


def test_the_grid_is_every_combination_and_models_of_one_stage_once(tmp_path):
    three = [*GRID["settings"]["model"]["net"]["stages"], {"dim": 24, "layers": 1, "head_dim": 8}]
    upper = {"upper_splitters": [{"name": "every", "n": 2}], "model": {"net": {"stages": three}}}
    study, _ = load(
        [study_of(tmp_path, seeds=[1, 2], stages={2: {}, 3: upper}, languages={"en": None, "en+th": ["en", "th"]})]
    )
    found = cells(study, Fitter(study))
    assert len({cell.name for cell in found}) == len(found) == 2 * 2 * (2 * 2 + 1)
    assert {cell.stages for cell in found if cell.splitter == "bpe"} == {1}
    mixed = next(cell for cell in found if cell.language == "en+th" and cell.stages == 3)
    assert [Path(path).stem for path in mixed.settings["data"]["train_files"]] == ["en", "th"]
    assert mixed.settings["upper_splitters"] == upper["upper_splitters"]
    assert [cell.seed for cell in found] == sorted(cell.seed for cell in found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"splitter": {}}, "splitter is not a key of a study"),
        ({"match": {"by": "watts"}}, "match.by is 'watts': choose one of flops, bytes, seconds"),
        ({"match": {"budget": -1}}, "match.budget is -1.0"),
        ({"match": {"budgets": [1e9]}}, "match has both budget and budgets"),
        ({"match": {"budget": None}}, "match has no budget"),
        ({"tune": {"multiples": [1, 2]}}, "tune.multiples is .1.0, 2.0., it must have three or more"),
        ({"tune": {"seed": 1}}, "tune.seed is 1, a seed of the study"),
        ({"tune": {"languages": ["ja"]}}, "tune.languages: 'ja' is not a language of the study"),
        ({"factors": {"align": ["last"]}}, "factors.align is .'last'., it must be a list of two"),
        ({"match": {"budget": "many"}}, "'many' is not a number"),
        ({"match": {"adjust": "trunk_layers"}}, "needs by: flops and match.bytes"),
        ({"match": {"flop": 1}}, "match: .*flop"),
        ({"reference": "bpp"}, "reference is 'bpp': choose one of whitespace, router, bpe"),
        ({"evaluate": ["spel"]}, "evaluate has 'spel': choose of minimal_pairs, spelling, parts, robustness, or name"),
        ({"evaluate": ["my.module:Gone"]}, "my.module:Gone', which cannot be imported"),
        ({"evaluate_items": 0}, "evaluate_items is 0, it must be 1 or more"),
        ({"evaluate_kilobytes": 0}, "evaluate_kilobytes is 0, it must be above 0"),
        ({"languages": []}, "languages is empty"),
        ({"text": {"test": "x"}}, "text has train, val, test"),
        ({"text": {"train": "nowhere/{language}.jsonl"}}, "there is no nowhere/en.jsonl"),
        ({"jobs": 0}, "jobs is 0"),
        ({"gpus_per_cell": 3}, r"batch_rows is 8: it must be a multiple of the devices of a cell \(3\)"),
        ({"settings": {"trainer": {"devices": "auto"}}}, "devices is 'auto'"),
        ({"languages": [False]}, "False is not a name"),
        ({"other_text": {"novel": "novels/{language}.txt"}}, "novels/{language}.txt names no file in any language"),
        (
            {
                "languages": {"en": ["en"], "en-x": ["th"]},
                "splitters": {"x-a": {"splitter": "whitespace"}, "a": {"splitter": "fixed"}},
            },
            "rename one",
        ),
        ({"splitters": {"a/b": {"splitter": "whitespace"}}}, "'a/b' also names folders"),
        ({"stages": {3: {}}}, "model.net.stages has 2 stages"),
        ({"splitters": {"x": {"splitter": "whitespac"}}}, "Did you mean 'whitespace'"),
        ({"splitters": {"x": {"splitter": "whitespace", "tokenizer": {"vocab_size": 300}}}}, "splitter must be null"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_before_anything_runs(tmp_path, change, words):
    path = study_of(tmp_path, **change)

    def sized():
        study, _ = load([path])
        sizer = Sizer(study)
        found = cells(study, Fitter(study))
        return [sizer.sized(cell) for cell in [*trials(study, found), *found]]

    with pytest.raises(UserError, match=words):
        sized()


@pytest.mark.parametrize("adjust", ["trunk_layers", "trunk_dim"])
def test_a_trunk_is_fitted_to_the_wanted_cost(tmp_path, adjust):
    """The nearest of all that there are, by trying them."""
    budget, n_bytes = 2e10, 1e5
    study, _ = load(
        [study_of(tmp_path, languages=["en"], match={"budget": budget, "bytes": n_bytes, "adjust": adjust})]
    )
    for cell in cells(study, Fitter(study)):
        chosen = Sizer(study).sized(cell)
        trunk = chosen.settings["model"]["net"]["stages"][-1]
        field, each = ("layers", 1) if adjust == "trunk_layers" else ("dim", 8)
        off = {}
        for other in range(max(trunk[field] - 2 * each, each), trunk[field] + 3 * each, each):
            stages = [
                *cell.settings["model"]["net"]["stages"][:-1],
                cell.settings["model"]["net"]["stages"][-1] | {field: other},
            ]
            plain, _ = load([study_of(tmp_path, languages=["en"])])
            priced = Sizer(plain).sized(
                cell.__class__(
                    **{**vars(cell), "settings": merge(cell.settings, {"model": {"net": {"stages": stages}}})}
                )
            )
            off[other] = abs(priced.flops_per_byte - budget / n_bytes)
        assert min(off, key=off.get) == trunk[field]
        assert chosen.settings["model"]["budget"] == {"flops": budget}


def test_the_learning_rate_ends_with_the_budget():
    """Where every step costs the same, as it does with so many steps."""
    config, budget = OptimizerConfig(lr=1.0, warmup_steps=5), BudgetConfig(flops=1000.0)
    for step in range(1, 50):
        progress = budget.progress(Spent(flops=20.0 * step))
        assert config.lr_factor(step, step / progress) == pytest.approx(config.lr_factor(step, 50))
    with pytest.raises(ValueError, match="flops and bytes are given: name only one"):
        BudgetConfig(flops=1.0, bytes=1.0)
    with pytest.raises(ValueError, match=r"budget.seconds is 0, it must be above 0"):
        BudgetConfig(seconds=0)


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["flops", "bytes", "seconds"])
def test_a_run_spends_its_budget_and_no_more(tmp_path, measure, capsys, monkeypatch):
    monkeypatch.setenv(
        "MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs/mlflow.db"
    )  # a store is kept open by its name
    study, _ = load(
        [
            study_of(
                tmp_path,
                languages=["en"],
                match={"by": measure, "budget": 5 if measure == "seconds" else 3e9 if measure == "flops" else 3e4},
            )
        ]
    )
    sized = Sizer(study).sized(cells(study, Fitter(study))[0])
    Path("settings.yaml").write_text(yaml.safe_dump(sized.settings), encoding="utf-8")
    assert main(["fit", "-c", "settings.yaml"]) == 0
    logged = [json.loads(line)["metrics"] for line in (sized.folder / "metrics.jsonl").open()]
    name = {"flops": "flops", "bytes": "bytes_seen", "seconds": "perf/training_seconds"}[measure]
    spent = [metrics[name] for metrics in logged if "train/bpb" in metrics]
    assert spent == sorted(spent)
    assert spent[-2] < study.match.budget
    assert spent[-1] >= study.match.budget or measure == "seconds"  # the last step's own seconds are known after it
    assert "val/bpb" in logged[-1] or "val/bpb" in logged[-2]
    rates = [metrics["train/lr"] for metrics in logged if "train/lr" in metrics]
    assert rates[-1] < 0.35 * max(rates)
    capsys.readouterr()
    assert main(["fit", "-c", "settings.yaml"]) == 0
    assert "nothing was left to train" in capsys.readouterr().out
    if measure == "flops":
        predicted = sized.flops_per_byte
        assert spent[-1] / [metrics["bytes_seen"] for metrics in logged if "bytes_seen" in metrics][
            -1
        ] == pytest.approx(predicted, rel=0.1)


def compare_process(*arguments):
    command = [sys.executable, "-m", "aunet_lightning.cli.main", "compare", "-c", "grid.yaml", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def alive_in(folder):
    """Processes whose working directory is `folder`."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                if Path(os.readlink(process / "cwd")) == folder:
                    found.append(int(process.name))
            except OSError:
                continue
    return found


@pytest.mark.slow
def test_the_server_rehearses_a_cell_of_each_kind(tmp_path, capsys):
    from aunet_lightning.cli.server import rehearse

    study, _ = load([study_of(tmp_path, seeds=[1, 2])])
    some = [Sizer(study).sized(cell) for cell in cells(study, Fitter(study))[:2]]
    assert [one.cell.name for one in kinds([some[0], *some])] == [one.cell.name for one in kinds(some)]
    folder = tmp_path / "rehearsed"
    folder.mkdir()
    (folder / "a.yaml").write_text(yaml.safe_dump(some[0].settings | {"splitter": "cjk_character"}), encoding="utf-8")
    (folder / "b.yaml").write_text("splitter: nope", encoding="utf-8")  # an error is the cell's to report
    byte_classes.cache_clear()
    capsys.readouterr()
    rehearse(folder)
    assert byte_classes.cache_info().currsize > 0
    assert capsys.readouterr() == ("", "")
    assert not some[0].folder.exists()


def test_a_run_killed_at_its_last_validation_has_it_after_all(tmp_path, monkeypatch):
    """The checkpoint of the last step comes after it, so that the step and it are done again."""
    from aunet_lightning.training.module import AUNetModule

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs/mlflow.db")
    study, _ = load([study_of(tmp_path, languages=["en"], settings={"run": {"checkpoint_every": 1}})])
    sized = Sizer(study).sized(cells(study, Fitter(study))[0])
    Path("settings.yaml").write_text(yaml.safe_dump(sized.settings), encoding="utf-8")
    measure = AUNetModule._finish

    def killed(self, part):
        if self.budget.progress(self.spent) >= 1:
            raise KeyboardInterrupt
        measure(self, part)

    with monkeypatch.context() as patched:
        patched.setattr(AUNetModule, "_finish", killed)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            main(["fit", "-c", "settings.yaml"])
    assert main(["fit", "-c", "settings.yaml"]) == 0
    points = [json.loads(line) for line in (sized.folder / "metrics.jsonl").open()]
    trained = max(point["step"] for point in points if "train/bpb" in point["metrics"])
    assert max(point["step"] for point in points if "val/bpb" in point["metrics"]) >= trained
    # A study reads the same from the folder: the bits of the documents of that validation, which add up to its BPB.
    sized.files.done.write_text("{}", encoding="utf-8")
    (cell,) = collect(study, [sized], "", "").cells
    steps = {point["step"]: point["metrics"]["train/bpb"] for point in points if "train/bpb" in point["metrics"]}
    for before, now in itertools.pairwise([Point(-1, 0, 0, 0), *cell.curve]):
        since = [bpb for step, bpb in steps.items() if before.step < step <= now.step]
        assert now.training_bpb == pytest.approx(np.mean(since) if since else math.nan, nan_ok=True)
    lines = list(map(json.loads, sized.files.documents.read_text(encoding="utf-8").splitlines()))
    data = ByteDataModule(**sized.settings["data"], splitter="whitespace", upper_splitters=[])
    data.setup()
    assert [line["bytes"] for line in lines] == [len(text) for _, text in data.texts("val")]
    assert cell.document_bits.bytes.tolist() == [line["bytes"] for line in lines]
    assert cell.document_bits.bits.sum() / cell.document_bits.bytes.sum() == pytest.approx(cell.bpb, abs=1e-6)
    sized.files.documents.write_text("".join(json.dumps(line | {"bits": line["bits"] + 1}) + "\n" for line in lines))
    assert collect(study, [sized], "", "").cells[0].document_bits is None  # of another validation


def test_a_signal_in_the_last_validation_waits_for_it(tmp_path, monkeypatch):
    from aunet_lightning.training.module import AUNetModule

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs/mlflow.db")
    study, _ = load([study_of(tmp_path, languages=["en"])])
    sized = Sizer(study).sized(cells(study, Fitter(study))[0])
    Path("settings.yaml").write_text(yaml.safe_dump(sized.settings), encoding="utf-8")
    step = AUNetModule.validation_step

    def signalled(self, *arguments):
        if self.budget.progress(self.spent) >= 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(AUNetModule, "validation_step", signalled)
        assert main(["fit", "-c", "settings.yaml"]) == 0
    points = [*sized.files.points()]
    trained = max(step for step, metrics in points if "train/bpb" in metrics)
    assert max(step for step, metrics in points if "val/bpb" in metrics) >= trained
    sized.files.done.write_text("{}", encoding="utf-8")
    (cell,) = collect(study, [sized], "", "").cells
    assert cell.status == "done"
    sized.files.metrics.write_text('{"step": 1, "metrics": {"train/bpb": 2.0}}\n')  # as an older version left it
    (cell,) = collect(study, [sized], "", "").cells
    assert (cell.status, cell.error[:23]) == ("failed", "it has no validation: d")


def check_study_in_mlflow(tmp_path):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id], "tags.study = 'tiny'")
    cell_runs = [run for run in runs if "splitter" in run.data.tags]
    assert {run.data.tags["splitter"] for run in cell_runs} >= {"whitespace", "router", "bpe"}
    assert not any("mlflow.parentRunId" in run.data.tags for run in runs)  # flat: the UI hides nested ones
    one = next(run for run in cell_runs if run.data.tags["splitter"] == "bpe")
    assert {"language": "en", "stages": "1", "match": "flops 4e+08", "seed": "1"}.items() <= one.data.tags.items()
    assert {"val/bpb", "best/val_bpb", "bytes_seen", "flops"} <= one.data.metrics.keys()
    given = {
        "splitter": "bpe-vocab_size300",
        "widths": "16",
        "model.optimizer.warmup_steps": "3",
        "data.row_bytes": None,
    }
    assert {key: one.data.params.get(key) for key in given} == given  # what differs from the defaults, and no more
    assert one.data.params["row_bytes"] == "128"
    assert {"eval/minimal_pairs_en", "eval/spelling_en", "eval/robustness_upper_en"} <= one.data.metrics.keys()
    assert "eval/spell_en" not in one.data.metrics  # a chart for each group, and a table of all tasks
    assert "evaluation/tasks.csv" in {file.path for file in client.list_artifacts(one.info.run_id, "evaluation")}
    summary = next(run for run in runs if run.data.tags.get("kind") == "summary")
    assert {"report.html", "table.csv", "grid.yaml"} <= {
        file.path for file in client.list_artifacts(summary.info.run_id)
    }
    assert "val/bpb" in experiment.tags["mlflow.note.content"]


def check_evaluations(folder, rows):
    """What each cell was asked, counted here a second time from its files, is in both forms of the report."""
    study, _ = load([Path("grid.yaml")])
    done = [one for one in (Sizer(study).sized(cell) for cell in cells(study, Fitter(study))) if one.is_done]
    assert {one.cell.splitter for one in done} == rows
    tables = (folder / "report.md").read_text().partition("## What the models know")[2].split("\n### ")[1:]
    tables = {title: text for title, _, text in (table.partition("\n") for table in tables)}
    page = (folder / "report.html").read_text()
    for one in done:
        files, row = one.files, rf"\| {one.cell.splitter} \| \**"
        lines = list(map(json.loads, files.answers.read_text().splitlines()[1:]))
        for group, title in (("minimal_pairs", "Minimal pairs"), ("spelling", "Spelling and edits")):
            right = [line["right"] for line in lines if TASKS.get(line["task"]).group == group]
            assert len(right) == study.evaluate_items * len(
                {line["task"] for line in lines if TASKS.get(line["task"]).group == group}
            )
            share = f"{np.mean(right):.1%}"
            assert re.search(row + share, tables[title]), title
            assert share in page
            assert files.last_metrics()[f"eval/{group}_en"] == pytest.approx(np.mean(right))
        lines = [json.loads(line) for line in files.robustness.read_text().splitlines()[1:]]
        upper = [(line["bits"], line["bytes"]) for line in lines if line["change"] == "upper"]
        assert 0 < sum(n for _, n in upper) <= 1000 * study.evaluate_kilobytes
        bpb = f"{np.divide(*np.sum(upper, 0)):.3f}"
        assert re.search(row + bpb, tables["BPB where text is changed: upper"])
        assert bpb in page


@pytest.mark.slow
def test_a_study_is_killed_continued_and_told(tmp_path, capsys):
    broken = {"splitter": "whitespace", "trainer": {"devicez": 3}}
    sharded = {"splitter": "whitespace", "trainer": {"devices": 2, "strategy": "fsdp2"}}
    parallel = {"parallel": str(UDHR / "{language}.jsonl")}
    asked = {"evaluate": ["minimal_pairs", "spelling", "robustness"], "evaluate_items": 3, "evaluate_kilobytes": 2}
    asked["other_text"] = {"declaration": str(UDHR / "{language}.jsonl")}
    rows = {"broken": broken, "sharded": sharded}
    study_of(tmp_path, languages=["en"], splitters=rows, text=parallel, jobs=2, **asked)
    process, whitespace = compare_process(), tmp_path / "runs/tiny/cells/en-whitespace-2stages-seed1"
    for _ in range(1200):
        if (whitespace / "cell.json").exists():
            break
        time.sleep(0.1)
        assert process.poll() is None, process.stdout.read()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(300):
        if not alive_in(tmp_path):
            break
        time.sleep(0.1)
    assert alive_in(tmp_path) == []  # cells end with their study
    finished = (whitespace / "cell.json").stat().st_mtime_ns

    again = compare_process()
    told, _ = again.communicate(timeout=300)
    assert again.returncode == 1, told
    assert "4 of 5 cells are done, 1 failed" in told
    assert "en-broken-2stages-seed1" in told
    assert "devicez" in told
    assert (whitespace / "cell.json").stat().st_mtime_ns == finished
    # Two processes, with checkpoints in folders, find what one does.
    both = [whitespace, whitespace.with_name("en-sharded-2stages-seed1")]
    assert [(folder / "checkpoints" / "last.ckpt").is_dir() for folder in both] == [False, True]
    one, two = (CellFolder(folder).last_metrics()["val/bpb"] for folder in both)
    assert two == pytest.approx(one, rel=1e-5)
    one, two = ([json.loads(line)["bits"] for line in (folder / "predictions.jsonl").open()] for folder in both)
    assert two == pytest.approx(one, rel=1e-4)
    for folder in (tmp_path / "runs/tiny/cells").iterdir():
        if (folder / "cell.json").exists():
            points = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
            seen = [(point["step"], key) for point in points for key in point["metrics"]]
            assert len(seen) == len(set(seen))
    page = (tmp_path / "runs/tiny/report.html").read_text()
    assert "devicez" in page
    assert "BPB of text of another kind: declaration" in page
    for folder in both:  # here it is the validation text, which is read in other rows
        metrics = CellFolder(folder).last_metrics()
        lines = [json.loads(line) for line in (folder / "other-declaration.jsonl").open()]
        assert len(lines) == 31
        bpb = sum(line["bits"] for line in lines) / sum(line["bytes"] for line in lines)
        assert bpb == pytest.approx(metrics["val/bpb"], rel=0.02)
    check_evaluations(tmp_path / "runs/tiny", {"whitespace", "router", "bpe", "sharded"})
    check_study_in_mlflow(tmp_path)

    study_of(tmp_path, languages=["en"], settings={"model": {"optimizer": {"lr": 0.5}}})
    assert main(["compare", "-c", "grid.yaml", "--dry_run"]) == 1
    told = capsys.readouterr().err
    assert "model.optimizer.lr (there 0.002, here 0.5)" in told
    assert "another name" in told


@pytest.mark.parametrize("path", sorted(COMPARE.glob("*.yaml")), ids=lambda path: path.stem)
def test_ready_studies_are_understood(path, tmp_path):
    """On the shipped text, in place of their own."""
    text = {"train": str(UDHR / "{language}.jsonl"), "val": str(UDHR / "{language}.jsonl")}
    text = {"text": text | {"parallel": text["val"]}, "other_text": dict.fromkeys(("udhr", "narrative"), text["val"])}
    Path("text.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
    study, _ = load([path, Path("text.yaml")])
    study.fit = [str(ROOT / file) for file in study.fit]
    study.languages = {name: of for name, of in study.languages.items() if name == study_language(study)}
    found = cells(study, Fitter(study))
    rows = {
        "answer-short": ("cjk_character", "trie 6 B", "bpe 3 B"),
        "answer": ("whitespace", "fixed 6 B", "router 9 B"),
        "answer-hours": ("whitespace", "fixed 4.5 B", "router 9 B"),
        "answer-narrative": ("whitespace", "fixed 4.5 B", "router 9 B"),
        "answer-longer": ("whitespace", "fixed 9 B", "fixed 40 B"),
        "controls": ("script_aware", "flat bytes", "bpe 1024"),
        "recipe": ("none", "conv + muon", "all"),
        "mark": ("script_aware 8 bytes", "bpe 16384"),
        "mark-thai": ("cjk_character", "trie 6 B"),
        "mark-reach": ("14 bytes reach 36", "bpe 4096"),
        "router-losses": ("fixed", "router by language", "router one_sided"),
        "spelling": ("script_aware", "bpe 4096"),
        "reading": ("whitespace refreshed", "script_aware of 2 closes full align first"),
    }
    named = rows.get(path.stem) or rows.get(path.stem.partition("-")[0]) or ("whitespace", "bpe")
    assert {*named} <= {cell.splitter for cell in found}
    sizer = Sizer(study)
    first = {
        cell.splitter: cell for cell in found if cell.seed == study.seeds[0] and cell.language == study_language(study)
    }
    for cell in first.values():
        sized = sizer.sized(cell)
        assert sized.flops_per_byte > 0
        assert sized.steps is None or sized.steps > 50


def study_language(study):
    return next(iter(study.languages))
