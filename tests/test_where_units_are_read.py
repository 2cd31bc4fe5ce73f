"""`align` and `closes`, of every rule that takes them: laws, plain definitions, and what stays as it was."""

from functools import cache
from itertools import pairwise, product
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splitters import CharacterRule, Stack, available, build, check
from splitters.contract import push_all
from splitters.edge_texts import SCRIPTS, short_texts
from splitters.registry import class_of, signature
from tests.helpers import BYTES, MIXED, UPPER, tiny, tiny_model

FULL = {"name": "every", "closes": "full"}
TEXTS = [text.encode() for text in (SCRIPTS["Chinese"], SCRIPTS["Japanese"], SCRIPTS["Thai"], SCRIPTS["Latin"])]
BROKEN = [short_texts()[name] for name in ("truncated 4", "broken off by a lead", "random pieces 0")]


built = cache(build)  # properties ask for one rule many times


def choices(name: str) -> dict[str, tuple[str, ...]]:
    parameters = signature(class_of(name)).parameters
    return {option: get_args(parameters[option].annotation) for option in ("align", "closes") if option in parameters}


def specs() -> list[dict]:
    """Each rule with each value of both options."""
    own = {"fixed": {"n": 3, "of": "characters"}, "script_aware": {"n": 3}}
    every = ((name, dict(zip(found, values, strict=True))) for name in available("rule")
             for found in [choices(name)] if found for values in product(*found.values()))  # fmt: skip
    return [{"name": name, **own.get(name, {}), **options} for name, options in every]


SPECS = specs()
ALIGNED = [name for name in available("rule") if "first" in choices(name).get("align", ())]


def test_every_rule_that_knows_its_characters_takes_align():
    assert {name for name in available("rule") if issubclass(class_of(name), CharacterRule)} < set(ALIGNED)
    assert {"fixed", "spacelike", "trie"} < set(ALIGNED)
    assert [name for name in available("rule") if "closes" in choices(name)] == ["every", "fixed", "script_aware"]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_laws_hold_wherever_units_are_read(spec):
    """Alone, and between other rules."""
    check(spec, [*TEXTS, *BROKEN])
    check(Stack(["utf8_character", spec, FULL]), TEXTS[1:3])


@settings(max_examples=60)
@given(data=BYTES, cut=st.integers(0, 60), spec=st.sampled_from(SPECS))
def test_prefix_and_stream_laws_on_any_bytes_wherever_units_are_read(data, cut, spec):
    stack = Stack([built(**spec), built(**FULL)])
    whole = stack.levels(data)
    np.testing.assert_array_equal(stack.levels(data[:cut]), whole[:cut])
    np.testing.assert_array_equal(push_all(stack.stepper(), data), whole)


