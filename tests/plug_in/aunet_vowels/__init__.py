"""A splitter as a third party would write it: a boundary at every n-th vowel."""

from splitters import CharacterRule


class Vowels(CharacterRule):
    """A boundary at every `n`-th vowel."""

    source = "a test"
    classes = (("vowel", "[aeiouAEIOU]"),)
    start = 0

    def __init__(self, n: int = 1) -> None:
        self.n = n

    def step(self, seen, kind):
        return ((seen + 1) % self.n, seen + 1 == self.n) if kind == "vowel" else (seen, False)
