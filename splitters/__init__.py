"""Rules that decide, byte by byte, where a new unit begins to be worth pooling.

This package knows bytes and nothing of models: importing it loads numpy and regex only.
"""

from splitters.automaton import CharacterRule
from splitters.contract import Splitter, Stepper, UnitStepper
from splitters.laws import LawError, check
from splitters.learned import LearnedSplitter
from splitters.registry import DEFAULT, available, build, register, resolve
from splitters.stack import Stack

__all__ = [
    "DEFAULT",
    "CharacterRule",
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
