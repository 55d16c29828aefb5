"""Errors of training, in the library's manner: one line that says what to do."""

from atoken.errors import ATokenError

__all__ = ["TrainingError"]


class TrainingError(ATokenError):
    """A recipe, data folder or state that a run cannot go on with."""
