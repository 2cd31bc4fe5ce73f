"""How far a study is: a bar on a terminal, a line a minute in a file."""

import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

LOG_EVERY = 60.0  # seconds between lines in a file
FORMAT = "{percentage:3.0f}%|{bar:20}| {n:.1f}/{total} cells [{elapsed}, {remaining} left] {postfix}"


class CellProgress:
    """Shows how many cells are done, those that run by the share of their budget."""

    def __init__(self, total: int, done: int) -> None:
        self.total = total
        self._bar = tqdm(total=total, initial=done, bar_format=FORMAT, leave=False, disable=not sys.stderr.isatty())
        self._next = time.monotonic() + LOG_EVERY

    def show(self, done: float, running: Sequence[str]) -> None:
        """Shows that so many cells are done, and which run."""
        names = ", ".join(running)
        if self._bar.disable:
            if time.monotonic() >= self._next:
                self._next = time.monotonic() + LOG_EVERY
                print(f"{done:.1f} of {self.total} cells; running: {names}", file=sys.stderr, flush=True)
            return
        self._bar.set_postfix_str(names, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        self._bar.close()
