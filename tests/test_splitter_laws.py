"""The laws, over the registry: every registered splitter is tested here."""

import copy
import pickle
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import splitters
from splitters import LawError, Splitter, Stack, Stepper, available, build, check
from splitters.contract import push_all
from splitters.edge_texts import long_texts, short_texts
from tests.helpers import MIXED, N_STAGES, stack_of

BYTES = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=30).map(str.encode),
    st.lists(st.sampled_from([b" ", b"\n", b".", b"7", b"a", "中".encode(), "\u0e19\u0e49".encode(), b"\xe4\xb8"])).map(
        b"".join
    ),
)
STACKS = [[name, *upper] for name in available("rule") for upper in (["every"], ["every", "whitespace"])]


@pytest.mark.parametrize("rules", STACKS[1::2], ids=str)
def test_laws_hold_on_the_shared_texts(rules):
    """Levels nest, so those of a stack tell the boundaries of every stack that is its beginning."""
    check(Stack(rules))


@pytest.mark.parametrize("name", available("rule"))
def test_laws_hold_for_each_rule_alone(name):
    check(build(name))


@settings(max_examples=60, deadline=None)
@given(data=BYTES, cut=st.integers(0, 60), rules=st.sampled_from(STACKS))
def test_prefix_and_stream_laws_on_any_bytes(data, cut, rules):
    stack = Stack(rules)
    whole = stack.levels(data)
    assert whole.dtype == np.uint8
    assert whole.shape == (len(data),)
    np.testing.assert_array_equal(stack.levels(data[:cut]), whole[:cut])
    np.testing.assert_array_equal(push_all(stack.stepper(), data), whole)


@settings(max_examples=60, deadline=None)
@given(data=BYTES, rules=st.sampled_from(STACKS))
def test_levels_nest_and_the_first_rule_is_kept(data, rules):
    levels = Stack(rules).levels(data)
    np.testing.assert_array_equal(levels >= 1, build(rules[0]).split(data))
    assert levels.max(initial=0) <= len(rules)


def test_a_rule_above_loses_no_boundary_but_defers_it():
    data = b"ab cdef gh "
    units = np.flatnonzero(Stack(["fixed", "whitespace"]).levels(data) == 2)  # fixed: bytes 3, 7
    blanks = [2, 7, 10]  # at 2 it waits for 3, at 7 it is there, at 10 no unit has ended yet
    assert units.tolist() == [3, 7]
    assert np.flatnonzero(build("whitespace").split(data)).tolist() == blanks


def test_a_megabyte_without_a_boundary(splitter):
    data = b"a" * 1_000_000
    levels = stack_of(splitter, 4).levels(data)
    assert levels.shape == (1_000_000,)


def test_laws_hold_beside_every_character_of_unicode(splitter):
    """All assigned characters in their order, and shuffled, cut at some hundred places."""
    characters = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    shuffled = "".join(np.random.default_rng(0).permutation(characters))
    check(splitter, ["".join(characters).encode()[at : at + 90_000] for at in range(0, 500_000, 90_000)])
    check(splitter, [shuffled.encode()[:90_000]])


def test_the_memory_of_a_stepper_does_not_grow_with_the_text(splitter):
    stepper = build(splitter).stepper()
    push_all(stepper, MIXED)
    early = len(pickle.dumps(stepper))
    push_all(stepper, MIXED * 400)
    assert abs(len(pickle.dumps(stepper)) - early) < 100


def test_a_fingerprint_tells_rules_apart():
    rules = [[name] for name in available("rule")] + [[{"name": "fixed", "n": 5}], ["whitespace", "every"], []]
    assert len({Stack(one).fingerprint() for one in rules}) == len(rules)
    assert Stack(["whitespace"]).fingerprint() == Stack(["whitespace"]).fingerprint()


def test_a_stepper_can_be_copied_in_the_middle(splitter):
    data = short_texts()["Chinese"] + short_texts()["Latin"]
    stack = stack_of(splitter, 3)
    stepper, whole = stack.stepper(), stack.levels(data)
    push_all(stepper, data[:50])
    branch = copy.deepcopy(stepper)
    push_all(stepper, b"something else, 123")
    np.testing.assert_array_equal(push_all(branch, data[50:]), whole[50:])


class PeekingSplitter(Splitter):
    """A boundary at the last blank of a run: it looks at the next byte."""

    def split(self, data):
        blank = np.frombuffer(data, np.uint8) == 32
        return blank & ~np.append(blank[1:], False)

    def stepper(self):
        return _Never()


class _Never(Stepper):
    def push(self, byte):
        return False


