"""Errors that a user can act on.

The message of each is one line: what was given, what is wrong with it, what to do. Commands print
it and exit non-zero; nothing else in the library prints.
"""

__all__ = ["ATokenError", "CheckpointError", "InputError"]


class ATokenError(Exception):
    """Anything that the caller can mend; the message names the value and the mend."""


class InputError(ATokenError):
    """An image, video, latent or code that cannot be processed as it is."""


class CheckpointError(ATokenError):
    """A weights file or its config that cannot be loaded as it is."""