@torch.no_grad()
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_later_byte_changes_no_earlier_logit_wherever_units_are_read(spec):
    """What is read one byte later is no leak: at every byte, another one from there on changes no logit before it."""
    stack, model, text = Stack([spec, FULL]), tiny_model(tiny(3)), MIXED[8:44]
    texts = [text, *(text[:t] + bytes([byte]) + text[t + 1 :] for t in range(len(text)) for byte in (0x20, 0xE4))]
    levels = torch.tensor([[2, *stack.levels(one)] for one in texts])
    before, *changed = model(torch.tensor([[256, *one] for one in texts]), levels).logits
    for place, after in enumerate(changed):
        t = place // 2
        torch.testing.assert_close(after[: t + 1], before[: t + 1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ALIGNED)
def test_first_is_the_byte_after_last(name):
    """The same cuts one byte later, so none is lost or read twice."""
    of = {"of": "characters"} if name == "fixed" else {}
    last, first = (built(name, align=align, **of) for align in ("last", "first"))

    @settings(max_examples=20)
    @given(BYTES)
    def shifted(data):
        assert first.split(data).tolist() == [False, *last.split(data).tolist()][: len(data)]

    shifted()


def test_the_byte_after_begins_a_character():
    text = SCRIPTS["Japanese"]
    begins = np.cumsum([0, *(len(character.encode()) for character in text)])[:-1]
    for name in ALIGNED:
        fires = built(name, align="first", **({"of": "characters"} if name == "fixed" else {})).split(text.encode())
        assert set(np.flatnonzero(fires)) < set(begins.tolist())


@given(BYTES, st.integers(1, 4))
def test_a_fixed_group_closes_at_its_last_byte_or_the_next(data, n):
    full, following = (built("fixed", n=n, closes=closes).split(data) for closes in ("full", "next"))
    assert full.tolist() == [t % n == n - 1 for t in range(len(data))]
    assert following.tolist() == [t > 0 and t % n == 0 for t in range(len(data))]


def at_characters(rule, text: str) -> np.ndarray:
    """A boundary at each character's last byte, and none elsewhere: bool [characters]."""
    fires, ends = rule.split(text.encode()), np.cumsum([len(character.encode()) for character in text], dtype=int) - 1
    assert fires.sum() == fires[ends].sum()
    return fires[ends]


@given(st.text("a中é🤝", max_size=20), st.integers(1, 4))
def test_a_fixed_group_of_characters_closes_at_its_last_one_or_the_next(text, n):
    full, following = (
        at_characters(built("fixed", n=n, of="characters", closes=closes), text) for closes in ("full", "next")
    )
    assert full.tolist() == [c % n == n - 1 for c in range(len(text))]
    assert following.tolist() == [c > 0 and c % n == 0 for c in range(len(text))]


def closed_full(groups: list[tuple[int, list[int]]], n: int) -> list[int]:
    """Groups as (first place, places that count). The cut after a group of n falls on its n-th, else on the next group."""
    following = [first for first, _ in groups[1:]]
    cuts = {(members[n - 1] if len(members) == n else after) for (_, members), after in zip(groups, [*following, -1])}  # noqa: B905
    return sorted(cuts - {-1})


RUN = "人中すカー"


@given(st.text(f"{RUN}\u3099ˊa1. \nก", max_size=30), st.integers(1, 4))
def test_a_full_group_of_han_or_kana_closes_at_its_last_character(text, n):
    begins = np.flatnonzero(at_characters(built("script_aware", n=n), text)).tolist()
    groups: list[tuple[int, list[int]]] = [(-1, [])]
    for begin, end in pairwise([*begins, len(text)]):
        counted = [begin, *(c for c in range(begin + 1, end) if text[c] in RUN)]
        groups.append((begin, counted if text[begin] in f"{RUN}\u3099" else []))
    full = at_characters(built("script_aware", n=n, closes="full"), text)
    assert np.flatnonzero(full).tolist() == closed_full(groups, n)


@pytest.mark.parametrize(
    ("n", "text", "expected"),
    [
        (2, "人人生而自由", "人|人生|而自|由"),
        (2, "Linux内核module", "Linux|内|核module"),
        (2, "漢字かなカナABC", "漢|字か|なカ|ナABC"),
        (2, "内核心x", "内|核心|x"),
        (3, "人人。人人人\n\n人", "人人|。|人人|人\n|\n|人"),
        (2, "すへ\u3099て", "す|へ\u3099て"),
        (1, "x人人y", "x|人|人y"),
    ],
)
def test_script_aware_with_full_groups(n, text, expected):
    fires = at_characters(built("script_aware", n=n, closes="full"), text)
    shown = "".join("|" * bool(fire) + character for character, fire in zip(text, fires, strict=True))
    assert shown.removeprefix("|") == expected


@given(st.text(f"{RUN}a. \n", max_size=30).map(lambda text: text + "a"), st.integers(2, 4))
def test_a_full_group_loses_no_boundary_and_has_none_twice(text, n):
    """As many cuts up to a character after the last group, each at its place or before it, none before the one before."""
    later, sooner = (
        np.flatnonzero(at_characters(built("script_aware", n=n, closes=closes), text)) for closes in ("next", "full")
    )
    assert len(later) == len(sooner)
    assert (sooner <= later).all()
    assert (sooner[1:] > later[:-1]).all()


@given(
    st.text("ab. \n", max_size=40),
    st.integers(1, 4),
    st.sampled_from([{"name": "whitespace"}, {"name": "fixed", "n": 2}]),
)
def test_every_closes_full_at_the_last_unit_of_a_group(text, n, below):
    data = text.encode()
    levels, full = (
        Stack([built(**below), built("every", n=n, closes=closes)]).levels(data) for closes in ("next", "full")
    )
    units = [-1, *np.flatnonzero(levels).tolist()]  # the first is that of BOS
    groups: list[tuple[int, list[int]]] = []
    for unit in units:
        if unit < 0 or levels[unit] == 2:
            groups.append((unit, []))
        groups[-1][1].append(unit)
    assert np.flatnonzero(full == 2).tolist() == closed_full(groups, n)
    np.testing.assert_array_equal(full > 0, levels > 0)


def test_what_is_named_as_before_is_as_before():
    for name in ALIGNED:
        default = signature(class_of(name)).parameters["align"].default
        assert Stack([{"name": name, "align": default}]).fingerprint() == Stack([name]).fingerprint()
    for name in ("spacelike", "trie"):
        found = {align: Stack([{"name": name, "align": align}]).fingerprint() for align in choices(name)["align"]}
        assert Stack([{"name": name, "align": "character"}]).fingerprint() == found["last"]
        assert len(set(found.values())) == 3


class Vowels(CharacterRule):
    classes, start = (("vowel", "[aeiou]"),), None

    def step(self, state, kind):
        return None, kind == "vowel"


class Aligning(Vowels):
    """A rule from before the option, with one of its own that has the same name."""

    def __init__(self, align: int = 3) -> None:
        self.align = align


def test_a_rule_of_ones_own_takes_align_without_a_word_about_it():
    spec = {"name": f"{__name__}:Vowels", "align": "first"}
    assert np.flatnonzero(Stack([spec]).levels(b"toe a")).tolist() == [2, 3]
    assert Stack([spec]).fingerprint() != Stack([f"{__name__}:Vowels"]).fingerprint()
    assert build(f"{__name__}:Aligning", align=5).align == 5


def test_levels_of_groups_read_at_first_bytes():
    """Where the stage below is read at first bytes, so is the one above."""
    text = "人人生。而自由 a b".encode()
    last, first = (Stack([{"name": "script_aware", "align": align}, UPPER]).levels(text) for align in ("last", "first"))
    assert first.tolist() == [0, *last.tolist()][: len(text)]
