"""What the README says is run: its Python, its splitter, its picture and its make targets."""

import re

import torch

import splitters
from aunet_lightning.cli.main import main
from splitters import Stack
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
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
