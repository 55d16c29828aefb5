"""Errors that end a command: one clear line that names the thing and the mend, and an exit code."""

from __future__ import annotations

from atoken.errors import ATokenError


class BenchError(ATokenError):
    """Something the user can mend; the command prints the line and exits with `exit_code`."""

    exit_code = 1


class MissingWeights(BenchError):
    """A metric's trunk weights are not on this machine. The cell is absent with this reason."""


class NotBuiltYet(BenchError):
    """The experiment is planned and not built."""

    exit_code = 3
