"""What a model in training can do on data that it is not trained on: PSNR of images, clips, assets; zero-shot top-1.

8 bits throughout. The harness has the exact protocols; these figures are for the curve.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from atoken.assets import splat
from atoken.assets.asset import Asset
from atoken.config import Gathering
from atoken.media import MediaError, is_video
from atoken.text import TextTower, accuracy, class_vectors
from atoken.text.prompts import class_name
from atoken.tokenizer import AToken
from atoken.training.data import Prepared, center_crop, check_gathering, load_photos, load_prepared
from atoken.training.errors import TrainingError

__all__ = ["Labelled", "Validation", "load_validation", "mean_psnr", "psnr"]

SIZE = 256
"""Side of the centre crop of images and, at most, of clips."""
FRAMES = 32
"""First frames of a clip that count."""
TEMPLATES = ("a photo of {}",)
PICTURES = 4
"""Of an asset, the first of its pictures."""
BATCH = 8


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Images of known classes: uint8 [N, S, S, 3], labels [N], class names."""

    pixels: np.ndarray
    labels: Tensor
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Validation:
    """Held-out data, decoded.

    Attributes:
        images: uint8 [H, W, 3], 256 pixels or more on each side.
        clips: by name, uint8 [T, H, W, 3].
        assets: with their pictures.
        labelled: for zero-shot classification.
        skipped: "name: reason" of files that could not be used.
    """

    images: Sequence[np.ndarray] = ()
    clips: Mapping[str, np.ndarray] = field(default_factory=dict)
    assets: Sequence[Prepared] = ()
    labelled: Labelled | None = None
    skipped: Sequence[str] = ()

    def measure(self, model: AToken, tower: TextTower | None) -> dict[str, float]:
        """Figures of a model, by name; those that its shape or what is given allows.

        `val_images_psnr`: mean over images. `val_clips_psnr`: mean over clips, one MSE each; also one figure a clip.
        `val_assets_psnr`: mean over pictures on black. `val_top1`: share of labelled images.
        """
        figures: dict[str, float] = {}
        if self.images:
            figures["val_images_psnr"] = mean_psnr(model, self.images)
        if self.clips and model.config.patch[0] > 1:
            each = {name: _clip_psnr(model, clip) for name, clip in self.clips.items()}
            figures |= {f"val_clip_{name}_psnr": value for name, value in each.items()}
            figures["val_clips_psnr"] = float(np.mean(list(each.values())))
        if self.assets and model.gaussian_decoder is not None:
            figures["val_assets_psnr"] = float(np.mean([_asset_psnr(model, asset) for asset in self.assets]))
        if self.labelled is not None and tower is not None:
            figures["val_top1"] = _top1(model, tower, self.labelled)
        return figures


def psnr(rebuilt: np.ndarray, original: np.ndarray) -> float:
    """10 log10(255^2 / MSE) of two uint8 arrays; infinite if they are equal."""
    error = float(np.mean((rebuilt.astype(np.float64) - original) ** 2))
    return 10.0 * math.log10(255.0**2 / error) if error else math.inf


def mean_psnr(model: AToken, pixels: Sequence[np.ndarray], *, sample_seed: int | None = None) -> float:
    """Mean PSNR of a model's reconstructions of the images' centre crops.

    Args:
        pixels: uint8 [H, W, 3] of at least 256 pixels on each side.
        sample_seed: decode a sample of the posterior, image i with this seed + i; the mean if None.
    """
    scores: list[float] = []
    for start in range(0, len(pixels), BATCH):
        crops = [center_crop(image, SIZE) for image in pixels[start : start + BATCH]]
        latents = model.encode(crops)
        if sample_seed is None:
            rebuilt = model.decode(latents)
        else:
            rebuilt = model.decode(latents.sample([sample_seed + start + i for i in range(len(crops))]))
        scores += map(psnr, rebuilt, crops)
    return float(np.mean(scores))


def _clip_psnr(model: AToken, clip: np.ndarray) -> float:
    return psnr(model.decode(model.encode([clip]))[0], clip)


@torch.no_grad()
def _asset_psnr(model: AToken, asset: Prepared) -> float:
    voxels = Asset(asset.features.astype(np.float32) / 255.0, asset.coords.astype(np.int32))
    gaussians = model.decode_gaussians(model.encode([voxels]))[0]
    size = asset.pictures.shape[1]
    scores = []
    for picture, camera in zip(asset.pictures[:PICTURES], asset.cameras, strict=False):
        drawn = splat.render(gaussians, camera, size, size)[..., :3].clamp(0, 1)
        wanted = np.round(picture[..., :3].astype(np.float32) * (picture[..., 3:].astype(np.float32) / 255.0))
        scores.append(psnr((drawn.cpu().numpy() * 255.0).round(), wanted))
    return float(np.mean(scores))


