"""What a checkpoint records: written and read back, compared field by field, and read from an older version's file."""

import copy
import json
import lzma
import shutil
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch
import yaml

from aunet_lightning.checkpoints.contents import EXPORTED, IN_OPTIMIZER_STATE, IN_TRAINING, Contents, missing_keys
from aunet_lightning.checkpoints.forms import export, read, read_metadata
from aunet_lightning.checkpoints.load import load
from aunet_lightning.cli.main import main
from aunet_lightning.errors import UserError
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.model.config import AUNetConfig
from aunet_lightning.reader.bpe import train_bpe
from aunet_lightning.reader.reader import ByteReader, TokenReader
from aunet_lightning.reader.tokens import Tokenizer
from aunet_lightning.tracking.run_folder import RunConfig, RunFolder
from aunet_lightning.training.checkpointing import Checkpointing
from aunet_lightning.training.optimizer import OptimizerConfig
from splitters import Stack
from tests.helpers import ROOT, TINY, place_store, points, sentences, tiny, write

RULES = ["whitespace", {"name": "every", "n": 2}]
PACKING = {"data.row_bytes": 64, "data.batch_rows": 2}
OPTIMIZER = asdict(OptimizerConfig(stage_lr=[1.0, 2.0, 3.0]))
CONTENTS = Contents(
    net=tiny(3),
    splitters=RULES,
    fingerprint=Stack(RULES).fingerprint(),
    tokenizer=train_bpe([b"one two one two"], 260),
    documents={"train": "a", "val": "b"},
    packing=PACKING,
    row_ids=32,
    spent={"flops": 1.0, "bytes": 2.0, "seconds": 3.0},
    skipped=4,
    optimizer=OPTIMIZER,
    global_step=5,
    continues=True,
)
BESIDE = {"splitters", "boundaries", "tokenizer", "data", "packing", "row_ids", "spent", "skipped"}


def checkpoint_of(contents):
    """A checkpoint as Lightning has it: its own keys, and those that the contents add."""
    settings = {"net": asdict(contents.net), "optimizer": dict(contents.optimizer)}
    mine = {
        "hyper_parameters": settings,
        "global_step": contents.global_step,
        "loops": {} if contents.continues else None,
    }
    return mine | contents.as_dict()


def test_contents_are_what_was_written(tmp_path):
    assert all(getattr(CONTENTS, field.name) != field.default for field in fields(Contents))  # no default hides a loss
    assert CONTENTS.as_dict().keys() == BESIDE
    torch.save(checkpoint_of(CONTENTS), tmp_path / "a.ckpt")
    assert Contents.from_dict(read_metadata(tmp_path / "a.ckpt")) == CONTENTS


def test_older_checkpoints_lack_some():
    older = {key: value for key, value in checkpoint_of(CONTENTS).items() if key not in BESIDE - {"splitters"}}
    contents = Contents.from_dict(older)
    assert contents == Contents(tiny(3), RULES, optimizer=OPTIMIZER, global_step=5, continues=True)
    contents.check_documents({"train": "other"})  # it does not say which it read
    contents.check_continued(OPTIMIZER, PACKING)
    contents.check_boundaries(Stack(["whitespace"]))


def test_an_export_has_weights_alone(tmp_path):
    checkpoint = checkpoint_of(CONTENTS) | {"state_dict": {"net.a": torch.ones(3)}, "pytorch-lightning_version": "2"}
    torch.save(checkpoint, tmp_path / "a.ckpt")
    assert export(tmp_path / "a.ckpt", tmp_path / "a.safetensors") == 3
    exported = read(tmp_path / "a.safetensors")
    expected = {key: checkpoint[key] for key in EXPORTED}
    assert {key: exported[key] for key in EXPORTED} == json.loads(json.dumps(expected))
    contents = Contents.from_dict(exported)
    assert not contents.continues
    assert (contents.net, contents.splitters, contents.tokenizer) == (tiny(3), RULES, CONTENTS.tokenizer)
    contents.check_documents({"train": "other"})
    contents.check_continued(OPTIMIZER | {"lr": 1.0}, PACKING | {"data.batch_rows": 9})
    contents.check_length(Path("a"), 1)


def test_missing_keys_are_named():
    whole = checkpoint_of(CONTENTS)
    assert missing_keys(whole) == []
    for key in ("hyper_parameters", "splitters"):
        assert missing_keys({name: value for name, value in whole.items() if name != key}) == [key]
    assert missing_keys(whole | {"hyper_parameters": {}}) == ["hyper_parameters.net"]


OTHER = {"upsampling": "repeat", "embedding": "aunet_lightning.model.embedding:ByteEmbedding", "offsets": "modulo", "document_masking": False, "vocabulary": 300, "max_offset": 8,
         "rope_theta": 1e4, "norm_eps": 1e-6, "ffn_multiple_of": 8, "ffn_multiplier": 1.3, "round_units_to": 1,
         "ngrams": [3], "ngram_rows": 9, "qk_norm": True,
         "residual_init": 0, "dropout": 0.1, "ngram_dropout": 0.1}  # fmt: skip


@pytest.mark.parametrize("name", [field.name for field in fields(AUNetConfig)])
def test_every_difference_of_a_network_is_named(name):
    there = asdict(tiny(1))
    here = copy.deepcopy(there)
    if name == "stages":
        here["stages"][0]["window"] = 99
    else:
        here[name] = OTHER[name]
    contents = replace(CONTENTS, net=AUNetConfig(**there))
    contents.check_network(AUNetConfig(**there))
    if name in IN_TRAINING:
        contents.check_network(AUNetConfig(**here))
        return
    with pytest.raises(UserError, match=rf"network differs in {name} \(there .*, here .*\)\. Use the config"):
        contents.check_network(AUNetConfig(**here))


