"""What a record's gallery holds: images, clips and assets, read strictly."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

_PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One sample of a run's gallery; the three paths lie below the run's folder.

    ``error_max`` is the grey-level difference at which the error map's colours end.
    """

    id: str
    rank: str
    metric: str
    value: float | None
    original: Path
    reconstruction: Path
    error: Path
    error_max: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """One sample that was put into a class; `picture` lies below the run's folder.

    Attributes:
        label, predicted: names of its class and of the nearest one.
        score: cosine of the nearest.
    """

    id: str
    rank: str
    metric: str
    value: float | None
    picture: Path
    label: str
    predicted: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """What is shown as a video of original, reconstruction and error side by side (see `harness.clip_gallery`).

    Attributes:
        unit: what one of its pictures is called.
        video, poster: paths below the run's folder; the poster is picture number `poster_frame`, without loss.
        frames: how many pictures it has.
        height, width: of one of the three panels; `scale` of its pixels stand for one of what was rendered or read.
    """

    unit: ClassVar[str] = "frame"
    id: str
    rank: str
    metric: str
    value: float | None
    video: Path
    poster: Path
    poster_frame: int
    frames: int
    rate: float
    height: int
    width: int
    scale: float
    error_max: float
    lossless: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPicture(Film):
    """One clip of a run's gallery.

    Attributes:
        tile: frames, rows and columns that the tokenizer treats apart from the next; None where it does not cut.
    """

    tile: tuple[int | None, int | None, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetPicture(Film):
    """One asset of a run's gallery, as a turntable (see `harness.asset_gallery`).

    Attributes:
        ground: the colour that all views lie on, RGB, 0 to 255.
        rms: of each shown view, root of the mean squared error in grey levels.
        splat: PLY file with `splat_gaussians` of the `gaussians`; all three None without Gaussians.
        voxels: None where the tokenizer has no grid.
    """

    unit: ClassVar[str] = "view"
    ground: tuple[int, int, int]
    rms: tuple[float, ...]
    tokens: int
    voxels: int | None
    gaussians: int | None
    splat: Path | None
    splat_gaussians: int | None


def read_picture(folder: Path, entry: Mapping[str, Any]) -> Picture:
    """An image of a run's gallery.

    Raises:
        KeyError, TypeError, ValueError: damaged; the message says where.
    """

    def inside(key: str) -> Path:
        return _inside(folder, entry[key], *_PICTURES)

    return Picture(
        id=str(entry["id"]),
        rank=str(entry["rank"]),
        metric=str(entry["metric"]),
        value=None if entry["value"] is None else float(entry["value"]),
        original=inside("original"),
        reconstruction=inside("reconstruction"),
        error=inside("error"),
        error_max=None if entry.get("error_max") is None else float(entry["error_max"]),
    )


def read_guess(folder: Path, entry: Mapping[str, Any]) -> Guess:
    """A sample of a run that classifies; raises as `read_picture`."""
    return Guess(
        id=str(entry["id"]),
        rank=str(entry["rank"]),
        metric=str(entry["metric"]),
        value=None if entry["value"] is None else float(entry["value"]),
        picture=_inside(folder, entry["original"], *_PICTURES),
        label=str(entry["label"]),
        predicted=str(entry["predicted"]),
        score=float(entry["score"]),
    )


def read_clip(folder: Path, entry: Mapping[str, Any]) -> ClipPicture:
    """A clip of a run's gallery; raises as `read_picture`."""
    t, x, y = (None if part is None else int(part) for part in entry["tile"])
    return ClipPicture(**_film(folder, entry, "frames", "poster_frame"), tile=(t, x, y))


def read_asset(folder: Path, entry: Mapping[str, Any]) -> AssetPicture:
    """An asset of a run's gallery; raises as `read_picture`."""
    film = _film(folder, entry, "views", "poster_view")
    rms = tuple(float(value) for value in entry["rms"])
    if len(rms) != film["frames"] or not all(math.isfinite(value) for value in rms):
        raise ValueError(f"gallery entry {entry['video']!r} has {len(rms)} errors for {film['frames']} views")
    red, green, blue = (int(part) for part in entry["ground"])
    splat = entry["splat"]
    return AssetPicture(
        **film,
        ground=(red, green, blue),
        rms=rms,
        tokens=int(entry["tokens"]),
        voxels=_count(entry["voxels"]),
        gaussians=_count(entry["gaussians"]),
        splat=None if splat is None else _inside(folder, splat, ".ply"),
        splat_gaussians=_count(entry["splat_gaussians"]),
    )


def _count(value: Any) -> int | None:
    return None if value is None else int(value)


def _film(folder: Path, entry: Mapping[str, Any], count: str, poster: str) -> dict[str, Any]:
    """The fields of `Film`; `count` and `poster` are the entry's own names of two of them."""
    frames, rate, sides = int(entry[count]), float(entry["rate"]), (int(entry["height"]), int(entry["width"]))
    if frames < 1 or not 0 < rate < math.inf or min(sides) < 1:
        raise ValueError(f"gallery entry {entry['video']!r} has no {count}, no rate or no size")
    video = _inside(folder, entry["video"], ".webm")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", video.stem):
        raise ValueError(f"gallery entry {entry['video']!r} cannot name a page")
    return {
        "id": str(entry["id"]),
        "rank": str(entry["rank"]),
        "metric": str(entry["metric"]),
        "value": None if entry["value"] is None else float(entry["value"]),
        "video": video,
        "poster": _inside(folder, entry["poster"], ".png"),
        "poster_frame": int(entry[poster]),
        "frames": frames,
        "rate": rate,
        "height": sides[0],
        "width": sides[1],
        "scale": float(entry["scale"]),
        "error_max": float(entry["error_max"]),
        "lossless": bool(entry["lossless"]),
    }


def _inside(folder: Path, name: object, *suffixes: str) -> Path:
    path = (folder / str(name)).resolve()
    # A record may come from anyone: it must not make the report copy other files of this machine.
    if not path.is_relative_to(folder.resolve()) or path.suffix.lower() not in suffixes:
        raise ValueError(f"gallery entry {name!r} is not a picture inside the run's folder")
    return path
