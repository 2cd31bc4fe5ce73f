"""`splitters.predictors.Predictor`, the base class of a learned splitter's network (it loads torch)."""

from splitters.learned.predictor import Predictor

__all__ = ["Predictor"]
