"""The splitter that cuts where a small byte model is unsure."""

from aunet_lightning.entropy.splitter import Entropy

__all__ = ["Entropy"]
