"""Mistakes of a user, as opposed to mistakes of ours."""

from collections.abc import Mapping
from typing import Any

from splitters import Stack


class UserError(ValueError):
    """Something the user can put right: shown as one sentence, without a traceback."""


def check_boundaries(checkpoint: Mapping[str, Any], stack: Stack) -> None:
    """Raises UserError where the checkpoint's splitters, as `stack` has them, no longer do what it was trained with."""
    if checkpoint.get("boundaries") not in (None, stack.fingerprint()):
        rules = checkpoint["splitters"]
        raise UserError(
            f"splitter: {rules} no longer places the boundaries that the checkpoint was trained with. "
            "A vocabulary file, the code of a splitter or the Unicode tables of regex have changed: restore them"
        )
