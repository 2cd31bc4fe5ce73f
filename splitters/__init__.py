"""Rules that decide, byte by byte, where one unit ends and the next begins.

The package depends on bytes only, not on models: importing it loads numpy and regex, and no torch.
"""

from splitters.contract import Knob, LawError, LearnedSplitter, Splitter, Stepper, UnitStepper
from splitters.engine.automaton import CharacterRule
from splitters.laws.check import check
from splitters.registry import DEFAULT, available, build, register, resolve
from splitters.stack import Stack

__all__ = [
    "DEFAULT",
    "CharacterRule",
    "Knob",
    "LawError",
    "LearnedSplitter",
    "Splitter",
    "Stack",
    "Stepper",
    "UnitStepper",
    "available",
    "build",
    "check",
    "register",
    "resolve",
]
