"""The splitter `entropy`: boundaries where a small byte model is uncertain, and the threshold for a wanted rate."""

from aunet_lightning.entropy.splitter import Entropy

__all__ = ["Entropy"]
