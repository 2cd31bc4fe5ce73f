"""Autoregressive U-Nets on raw bytes: the model, its data, and its training with Lightning.

Names load on first use, so that `import aunet_lightning` (and `aunet --help`) stays light.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "AUNet": "aunet_lightning.model.aunet",
    "AUNetConfig": "aunet_lightning.model.config",
    "StageConfig": "aunet_lightning.model.config",
    "AUNetModule": "aunet_lightning.training.module",
    "ByteDataModule": "aunet_lightning.data.datamodule",
}
__all__ = ["AUNet", "AUNetConfig", "AUNetModule", "ByteDataModule", "StageConfig"]

if TYPE_CHECKING:
    from aunet_lightning.data.datamodule import ByteDataModule
    from aunet_lightning.model.aunet import AUNet
    from aunet_lightning.model.config import AUNetConfig, StageConfig
    from aunet_lightning.training.module import AUNetModule


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
