"""JPEG and WebP as reference rows: at a quality (``jpeg:75``) or at a rate (``jpeg@0.375`` bit per pixel).

A codec is measured like any tokenizer: 8-bit RGB goes in, the file's size is the rate (headers
included), the decoded file is the reconstruction. At a rate, one quality serves the whole set: the
largest whose mean rate over the images does not exceed the target.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image, features
from torch import Tensor

from atoken.errors import InputError
from harness.data.prepare import eight_bit, to_unit_range
from harness.errors import BenchError
from harness.tokenizers.arguments import bits_per_pixel, whole_number
from harness.tokenizers.base import Encoded, LatentMode, Tokenizer, TokenizerCard

# Pixels held while a quality is searched: all of 1,365 images of 256x256, an even selection of more.
SEARCH_BYTES = 256 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """A file format of Pillow with every setting that moves its rate or its pixels.

    Attributes:
        name, title, pillow: as in a specification, in a table and in Pillow.
        lowest, highest: qualities that a search may choose.
        longest_side: in pixels, what the format can hold.
        save: arguments of `PIL.Image.Image.save`.
        library: Pillow's feature that names the encoder's version.
    """

    name: str
    title: str
    pillow: str
    lowest: int
    highest: int
    longest_side: int
    save: dict[str, Any]
    library: str

    def encode(self, pixels: np.ndarray, quality: int) -> bytes:
        """uint8 ``[H, W, 3]`` RGB to the bytes of a file.

        Raises:
            InputError: the format cannot hold an image of that size.
        """
        height, width = pixels.shape[:2]
        if max(height, width) > self.longest_side:
            raise InputError(
                f"{self.title} holds at most {self.longest_side} pixels a side, the image has {width}x{height}; "
                "crop it or choose another codec"
            )
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, self.pillow, quality=quality, **self.save)
        return file.getvalue()

    def decode(self, data: bytes) -> np.ndarray:
        """The bytes of a file to uint8 ``[H, W, 3]`` RGB."""
        with Image.open(io.BytesIO(data), formats=[self.pillow]) as image:
            return np.array(image.convert("RGB"))

    def settings(self) -> dict[str, Any]:
        """For the card. The encoder's version is part of it: another one writes other files."""
        version = features.version(self.library)
        return {"encoder": f"{self.library} {version}, Pillow {PIL.__version__}", "subsampling": "4:2:0", **self.save}


# Pillow warns of JPEG qualities above 95: they grow the file with hardly any gain. Chroma at half
# resolution is what both formats do by default (WebP knows nothing else) and the better choice at
# the low rates that tokenizers are compared at.
JPEG = Format(
    name="jpeg",
    title="JPEG",
    pillow="JPEG",
    lowest=1,
    highest=95,
    longest_side=65500,
    save={"subsampling": "4:2:0", "optimize": True, "progressive": False},
    library="libjpeg_turbo" if features.check("libjpeg_turbo") else "jpg",
)
WEBP = Format(
    name="webp",
    title="WebP",
    pillow="WEBP",
    lowest=0,
    highest=100,
    longest_side=16383,
    save={"lossless": False, "method": 4},
    library="webp",
)


