"""Mistakes of a user, as opposed to mistakes of ours."""


class UserError(ValueError):
    """Something the user can put right: shown as one sentence, without a traceback."""
