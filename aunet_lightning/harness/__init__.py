"""The model `aunet` of EleutherAI's evaluation harness (lm_eval), registered with it where this package is imported."""

from aunet_lightning.harness.model import AUNetLM

__all__ = ["AUNetLM"]
