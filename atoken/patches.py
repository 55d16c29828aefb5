"""Pixels <-> tokens (FACTS section 5).

A token holds patch-frames x patch-rows x patch-columns x RGB values in [-1, 1], flattened in that
order with colour fastest. Tokens of images and videos are in raster order: t, then row, then
column; z is 0. Those of assets are voxels in any order, see `atoken.assets.asset_tokens`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from atoken.assets.asset import Asset
from atoken.assets.asset_tokens import asset_coords, asset_spec, check_asset, fill_asset, patch_channels
from atoken.errors import InputError
from atoken.tokens import ItemSpec, SparseTokens

__all__ = [
    "Fit",
    "Frames",
    "Items",
    "Output",
    "Patch",
    "Pixels",
    "as_clip",
    "check_raster",
    "check_rules",
    "converter",
    "pack_pixels",
    "raster",
    "to_pixels",
    "to_uint8",
    "unpack_pixels",
]

Patch = tuple[int, int, int]
Pixels = np.ndarray[Any, Any] | Tensor | Image.Image
"""An image [H, W, 3] or a video [T, H, W, 3]: uint8 0..255, float in [-1, 1], or a PIL image."""

Items = Sequence[Pixels | Asset]
"""What is packed together: images, videos and assets, mixed."""

Fit = Literal["pad", "crop"]
"""pad: reflect at the right and lower edge, cut off again after decoding.
crop: centre crop to whole patches, as the release does."""

Frames = Literal["pad", "drop"]
"""pad: fill the last group of frames, cut again after decoding. Fewer frames than a patch are
followed by mid grey, as the network was trained (images are such clips); longer clips repeat their
last frame: the network has never seen grey after moving frames, but has seen still endings.
drop: as the release: surplus frames of a long clip are lost, a short clip comes back longer."""

Output = Literal["uint8", "float"]
"""uint8: clamped and rounded to nearest. float: float32, about [-1, 1], not clamped."""

RANGE_SLACK = 1e-3
"""Tolerance on [-1, 1] for rounding in half precision and in resamplers."""


def pack_pixels(
    items: Items,
    *,
    patch: Patch = (4, 16, 16),
    fit: Fit = "pad",
    frames: Frames = "pad",
    device: torch.device | str = "cpu",
) -> SparseTokens:
    """Cut images and videos of any size, and assets, into one pack of pixel tokens.

    Returns:
        Tokens with float32 features [L, pt * ph * pw * 3] in [-1, 1] on `device`.

    Raises:
        InputError: an item of the wrong shape, type or range, named by its place in the list.
    """
    if isinstance(items, np.ndarray | Tensor | Image.Image | Asset):
        raise InputError("give a list of images, videos and assets; for one item write [item]")
    if not items:
        raise InputError("nothing to encode: the list of items is empty")
    check_rules(fit, frames)
    sources: list[Tensor | Asset] = []
    specs = []
    for index, item in enumerate(items):
        try:
            if isinstance(item, Asset):
                sources.append(item)
                specs.append(asset_spec(item, patch))
            else:
                clip, is_image = as_clip(item)
                sources.append(clip)
                specs.append(_spec(clip, is_image, patch, fit, frames))
        except InputError as error:
            raise InputError(f"item {index}: {error}") from None
    lengths = tuple(spec.tokens(patch) for spec in specs)
    pt, ph, pw = patch
    features = torch.zeros(sum(lengths), pt * ph * pw * 3, device=device)
    coords = []
    for rows, source, spec in zip(features.split_with_sizes(lengths), sources, specs, strict=True):
        if isinstance(source, Asset):
            coords.append(asset_coords(source).to(device))
            fill_asset(rows, source)
        else:
            coords.append(raster(spec.grid(patch)).to(device))
            _fill(rows, source, spec, spec.grid(patch), patch)
    return SparseTokens(features, torch.cat(coords), lengths, tuple(specs))


def check_rules(fit: Fit, frames: Frames) -> None:
    """Raise InputError unless both are rules that exist."""
    if fit not in ("pad", "crop") or frames not in ("pad", "drop"):
        raise InputError(f"fit must be pad or crop, frames pad or drop; got {fit!r}, {frames!r}")


def check_raster(tokens: SparseTokens, patch: Patch = (4, 16, 16)) -> None:
    """Make sure that pixels can be put together from `tokens`, before any work goes into them.

    Raises:
        InputError: the coordinates of an image or video are not the full raster that its spec says,
            or those of an asset not as many voxels, each once.
    """
    for item in tokens.split():
        spec = item.items[0]
        if spec.kind == "asset":
            check_asset(item)
            continue
        t, h, w = spec.grid(patch)
        whole = t * h * w == len(item.coords)
        if whole:
            coords = item.coords.clone()
            coords[:, 0] -= item.coords[0, 0]
            whole = torch.equal(coords, raster((t, h, w)).to(coords.device))
        if not whole:
            raise InputError(
                f"{spec.kind} of {spec.out_frames}x{spec.out_height}x{spec.out_width}: its {len(item.coords)} "
                f"tokens are not the {t}x{h}x{w} raster that its size needs; keep all tokens, in order"
            )


def unpack_pixels(tokens: SparseTokens, patch: Patch = (4, 16, 16)) -> list[Tensor]:
    """The items of pixel tokens, cut back to the size that their specs say.

    Returns:
        Per item [T, H, W, 3], the dtype and device of the features, not clamped; T is 1 for images.
        For an asset the patches of its voxels [L, ph * pw * 3], in the order of its tokens.

    Raises:
        InputError: as `check_raster`.
    """
    check_raster(tokens, patch)
    out = []
    for rows, spec in zip(tokens.features.split_with_sizes(tokens.lengths), tokens.items, strict=True):
        if spec.kind == "asset":
            out.append(rows[:, : patch_channels(patch)])
            continue
        clip = to_pixels(rows, spec.grid(patch), patch, spec.out_frames)
        out.append(clip[:, : spec.out_height, : spec.out_width])
    return out


def to_pixels(rows: Tensor, grid: tuple[int, int, int], patch: Patch, frames: int) -> Tensor:
    """The first `frames` frames [frames, h * ph, w * pw, 3] of a raster of pixel tokens [t * h * w, C]."""
    (t, h, w), (pt, ph, pw) = grid, patch
    # A single group of frames keeps only those that are asked for: an image needs one of four.
    cells = rows.view(t, h, w, pt, ph, pw, 3)[:, :, :, :frames]
    return cells.permute(0, 3, 1, 4, 2, 5, 6).reshape(-1, h * ph, w * pw, 3)[:frames]


def to_uint8(pixels: Tensor) -> Tensor:
    """[-1, 1] -> 0..255, clamped and rounded to nearest (the release truncates)."""
    return (pixels.float() + 1.0).mul_(127.5).clamp_(0.0, 255.0).round_().to(torch.uint8)


def converter(output: Output) -> Callable[[Tensor], np.ndarray[Any, Any]]:
    """A function from decoded pixels on any device to arrays of the kind asked for.

    Raises:
        InputError: no such kind.
    """
    if output not in ("uint8", "float"):
        raise InputError(f"output must be 'uint8' or 'float', got {output!r}")
    return lambda clip: (to_uint8(clip) if output == "uint8" else clip).cpu().numpy()


def as_clip(item: Pixels) -> tuple[Tensor, bool]:
    """[T, H, W, 3] uint8 or floating point, and whether it is an image.

    Raises:
        InputError: another shape or type, floats that are not finite or not in [-1, 1].
    """
    if isinstance(item, Image.Image):
        item = np.asarray(item.convert("RGB"))
    if isinstance(item, np.ndarray):
        if item.dtype.kind not in "uif":
            raise InputError(f"pixels must be uint8 or float, got {item.dtype}")
        if item.dtype.itemsize > 8 or not item.dtype.isnative:
            raise InputError(f"pixels of type {item.dtype} are not supported; use uint8 or float32")
        # torch shares the memory; it cannot share read-only or negatively strided arrays.
        plain = np.ascontiguousarray(item)
        item = torch.from_numpy(plain if plain.flags.writeable else plain.copy())
    if not isinstance(item, Tensor):
        raise InputError(f"expected an array, a tensor or a PIL image, got {type(item).__name__}")
    if item.ndim not in (3, 4) or item.shape[-1] != 3:
        raise InputError(f"expected [H, W, 3] or [T, H, W, 3] with RGB last, got {list(item.shape)}")
    if item.numel() == 0:
        raise InputError(f"there are no pixels in {list(item.shape)}")
    if item.dtype.is_floating_point:
        low, high = (float(value) for value in item.detach().aminmax())
        if not -1 - RANGE_SLACK <= low <= high <= 1 + RANGE_SLACK:
            raise InputError(
                f"float pixels must be finite and in [-1, 1], got {low:g}..{high:g}; "
                "scale them (x / 127.5 - 1) or pass uint8"
            )
    elif item.dtype != torch.uint8:
        raise InputError(f"pixels must be uint8 or float, got {item.dtype}")
    is_image = item.ndim == 3
    return item.unsqueeze(0) if is_image else item, is_image


def _spec(clip: Tensor, is_image: bool, patch: Patch, fit: Fit, frames: Frames) -> ItemSpec:
    count, height, width, _ = clip.shape
    pt, ph, pw = patch
    out_frames, out_height, out_width, top, left = count, height, width, 0, 0
    if fit == "crop":
        out_height, out_width = height // ph * ph, width // pw * pw
        if not out_height or not out_width:
            raise InputError(f"{height}x{width} is smaller than a {ph}x{pw} patch; use fit='pad'")
        top, left = (height - out_height) // 2, (width - out_width) // 2
    if frames == "drop" and not is_image:
        out_frames = max(count // pt * pt, pt)
    return ItemSpec(
        kind="image" if is_image else "video",
        frames=count,
        height=height,
        width=width,
        out_frames=out_frames,
        out_height=out_height,
        out_width=out_width,
        top=top,
        left=left,
    )


def raster(grid: tuple[int, int, int]) -> Tensor:
    """Coordinates [t * h * w, 4] int32 of the tokens of a whole item (t, rows, columns), in order."""
    t, h, w = (torch.arange(n, dtype=torch.int32) for n in grid)
    return torch.cartesian_prod(t, h, w, torch.zeros(1, dtype=torch.int32))


def _reflected(size: int, padded: int) -> Tensor:
    """Source index of each position 0..padded-1: 0 1 2 1 0 1 2 ..., for any padding."""
    period = max(2 * (size - 1), 1)
    index = torch.arange(padded) % period
    return torch.where(index < size, index, period - index)


def _fill(rows: Tensor, clip: Tensor, spec: ItemSpec, grid: tuple[int, int, int], patch: Patch) -> None:
    """Write the pixels of `clip`, padded or cropped, into the zeroed token rows of its item."""
    (t, h, w), (pt, ph, pw) = grid, patch
    clip = clip.detach().to(rows.device)
    clip = clip[: spec.out_frames]
    clip = clip[:, spec.top : spec.top + spec.out_height, spec.left : spec.left + spec.out_width]
    if spec.out_height < h * ph:
        clip = clip.index_select(1, _reflected(spec.out_height, h * ph).to(clip.device))
    if spec.out_width < w * pw:
        clip = clip.index_select(2, _reflected(spec.out_width, w * pw).to(clip.device))
    if clip.shape[0] > pt and clip.shape[0] < t * pt:
        still = clip[-1:].expand(t * pt - clip.shape[0], -1, -1, -1)
        clip = torch.cat([clip, still])
    # A clip shorter than a patch leaves the other frames at zero, which is mid grey.
    steps = min(clip.shape[0], pt)
    cells = rows.view(t, h, w, pt, ph, pw, 3)[:, :, :, :steps].permute(0, 3, 1, 4, 2, 5, 6)
    cells.copy_(clip.reshape(t, steps, h, ph, w, pw, 3))
    if clip.dtype == torch.uint8:
        cells.div_(127.5).sub_(1.0)
