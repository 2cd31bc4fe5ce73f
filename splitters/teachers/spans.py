"""Teachers that find stretches of characters."""

from abc import abstractmethod
from typing import Literal

import numpy as np

from splitters.contract import Teacher, one_of
from splitters.engine.characters import code_point_classes

REPLACEMENT = 0xFFFD  # stands for an invalid byte: neither a letter nor a blank

At = Literal["start", "end"]


class SpanTeacher(Teacher):
    """Finds stretches of characters, with a boundary on the first (`at: start`) or the last (`at: end`) of each.

    The boundary falls on the last byte of that character.
    """

    def __init__(self, name: str, at: str) -> None:
        self.at = one_of(name, "at", at, ("start", "end"))

    @abstractmethod
    def spans(self, text: str) -> np.ndarray:
        """Returns int [n, 2]: the index of each stretch's first character, and of the one after its last.

        text: each invalid byte is a U+FFFD.
        """

    def split(self, data: bytes) -> np.ndarray:
        text, last_bytes = characters(data)
        begins, ends = self.spans(text).reshape(-1, 2).T
        places = (begins if self.at == "start" else ends - 1)[begins < ends]
        boundary = np.zeros(len(data), bool)
        boundary[last_bytes[places]] = True
        return boundary


def characters(data: bytes) -> tuple[str, np.ndarray]:
    """Returns the text, with a U+FFFD for each invalid byte, and the offset of each character's last byte."""
    read = data.decode("utf-8", "surrogateescape")
    points = np.frombuffer(read.encode("utf-32-le", "surrogatepass"), np.uint32)
    lone = (points >= 0xDC80) & (points <= 0xDCFF)
    n_bytes = np.where(lone, 1, 1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF))
    text = np.where(lone, REPLACEMENT, points).astype("<u4").tobytes().decode("utf-32-le") if lone.any() else read
    return text, np.cumsum(n_bytes) - 1


def are(character: str, text: str) -> np.ndarray:
    """Returns bool [len(text)]: whether each character matches the regular expression `character`."""
    return code_point_classes((("match", character),))[np.frombuffer(text.encode("utf-32-le"), np.uint32)] == 0
