"""The model `aunet` of EleutherAI's evaluation harness (lm_eval), registered with it where this package is imported."""

try:
    from aunet_lightning.harness.model import AUNetLM
except ModuleNotFoundError as error:
    if error.name != "lm_eval":
        raise
    raise ModuleNotFoundError(
        "lm_eval is not installed: pip install 'aunet-lightning[lm-eval]'", name=error.name
    ) from None

__all__ = ["AUNetLM"]
