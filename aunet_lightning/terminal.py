"""What reaches a terminal: text in its encoding, and no control character of data."""

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Pictures of control characters (U+2400 …); those past ASCII, which terminals obey too, are spelled.
CONTROLS = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"}
CONTROLS |= {0x7F: "\u2421"} | {code: f"\\x{code:02x}" for code in range(0x80, 0xA0)}
_OF_PROGRAMS = {code: shown for code, shown in CONTROLS.items() if code not in (0x0D, 0x1B)}
_NO_STYLE = re.compile(r"\x1b(?!\[[0-9;?]*[A-Za-z])")  # an escape that begins no colour and moves no cursor


def printable(text: str) -> str:
    """Returns a text without control characters, but for tabs and ends of lines."""
    return text.translate(CONTROLS)


def one_line(text: str) -> str:
    """Returns a name from data as it can stand in a line: printable, and its ends of lines shown."""
    return printable(text).replace("\n", "⏎")


class SafeStream:
    """A stream of text that lets only colours and moves of the cursor through, as progress bars make them.

    What is known to be data is made `printable` where it is put into words; this is for all the rest.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> Any:
        text = _NO_STYLE.sub(CONTROLS[0x1B], text.translate(_OF_PROGRAMS))
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        try:
            text.encode(encoding)
        except UnicodeEncodeError:  # a latin-1 terminal shows what it can
            text = text.encode(encoding, "backslashreplace").decode(encoding)
        return self._stream.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def guarded() -> Iterator[None]:
    """Lets what a program prints and warns of reach the terminal safely, whatever data and locale it holds."""
    streams, usual = (sys.stdout, sys.stderr), warnings.formatwarning
    sys.stdout, sys.stderr = map(SafeStream, streams)
    warnings.formatwarning = lambda *args, **options: printable(usual(*args, **options))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        warnings.formatwarning = usual
