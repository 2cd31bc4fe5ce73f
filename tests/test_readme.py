"""What the README says is run: its Python, its splitter, its picture and its make targets."""

import re
import shlex

import torch
import yaml

import splitters
from aunet_lightning.cli.main import main
from aunet_lightning.reports.pictures import as_line
from splitters import Stack
from splitters.registry import BUILT_IN
from tests.helpers import ROOT

README = (ROOT / "README.md").read_text()
DOCS = (ROOT / "docs" / "splitters.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


def test_the_splitter_of_ones_own(tmp_path, monkeypatch, capsys):
    (block,) = (block for block in BLOCKS if block.startswith("# my_rules.py"))
    (tmp_path / "my_rules.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    splitters.check("my_rules:Words")
    assert main(["split", "camelCase is mine", "--splitter", "my_rules:Words"]) == 0
    assert capsys.readouterr().out.startswith("camel│Case│ is│ mine")


def test_the_example_in_python():
    (block,) = (block for block in BLOCKS if "AUNetConfig(" in block)
    scope: dict = {}
    with torch.no_grad():
        exec(block, scope)
    assert scope["logits"].shape == (1, 31, 258)
    torch.testing.assert_close(scope["output"].logits[:, -1], scope["logits"][:, -1], atol=1e-4, rtol=1e-4)


def test_a_trained_model_writes_text(capsys):
    (block,) = (block for block in BLOCKS if "from_pretrained" in block)
    kept = ROOT / "tests" / "kept_run" / "checkpoints" / "last.ckpt"
    exec(block.replace("runs/quickstart/…/checkpoints/best.ckpt", str(kept)), {})
    assert capsys.readouterr().out.startswith("All human ")


def test_the_picture_is_what_the_splitter_gives():
    lines = README.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(" E v e r"))
    text, drawn = lines[at][1:62:2], lines[at + 1][1:62:2]
    levels = Stack(["whitespace", {"name": "every", "n": 2}]).levels(text.replace("_", " ").encode())
    assert drawn == "".join(" │║"[level] for level in levels)


def test_every_make_target_is_there():
    targets = set(re.findall(r"\bmake (\w+)\b", README)) - {"sure"}
    assert {"quickstart", "test", "ui", "bench", "lint"} <= targets
    rules = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert targets <= rules


def test_every_folder_in_the_tree_is_there():
    tree = re.search(r"## The tree\n\n```\n(.*?)```", README, re.S)
    inside = ""
    for line in tree[1].splitlines():
        name = line.split()[0]
        inside = inside if line.startswith(" ") else name
        assert (ROOT / (inside if line.startswith(" ") else "") / name).exists(), line


def test_the_units_in_the_docs_are_those_of_the_splitters():
    lines = re.search(r"```\n(whitespace .*?)```", DOCS, re.S)[1].splitlines()
    assert len(lines) > 10
    for line in lines:
        spec, shown = line[:42].strip(), line[42:]
        assert as_line(re.sub("│", "", shown).encode(), Stack([yaml.safe_load(spec)])) == shown, spec


def test_every_splitter_is_in_the_docs_and_the_readme():
    named = {name for names in BUILT_IN.values() for name in names}
    assert named <= set(re.findall(r"^\| `(\w+)` \|", DOCS, re.M))
    assert named <= set(re.findall(r"`(\w+)`", README))


def test_the_combination_in_the_docs_can_be_built():
    (block,) = re.findall(r"```yaml\n(.*?)```", DOCS, re.S)
    settings = yaml.safe_load(block)
    splitters.check(Stack([settings["splitter"], *settings["upper_splitters"]]))


def test_the_package_in_the_docs_is_the_one_that_is_tested():
    (block,) = re.findall(r"```toml\n(\[build-system\].*?)```", DOCS, re.S)
    tested = (ROOT / "tests" / "plug_in" / "pyproject.toml").read_text()
    assert tested.startswith(block)


def test_the_pattern_that_the_docs_refuse_is_refused(capsys):
    (command, error) = re.search(r"```\n(aunet split .*)\n(aunet: error: (?:.|\n)*?)…", DOCS).groups()
    assert main(shlex.split(command)[1:]) == 1
    assert " ".join(error.split()) in " ".join(capsys.readouterr().err.split())