@pytest.mark.parametrize("name", [*IN_OPTIMIZER_STATE, *PACKING])
def test_every_setting_that_training_continues_with_is_named(name):
    other = {"betas": (0.8, 0.9), "stage_lr": [1.0, 1.0, 1.0]}.get(name, 3)
    optimizer, packing = (
        {key: other if key == name else value for key, value in of.items()} for of in (OPTIMIZER, PACKING)
    )
    listed = {key: list(value) if isinstance(value, tuple) else value for key, value in OPTIMIZER.items()}
    CONTENTS.check_continued(listed, PACKING)
    with pytest.raises(
        UserError, match=rf"other settings.* own: (model\.optimizer\.)?{name} \(there [^;]*\)\. Give the"
    ):
        CONTENTS.check_continued(optimizer, packing)
    replace(CONTENTS, continues=False).check_continued(optimizer, packing)


def test_other_documents_are_refused():
    CONTENTS.check_documents(CONTENTS.documents)
    CONTENTS.check_documents({"val": "other"})
    with pytest.raises(UserError, match=r"data\.train_files are not those the checkpoint was trained on"):
        CONTENTS.check_documents({"train": "other"})


def test_a_checkpoint_from_after_the_end_is_refused():
    CONTENTS.check_length(Path("a"), 5)
    CONTENTS.check_length(Path("a"), -1)
    with pytest.raises(UserError, match=r"max_steps is 4, but a is of step 5"):
        CONTENTS.check_length(Path("a"), 4)


def test_best_is_the_lowest_that_is_there(tmp_path):
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    for step in (2, 4, 6, 8):
        folder.step(step).touch()
    saving = Checkpointing(folder, RunConfig(keep_last=1, keep_best=2))
    saving.scores = {1: 0.5, 2: 3.0, 4: 1.0, 6: 2.0}  # that of step 1 is gone
    saving._point(prune=True)
    assert folder.best.resolve() == folder.step(4)
    assert folder.last.resolve() == folder.step(8)
    assert sorted(folder.saved()) == [4, 8]


def test_another_way_of_reading_is_refused_or_told():
    tokens, reader = TokenReader(Tokenizer(CONTENTS.tokenizer)), ByteReader(RULES)
    assert replace(CONTENTS, splitters=[], fingerprint=None).check_reader(tokens) is None
    assert CONTENTS.check_reader(reader) is None
    warning = CONTENTS.check_reader(ByteReader(["whitespace"]))
    assert warning.endswith(f"with splitters {RULES}, and is used with ['whitespace']")
    with pytest.raises(UserError, match=r"splitters .*router.* learned splitter is part of the network"):
        CONTENTS.check_reader(ByteReader(["router"]))
    with pytest.raises(UserError, match=r"learned splitter is part of the network"):
        replace(CONTENTS, splitters=["router"]).check_reader(reader)
    with pytest.raises(UserError, match=r"splitter: .* no longer places the boundaries"):
        replace(CONTENTS, fingerprint="other").check_reader(reader)
    for other in (train_bpe([b"three four three four"], 260), None):
        with pytest.raises(UserError, match=r"tokenizer: .* another vocabulary"):
            replace(CONTENTS, tokenizer=other, splitters=[], fingerprint=None).check_reader(tokens)


@pytest.mark.slow
def test_a_checkpoint_is_loaded_without_lightning():
    code = (
        "import sys, aunet_lightning.checkpoints.load\n"
        "print([name for name in ('lightning', 'mlflow', 'jsonargparse') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "[]\n"


# A run folder after 6 steps on `sentences(1)`, by commit 917e473: no digests of documents, no packing.
OLD = Path(__file__).parent / "checkpoints" / "917e473"
OLD_BPB = [8.223602294921875, 8.170561790466309, 8.040935516357422]  # of steps 7 to 9, as that commit continues


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "run" / "checkpoints" / "step-00000006.ckpt"
    path.parent.mkdir(parents=True)
    shutil.copy(OLD / "config.yaml", tmp_path / "run")
    path.write_bytes(lzma.decompress((OLD / f"{path.name}.xz").read_bytes()))
    return path


def test_an_older_checkpoint_loads(old):
    contents = Contents.from_dict(read_metadata(old))
    assert (contents.global_step, contents.continues, contents.splitters) == (6, True, ["whitespace"])
    assert (contents.documents, contents.packing, contents.spent["bytes"]) == ({}, {}, 748)
    net, reader = load(old)
    assert isinstance(net, AUNet)
    assert (reader.stack.fingerprint(), reader.tokenizer) == (contents.fingerprint, None)


@pytest.mark.slow
def test_an_older_run_continues(old, tmp_path, monkeypatch, store_template):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place_store(store_template, tmp_path / "runs" / "mlflow.db"))
    monkeypatch.setenv("AUNET_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "en.jsonl", sentences(1))
    stages = [{"dim": 8, "layers": 1, "head_dim": 8, "window": 16}, {"dim": 8, "layers": 1, "head_dim": 8}]
    settings = TINY | {"model": TINY["model"] | {"net": {"stages": stages}}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert main(["fit", "-c", "tiny.yaml", "--run.folder", "run", "--trainer.max_steps", "9"]) == 0
    logged = points(tmp_path / "run")
    assert [logged[step, "train/bpb"] for step in (6, 7, 8)] == pytest.approx(OLD_BPB, rel=1e-6)
