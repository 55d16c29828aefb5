"""What the samples of an experiment are called."""

from __future__ import annotations

from reports import numbers

_NOUNS = {"image": ("image", "images"), "video": ("clip", "clips"), "asset": ("asset", "assets")}


def noun(modality: str, n: int = 2) -> str:
    """``clip`` for one, ``clips`` for any other number."""
    one, many = _NOUNS.get(modality, ("sample", "samples"))
    return one if n == 1 else many


def counted(n: int, modality: str) -> str:
    """``1 clip``, ``5,000 images``."""
    return f"{numbers.count(n)} {noun(modality, n)}"