class Codec(Tokenizer):
    """A file format behind the adapter contract.

    Args:
        quality: the encoder's quality, or None to search it for `target`.
        target: mean bits per pixel over the set, not to be exceeded.
    """

    def __init__(self, form: Format, *, quality: int | None = None, target: float | None = None) -> None:
        if (quality is None) == (target is None):
            raise ValueError("give either a quality or a target")
        self._format = form
        self._quality = quality
        self._target = target
        self.needs_prepare = quality is None
        fixed = f"quality {quality}" if target is None else f"{target:g} bit/pixel"
        rate = {"quality": quality} if target is None else {"target_bits_per_pixel": target}
        self.card = TokenizerCard(
            name=f"{form.name}-{quality}" if target is None else f"{form.name}-{target:g}bpp",
            title=f"{form.title}, {fixed}",
            token_type="codec",
            source="file format; the encoder is in the settings",
            settings={**form.settings(), **rate},
        )

    def prepare(self, pixels: Iterable[np.ndarray]) -> None:
        """Search the quality for the target rate on these images (uint8 ``[H, W, 3]``) and put it in the card.

        One pass and bounded memory: of a set with more than `SEARCH_BYTES` of pixels, every 2nd (4th,
        ...) image is looked at, and the card says so.

        Raises:
            BenchError: no image, or even the lowest quality needs more than the target.
        """
        if self._target is None:
            return
        # An image that the format cannot hold fails by name when its turn comes; here it has no rate.
        fitting = (x for x in pixels if max(x.shape) <= self._format.longest_side)
        images, step, count = spread(fitting, SEARCH_BYTES)
        if not images:
            raise BenchError(f"{self._format.name}@{self._target:g}: no image to search the quality on")

        def rate(quality: int) -> float:
            sizes = [8 * len(self._format.encode(x, quality)) / (x.shape[0] * x.shape[1]) for x in images]
            return float(np.mean(sizes))

        quality, achieved = largest_within(rate, self._target, self._format.lowest, self._format.highest)
        if achieved > self._target:
            raise BenchError(
                f"{self._format.name}@{self._target:g}: even quality {quality} takes {achieved:.4g} bit/pixel "
                "on this set; ask for at least that"
            )
        found = {
            "quality": quality,
            "searched_bits_per_pixel": achieved,
            "searched_on": f"{len(images)} of {count} images" + ("" if step == 1 else f" (every {step}th)"),
        }
        self.restore({**self.card.settings, **found})

    def restore(self, settings: Mapping[str, Any]) -> None:
        self._quality = int(settings["quality"])
        self.card = replace(self.card, settings=dict(settings))

    def encode(
        self,
        images: Sequence[Tensor],
        *,
        latent: LatentMode,  # noqa: ARG002 - a file format has nothing to sample
        seeds: Sequence[int],  # noqa: ARG002
    ) -> Encoded:
        if self._quality is None:
            raise BenchError(f"{self.card.name}: the quality is not known before prepare() has seen the set's images")
        files = [self._format.encode(_levels(x), self._quality) for x in images]
        return Encoded(
            payload=files,
            tokens=[self.token_count(*x.shape[1:]) for x in images],
            bits=[8.0 * len(file) for file in files],
        )

    def decode(self, encoded: Encoded) -> list[Tensor]:
        pixels = (torch.from_numpy(self._format.decode(file)) for file in encoded.payload)
        return [to_unit_range(x.permute(2, 0, 1)) for x in pixels]


def largest_within(rate: Callable[[int], float], target: float, lowest: int, highest: int) -> tuple[int, float]:
    """The largest quality in [lowest, highest] whose rate does not exceed `target`, and its rate.

    Bisection, since encoders raise the rate with the quality; should the probes contradict that, or
    find nothing, every quality is tried. If none is low enough, the lowest rate there is comes back.
    """
    known: dict[int, float] = {}

    def probe(quality: int) -> float:
        if quality not in known:
            known[quality] = rate(quality)
        return known[quality]

    low, high = lowest, highest + 1  # invariant: probe(high) would exceed, probe(low) is not known to
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if probe(middle) <= target else (low, middle)
    probe(low)
    rates = [known[quality] for quality in sorted(known)]
    if rates != sorted(rates) or rates[0] > target:
        for quality in range(lowest, highest + 1):
            probe(quality)
    within = [quality for quality, value in known.items() if value <= target]
    best = max(within) if within else min(known, key=lambda quality: known[quality])
    return best, known[best]


def spread(images: Iterable[np.ndarray], limit: int) -> tuple[list[np.ndarray], int, int]:
    """An even selection of at most `limit` bytes, its step, and how many images there were.

    When the selection grows too big, every second image of it goes and the step doubles: one pass,
    without knowing the count, and the outcome depends on the images alone.
    """
    kept: list[np.ndarray] = []
    step, count, held = 1, 0, 0
    for image in images:
        if count % step == 0:
            kept.append(image)
            held += image.nbytes
        count += 1
        while held > limit and len(kept) > 1:
            kept, step = kept[::2], 2 * step
            held = sum(x.nbytes for x in kept)
    return kept, step, count


def _levels(image: Tensor) -> np.ndarray:
    """float32 ``[3, H, W]`` in [-1, 1] to uint8 ``[H, W, 3]``, to the nearest level."""
    return eight_bit(image, "half-even").permute(1, 2, 0).contiguous().cpu().numpy()


def _create(form: Format, argument: str | None) -> Codec:
    if argument is not None and argument.startswith("@"):
        return Codec(form, target=bits_per_pixel(form.name, argument))
    return Codec(form, quality=whole_number(form.name, "quality", argument, form.lowest, form.highest))


def create_jpeg(argument: str | None, *, device: str, dtype: str) -> Codec:  # noqa: ARG001
    """Factory of ``jpeg:Q`` and ``jpeg@BPP``. Codecs work in 8 bit on the CPU whatever the run's device.

    Raises:
        BenchError: no quality or rate, or one out of range.
    """
    return _create(JPEG, argument)


def create_webp(argument: str | None, *, device: str, dtype: str) -> Codec:  # noqa: ARG001
    """Factory of ``webp:Q`` and ``webp@BPP``, as `create_jpeg`."""
    return _create(WEBP, argument)
