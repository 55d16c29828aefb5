"""What the samples of an experiment are called."""

from __future__ import annotations

_NOUNS = {"image": ("image", "images"), "video": ("clip", "clips"), "asset": ("asset", "assets")}


def noun(modality: str, n: int = 2) -> str:
    """``clip`` for one, ``clips`` for any other number."""
    one, many = _NOUNS.get(modality, ("sample", "samples"))
    return one if n == 1 else many
