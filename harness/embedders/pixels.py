"""What the adapters of other packages' image towers share: pixels normalised, batches of one shape, a text tower."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from atoken.errors import InputError
from atoken.text import TextTower, load_tower
from harness.embedders.base import Embedder, EmbedderCard, TextReader, unit
from harness.errors import BenchError
from harness.tokenizers.atoken import DTYPES

Triple = tuple[float, float, float]

BATCH = 16
"""Rows of a forward pass beside the CPU, short ones filled up: with the shape the order of sums is fixed. On the CPU
one image at a time is as quick, and needs no filling."""


class PixelEmbedder(Embedder):
    """A network that takes pictures of one size and gives a vector of each.

    Args:
        network: float ``[B, 3, H, W]``, normalised, to ``[B, width]``.
        mean, std: of red, green and blue in [0, 1], the model's own.
        patch: sides must be multiples of it; 1 where `card.side` says all.
        tower: of texts; None where there is none.
        dtype: of the network.
    """

    def __init__(
        self,
        card: EmbedderCard,
        network: Callable[[Tensor], Tensor],
        *,
        mean: Triple,
        std: Triple,
        device: str,
        dtype: torch.dtype,
        patch: int = 1,
        tower: TextTower | None = None,
    ) -> None:
        self.card = card
        self._network = network
        self._device = torch.device(device)
        self._dtype = dtype
        self._mean, self._std = (torch.tensor(values, device=self._device)[:, None, None] for values in (mean, std))
        self._patch = patch
        self._tower = tower

    @property
    def device(self) -> torch.device:
        return self._device

    @torch.inference_mode()
    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        if "image" not in self.card.modalities:
            raise self._cannot("images")
        for image in images:
            self._check(*image.shape[:2])
        sizes: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(images):
            sizes.setdefault(image.shape[:2], []).append(index)
        batch = 1 if self._device.type == "cpu" else BATCH
        vectors = np.empty((len(images), self.card.width), np.float32)
        for rows in sizes.values():
            for start in range(0, len(rows), batch):
                part = rows[start : start + batch]
                filled = part + part[-1:] * (batch - len(part))
                pixels = torch.stack([self._normalised(images[row]) for row in filled]).to(self._dtype)
                vectors[part] = unit(self._network(pixels)[: len(part)].float().cpu().numpy())
        return vectors

    def _check(self, height: int, width: int) -> None:
        side, patch = self.card.side, self._patch
        if side is not None and (height, width) != (side, side):
            # Not this sample's fault: no other of the run would do.
            raise BenchError(
                f"{self.card.name}: takes images of {side} x {side}, not of {height} x {width}; "
                f"take a protocol that makes them (--protocol NAME-{side}), or weights of that resolution"
            )
        if height % patch or width % patch:
            raise InputError(f"an image of {height} x {width}: its sides are no multiples of {patch}")

    def _normalised(self, image: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(self._device).permute(2, 0, 1).float()
        return ((pixels / 255 if image.dtype == np.uint8 else (pixels + 1) / 2) - self._mean) / self._std

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        if self._tower is None:
            raise self._cannot("texts")
        return np.asarray(self._tower.embed(texts).numpy(), np.float32)


def dtype_of(name: str) -> torch.dtype:
    """A dtype by its name on the command line.

    Raises:
        BenchError: none of the known.
    """
    if name not in DTYPES:
        raise BenchError(f"dtype {name!r} is none of {', '.join(DTYPES)}")
    return DTYPES[name]


def triple(values: object, origin: str) -> Triple:
    """Three numbers of a model's preprocessing.

    Raises:
        BenchError: anything else.
    """
    if not isinstance(values, list | tuple) or len(values) != 3 or not all(isinstance(v, int | float) for v in values):
        raise BenchError(f"{origin}: is {values!r}, not three numbers (of red, green and blue)")
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def named_tower(text: str, width: int, device: str) -> tuple[TextTower, TextReader]:
    """The text tower of ``--option text=...``, and what a card says of it.

    Args:
        text: ``siglip2:FOLDER``, ``open_clip:FOLDER`` or ``open_clip:MODEL:FILE``.
        width: that its vectors must have.

    Raises:
        BenchError: another word, or another width.
        MissingPackage: what it needs is not installed.
        CheckpointError: its files are not there, broken or another model's.
    """
    kind, _, rest = text.partition(":")
    model, _, path = rest.rpartition(":") if kind == "open_clip" else ("", "", rest)
    if kind not in ("siglip2", "open_clip") or not path:
        raise BenchError(f"--option text={text}: write siglip2:FOLDER, open_clip:FOLDER or open_clip:MODEL:FILE")
    tower = load_tower(kind, path, model=model or None, device=device)
    if tower.width != width:
        raise BenchError(f"--option text={text}: its vectors have {tower.width} numbers, those of the images {width}")
    return tower, TextReader(name=f"{kind} {model}".strip(), fingerprint=tower.fingerprint)


def safe_name(*parts: str | Path) -> str:
    """A card's name of what the user wrote: letters, digits and ``._+-``."""
    words = [part.name if isinstance(part, Path) else part for part in parts]
    return "".join(c if c.isascii() and (c.isalnum() or c in "._+-") else "-" for c in "-".join(filter(None, words)))
