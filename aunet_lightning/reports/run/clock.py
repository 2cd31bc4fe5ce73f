"""Where the time of a run goes."""

import time

OTHER = "start-up, end and all else"
STEPS = "steps: forward, backward, optimizer"
BETWEEN = "between steps: data, logging, checkpoints"
VALIDATION = "validations, with baselines"
LOOKING = "samples and sentences for this page"
DRAWING = "drawing this page"
PARTS = (STEPS, BETWEEN, VALIDATION, LOOKING, DRAWING, OTHER)


class Clock:
    """Adds up seconds by part; at any time one part is counted."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._part, self._since = OTHER, time.perf_counter()

    @staticmethod
    def now() -> float:
        return time.perf_counter()

    def enter(self, part: str) -> float:
        """Counts `part` from now on; returns the seconds of the part that ends."""
        now = time.perf_counter()
        took = now - self._since
        self.seconds[self._part] += took
        self._part, self._since = part, now
        return took
