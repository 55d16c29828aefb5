"""What stands behind a tokenizer's name on the command line: ``jpeg:75``, ``jpeg@0.375``, ``pca:48@FOLDER``."""

from __future__ import annotations

from harness.errors import BenchError


def whole_number(name: str, what: str, text: str | None, low: int, high: int) -> int:
    """Read ``NAME:N``.

    Args:
        what: the number's meaning, for the message.
        low, high: the range, both ends included.

    Raises:
        BenchError: no number, or one outside the range; the message shows the right form.
    """
    if text is None or not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        given = f"{name}:{text}" if text else name
        raise BenchError(f"{given}: give the {what} as {name}:N with N from {low} to {high}")
    return int(text)
