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


def bits_per_pixel(name: str, text: str) -> float:
    """Read the rate of ``NAME@BPP``.

    Args:
        text: what follows the name, with its ``@``.

    Raises:
        BenchError: no number, or none above 0 and up to 24 (8-bit RGB as it is).
    """
    try:
        rate = float(text.removeprefix("@"))
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 24:
        raise BenchError(f"{name}{text}: give the rate as {name}@BPP, bits per pixel above 0, up to 24")
    return rate
