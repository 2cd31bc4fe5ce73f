"""Settings of `aunet fit` drawn from a grammar: good ones, and ones with exactly one thing wrong.

`python -m tests.settings_grammar --draws 200` runs as many in this process and prints what came of each.
"""

from tests.settings_grammar.cases import bad, case, every_bad, good, odd_files, write_text
from tests.settings_grammar.runs import faults, run

__all__ = ["bad", "case", "every_bad", "faults", "good", "odd_files", "run", "write_text"]
