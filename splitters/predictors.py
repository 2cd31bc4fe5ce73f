"""Import path of `Predictor`, the base class of a learned splitter's network. Loads torch."""

from splitters.learned.predictor import Predictor

__all__ = ["Predictor"]
