"""UTF-8 decoding by automaton against Python's own strict decoder."""

import numpy as np
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from splitters.edge_texts import short_texts
from splitters.engine.characters import byte_classes, code_point_classes

CLASSES = (("blank", r"\s"), ("han", r"\p{Script=Han}"), ("letter", r"[\p{L}\p{M}]"))


def emitted(data: bytes) -> list[str | None]:
    """The class that the automaton emits at each byte: None (nothing yet), a name, or 'invalid'."""
    table = byte_classes(CLASSES)
    state, out = 0, []
    for byte in data:
        at = state + byte
        state, symbol = table.next[at], table.symbol[at] % table.late
        out.append([None, *table.names, "invalid"][symbol])
    return out


@pytest.mark.parametrize("name", sorted(short_texts()))
def test_edge_texts_agree_with_python(name):
    check_against_python(short_texts()[name])


@given(
    st.lists(st.sampled_from([*range(256), *([0xE0, 0xED, 0xF0, 0xF4, 0x80, 0x90, 0x9F, 0xA0, 0xBF] * 8)]), max_size=24)
)
def test_random_bytes_agree_with_python(values):
    check_against_python(bytes(values))


def check_against_python(data):
    got = emitted(data)
    valid = data.decode("utf-8", "surrogateescape")
    at = 0
    for character in valid:
        if "\udc80" <= character <= "\udcff":  # a byte of no character: no class falls on it
            assert got[at] in (None, "invalid")
            at += 1
            continue
        size = len(character.encode())
        name = next((name for name, one in CLASSES if regex.fullmatch(one, character)), "rest")
        assert got[at : at + size] == [None] * (size - 1) + [name]
        at += size


@pytest.mark.slow
def test_every_character_has_its_class():
    table = code_point_classes(CLASSES)
    text = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
    got = [name for name in emitted(text.encode()) if name is not None]
    assert got == [["blank", "han", "letter", "rest"][table[ord(c)]] for c in text]


def test_first_class_wins_and_rest_is_last():
    table = code_point_classes(CLASSES)
    assert [table[ord(c)] for c in " 中aé.1"] == [0, 1, 2, 2, 3, 3]
    assert table.dtype == np.uint8


def test_a_broken_off_sequence_is_reported_late():
    table = byte_classes(CLASSES)
    at = table.next[0xE4] + ord("a")  # E4 begins three bytes, `a` breaks it off
    assert table.symbol[at] >= table.late
    assert table.symbol[ord("a")] < table.late
