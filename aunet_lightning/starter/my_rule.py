"""A rule of your own: `splitter: my_rule:Clauses`. It is checked by `python my_rule.py`, and shown by
`aunet split "A clause, and 一个分句，还有。" --splitter my_rule:Clauses`."""

import splitters
from splitters import CharacterRule, Knob


class Clauses(CharacterRule):
    """A boundary at the character after a mark of punctuation, and after `n` characters without one."""

    classes = (("mark", r"\p{P}"), ("blank", r"\s"))  # other characters are "rest"; bytes of none, "invalid"
    start = (0, False)  # characters since the last boundary, and whether a mark was the last that was not a blank
    knob = Knob("n", 1, 200)  # the option that moves its rate, and the values that `aunet rate` tries

    def __init__(self, n: int = 12) -> None:
        self.n = n

    def step(self, state, kind):
        """Returns the next state, and whether the character of this kind begins a unit."""
        length, after_mark = state
        begins = (after_mark and kind not in ("mark", "blank")) or length + 1 > self.n
        return (1 if begins else length + 1, kind == "mark" or (after_mark and kind == "blank")), begins


if __name__ == "__main__":
    splitters.check(Clauses())
    print("The laws of a splitter hold: it is causal, streams, and does not depend on how text is cut.")
