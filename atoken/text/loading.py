"""Text towers by name."""

from __future__ import annotations

from pathlib import Path

import torch

from atoken.errors import InputError
from atoken.text.clean import MissingPackage
from atoken.text.store import ABOUT, StoredTower
from atoken.text.tower import TextTower, TokenTower

__all__ = ["TOWERS", "load_tower"]

TOWERS = ("sentence", "siglip2", "open_clip")


def load_tower(
    name: str,
    path: str | Path | None = None,
    *,
    model: str | None = None,
    cache: Path | None = None,
    device: torch.device | str = "cpu",
) -> TextTower:
    """A text tower.

    Args:
        name: "sentence" (its weights come with a package), "siglip2" or "open_clip".
        path: of the weights, for the latter two.
        model: open_clip's name of it.
        cache: folder for vectors of texts, so that each is read once and for all. Where the sentence encoder's package
            is missing, what it has read there is used instead.

    Raises:
        InputError: no such tower, or one that needs a path.
        MissingPackage: what it needs is not installed.
        CheckpointError: its files are not there, broken or another model's.
    """
    if name not in TOWERS:
        raise InputError(f"no text tower {name!r}; choose one of {', '.join(TOWERS)}")
    try:
        tower = _load(name, path, model, device)
    except MissingPackage:
        read = sorted(cache.glob(f"{name}-*/{ABOUT}")) if cache is not None and name == "sentence" else []
        if len(read) != 1:
            raise
        return StoredTower(read[0].parent)
    if cache is not None:
        tower.remember_in(cache)
    return tower


def _load(name: str, path: str | Path | None, model: str | None, device: torch.device | str) -> TokenTower:
    if name == "sentence":
        from atoken.text.sentence import SentenceTower

        return SentenceTower(device=device)
    if path is None:
        raise InputError(f"the text tower {name} needs the path of its weights")
    if name == "siglip2":
        from atoken.text.siglip2 import Siglip2Tower

        return Siglip2Tower(path, device=device)
    from atoken.text.open_clip import OpenClipTower

    return OpenClipTower(path, model=model, device=device)