def _top1(model: AToken, tower: TextTower, labelled: Labelled) -> float:
    classes = class_vectors(tower, labelled.names, TEMPLATES)
    vectors = []
    for start in range(0, len(labelled.pixels), 8 * BATCH):
        vectors.append(model.embed(list(labelled.pixels[start : start + 8 * BATCH])).cpu())
    return accuracy(torch.cat(vectors), F.normalize(classes.cpu(), dim=-1), labelled.labels, top=(1,))[1]


# -- Loading ---------------------------------------------------------------------------------


def load_validation(
    given: Mapping[str, Sequence[str]],
    say: Callable[[str], None],
    *,
    labelled_side: int,
    gathering: Gathering = "nearest",
) -> Validation:
    """Read all held-out data into memory.

    Args:
        given: paths by kind: "images" folders, "videos" files or folders of them, "assets" folders of prepared assets
            (`atoken prepare`), "labelled" .parquet files with image bytes, `label` and `class_name`.
        say: is told what could not be used.
        labelled_side: that labelled images are brought to (bicubic, antialiased), as large as those that the model
            learned to name.
        gathering: by which the assets' voxels must have their colours.

    Raises:
        TrainingError: a path that is not there, or holds nothing that can be used.
    """
    images: list[np.ndarray] = []
    for folder in given.get("images", ()):
        photos = load_photos(Path(folder), smallest=SIZE)
        images += photos.pixels
        for reason in photos.skipped:
            say(f"skipped {reason}")
    clips = dict(_clip(path) for name in given.get("videos", ()) for path in _videos(Path(name)))
    files = [path for name in given.get("assets", ()) for path in _prepared(Path(name))]
    assets = [load_prepared(path) for path in files]
    for path, asset in zip(files, assets, strict=True):
        check_gathering(path, asset.gathering, gathering)
    tables = [_labelled(Path(name), labelled_side) for name in given.get("labelled", ())]
    if len(tables) > 1:
        raise TrainingError("--val labelled: give one table")
    return Validation(images=images, clips=clips, assets=assets, labelled=tables[0] if tables else None)


def _prepared(folder: Path) -> list[Path]:
    # Not what a killed `atoken prepare` left half written.
    found = sorted(path for path in folder.glob("*.npz") if not path.name.startswith("."))
    if not found:
        raise TrainingError(f"{folder}: no prepared asset (.npz) in it; make them with atoken prepare")
    return found


def _videos(path: Path) -> list[Path]:
    if not path.exists():
        raise TrainingError(f"{path}: no such file or folder")
    if path.is_file():
        return [path]
    files = sorted(p for p in path.iterdir() if p.is_dir() or is_video(p))
    if not files:
        raise TrainingError(f"{path}: no video in it")
    return files


def _clip(path: Path) -> tuple[str, np.ndarray]:
    from atoken.video import open_video

    try:
        frames = np.concatenate(list(islice(open_video(path).blocks(FRAMES), 1)))
    except MediaError as error:
        raise TrainingError(str(error)) from None
    height, width = (min(SIZE, side) for side in frames.shape[1:3])
    top, left = (frames.shape[1] - height) // 2, (frames.shape[2] - width) // 2
    return path.stem, frames[:, top : top + height, left : left + width]


def _labelled(path: Path, size: int) -> Labelled:
    try:
        table = pyarrow.parquet.read_table(path)
        rows = table.select(["label", "class_name"]).to_pydict()
        blobs = [cell["bytes"] if isinstance(cell, dict) else cell for cell in table["image"].to_pylist()]
    except (OSError, KeyError, pyarrow.ArrowException) as error:
        raise TrainingError(f"{path}: needs columns image, label and class_name ({error})") from None
    names = dict(sorted(zip(rows["label"], rows["class_name"], strict=True)))
    place = {label: index for index, label in enumerate(names)}
    pixels = [
        np.asarray(Image.open(io.BytesIO(blob)).convert("RGB").resize((size, size), Image.Resampling.BICUBIC))
        for blob in blobs
    ]
    labels = torch.tensor([place[label] for label in rows["label"]])
    return Labelled(np.stack(pixels), labels, tuple(map(class_name, names.values())))
