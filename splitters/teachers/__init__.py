"""Teachers of the learned splitter `distilled`. They read the complete text, so they may look ahead.

Every splitter can teach. The teachers here cannot be splitters: their boundaries depend on later bytes.
"""

from splitters.contract import Teacher

__all__ = ["Teacher"]
