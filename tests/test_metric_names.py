"""Names of metrics and rules: every label has a name that MLflow takes, and no two have one."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric

from aunet_lightning.tracking.names import LONGEST, metric_name, rule_name

ORDINARY = ["en", "zh-Hans", "zh-hans", "sr_latin", "quz", "ру́с"[:2], "日本語", "x.y", "v2"]
ODD = [
    "zh//x",
    "en/",
    "a/../b",
    "x" * 260,
    "a@b",
    "a_b",
    "",
    "..",
    ".",
    "/",
    "a\n",
    "\n",
    "\0",
    "😀" * 90,
    "a:b",
    ":61:",
    " a",
    "a ",
    "x" * 100,
    "x" * 101,
    "x" * 99 + ":",
    "\u200b",
    "e\u0301",
    "é",
]
PREFIXES = ["val/bpb_", "val_stage2/agreement_script_aware_"]


def accepted(name):
    for prefix in PREFIXES:
        _validate_metric(prefix + name, 1.0, 0, 0)
    return len(name) <= LONGEST


@pytest.mark.parametrize("label", ORDINARY)
def test_ordinary_labels_stay_as_they_are(label):
    assert metric_name(label) == label


@given(st.text(st.characters(), max_size=300))
@example("x" * 260)
@example("/" * 260)
def test_every_label_has_a_name_that_mlflow_takes(label):
    assert accepted(metric_name(label))


@given(st.text("a:/\n é4061f", max_size=12), st.text("a:/\n é4061f", max_size=12))
def test_no_two_labels_have_one_name(one, other):
    assert (metric_name(one) == metric_name(other)) == (one == other)


@given(st.text(st.characters(), max_size=40), st.integers(0, 39), st.sampled_from("/:@a \n"))
def test_a_changed_label_has_another_name(label, at, change):
    changed = label[:at] + change + label[at + 1 :]
    assert (metric_name(label) == metric_name(changed)) == (label == changed)


def test_odd_labels_have_names_of_their_own():
    names = [metric_name(label) for label in ODD + ORDINARY]
    assert len(set(names)) == len(names)
    assert all(map(accepted, names))
    assert metric_name("\ud800") == ":eda080:"


def test_rules_have_readable_names():
    assert rule_name({"name": "fixed", "n": 4}) == "fixed-n4"
    assert rule_name("my_rules:Vowels") == "Vowels"
    assert rule_name(None) == "bytes"
    assert rule_name({"name": "cap", "of": {"name": "fixed", "n": 4}, "max_bytes": 9}) == "cap-of-fixed-n4-max_bytes9"
    by_language = {"name": "router", "bytes_per_unit": {"zh-Hans": 4.5, "default": 6}, "control": 0}
    assert rule_name(by_language) == "router-bytes_per_unit-zh_Hans4.5-default6-control0"
    assert rule_name({"name": "union", "of": ["whitespace", "trie"]}) == "union-ofwhitespace+trie"
    assert rule_name({"name": "trie", "vocabulary": "/data/a/th-8k.json"}) == "trie-vocabularyth_8k"
    assert "/" not in rule_name({"name": "pattern", "patterns": [r"a/b\s" * 50]})
    assert len(rule_name({"name": "pattern", "patterns": [r"a/b\s" * 50]})) < 60
