"""Mistakes of a user, as opposed to mistakes of ours."""

from typing import Any


class UserError(ValueError):
    """Something the user can put right: shown as one sentence, without a traceback."""


def moved_boundaries(rules: list[Any]) -> UserError:
    """Returns the error for splitters that no longer do what a checkpoint was trained with."""
    return UserError(
        f"splitter: {rules} no longer places the boundaries that the checkpoint was trained with. A vocabulary file, "
        "the code of a splitter or the version of regex (its Unicode tables) has changed: restore it"
    )