def test_a_rule_that_looks_ahead_is_refused_with_the_shortest_text():
    with pytest.raises(LawError) as error:
        check(PeekingSplitter())
    assert error.value.law == "prefix"
    assert error.value.text == b"  "
    assert error.value.byte == 0
    assert "PeekingSplitter" in str(error.value)


def test_a_stepper_that_differs_is_refused():
    class Lagging(splitters.Splitter):
        def split(self, data):
            return np.frombuffer(data, np.uint8) == 32

        def stepper(self):
            return _Never()

    with pytest.raises(LawError) as error:
        check(Lagging())
    assert (error.value.law, error.value.text) == ("stream", b" ")


@pytest.mark.parametrize(
    "wrong", [lambda data: [False] * len(data), lambda data: np.zeros(len(data)), lambda data: np.zeros(3, bool)]
)
def test_a_wrong_form_is_refused(wrong):
    class Wrong(splitters.Splitter):
        def split(self, data):
            return wrong(data)

        def stepper(self):
            return _Never()

    with pytest.raises(LawError, match="form"):
        check(Wrong())


def test_a_rule_that_selects_outside_units_is_refused():
    class Everything(splitters.Splitter):
        def split(self, data):
            return np.zeros(len(data), bool)

        def stepper(self):
            return _Never()

        def select(self, data, units):
            return np.ones(len(data), bool)

    with pytest.raises(LawError, match="nesting") as error:
        check(Everything())
    assert len(error.value.text) == 1


def test_a_rule_that_raises_is_refused_with_the_text():
    class Raising(splitters.Splitter):
        def split(self, data):
            if b"\xe4" in data:
                raise RuntimeError("cannot read this")
            return np.zeros(len(data), bool)

        def stepper(self):
            return _Never()

    with pytest.raises(LawError, match="RuntimeError: cannot read this") as error:
        check(Raising())
    assert error.value.text == b"\xe4"


class Forgetful(Stepper):
    """A copy of it begins anew."""

    def __init__(self):
        self.seen = 0

    def push(self, byte):
        self.seen += 1
        return self.seen % 4 == 0

    def __deepcopy__(self, memo):
        return Forgetful()


def test_a_stepper_that_does_not_survive_a_copy_is_refused():
    class Four(splitters.Splitter):
        def split(self, data):
            return build("fixed").split(data)

        def stepper(self):
            return Forgetful()

    with pytest.raises(LawError, match="a deep copy of the stepper"):
        check(Four(), [b"", b"a", b"ten bytes."])  # all texts take a minute, and show no more


def test_a_splitter_that_keeps_state_is_refused():
    class Counting(PeekingSplitter):
        calls = 0

        def split(self, data):
            self.calls += 1
            return np.full(len(data), self.calls % 3 == 0)

    with pytest.raises(LawError, match="may keep no state between calls"):
        check(Counting())


def test_a_shared_buffer_is_refused():
    buffer = np.zeros(2_000_000, bool)

    class Sharing(PeekingSplitter):
        def split(self, data):
            buffer[: len(data)] = np.frombuffer(data, np.uint8) == 101
            return buffer[: len(data)]

    with pytest.raises(LawError, match="return a new array each time"):
        check(Sharing())


@pytest.mark.parametrize("ahead", [rb" (?=\t)", rb" (?=\()", rb" (?=H)", b" (?=\xf0\xa0)", b" (?=\xe4)"])
def test_a_rule_that_looks_ahead_at_one_kind_of_character_is_refused(ahead):
    class Peeking(PeekingSplitter):
        def split(self, data):
            fires = np.frombuffer(data, np.uint8) == 32
            fires[[match.start() for match in re.finditer(ahead, data)]] = False
            return fires

    with pytest.raises(LawError, match="prefix"):
        check(Peeking())


def test_a_rule_with_unbounded_states_is_refused():
    class Counting(splitters.CharacterRule):
        classes, start = (), 0

        def step(self, state, kind):
            return state + 1, state % 4 == 0

    with pytest.raises(ValueError, match=r"Counting.*more than 20000 states.*modulo"):
        Counting().split(b"a")


def test_a_wrong_pattern_is_named():
    class Unclosed(splitters.CharacterRule):
        classes, start = (("odd", "[a"),), 0

        def step(self, state, kind):
            return 0, False

    with pytest.raises(ValueError, match=r"class 'odd'.*not a regular expression"):
        Unclosed().split(b"a")


@pytest.mark.parametrize("stages", N_STAGES)
def test_depth_is_the_number_of_rules(splitter, stages):
    stack = stack_of(splitter, stages)
    assert stack.depth == stages - 1
    assert stack.levels(b"a b. c\n").max() <= stages - 1


def test_long_texts_are_long():
    assert max(map(len, long_texts().values())) >= 10_000
