"""Makes text safe for a terminal: in its encoding, and without control characters from data."""

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Control characters as their pictures (U+2400 …); those past ASCII, which terminals obey too, as escapes.
CONTROLS = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"}
CONTROLS |= {0x7F: "\u2421"} | {code: f"\\x{code:02x}" for code in range(0x80, 0xA0)}
_OF_PROGRAMS = {code: shown for code, shown in CONTROLS.items() if code not in (0x0D, 0x1B)}
_NO_STYLE = re.compile(r"\x1b(?!\[[0-9;?]*[A-Za-z])")  # an escape that neither colours nor moves the cursor


def printable(text: str) -> str:
    """Returns a text with every control character but tab and newline made visible."""
    return text.translate(CONTROLS)


def one_line(text: str) -> str:
    """Returns a name from data on one line: printable, with its newlines made visible."""
    return printable(text).replace("\n", "⏎")


class SafeStream:
    """A text stream that passes no control sequences but colours and cursor moves, as progress bars print them.

    Text that is known to be data is made `printable` where a message is composed; this catches the rest.
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
    """Makes output and warnings safe for the terminal, whatever the data and the locale."""
    streams, usual = (sys.stdout, sys.stderr), warnings.formatwarning
    sys.stdout, sys.stderr = map(SafeStream, streams)
    warnings.formatwarning = lambda *args, **options: printable(usual(*args, **options))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        warnings.formatwarning = usual
