"""Pictures of the worst, the median and the best samples: original, reconstruction and error map."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.metrics.base import Aggregated
from harness.storage import make_folder, write_atomically

FOLDER = "gallery"
EACH = 3
# The error map's colours end at this mean absolute difference of the three channels, in grey levels of 255.
# One scale for every tokenizer, so that two galleries can be compared by eye.
ERROR_MAX = 32.0
# Longer sides are reduced for the gallery (by an integer box filter); the metrics saw the full size.
LONGEST_SIDE = 1024

# Black over violet and orange to pale yellow, rising in lightness so that it reads in grey print too.
_COLOURS = np.array([(0, 0, 0), (72, 12, 108), (168, 40, 96), (232, 104, 40), (250, 190, 60), (252, 252, 200)], float)


def chosen(values: np.ndarray, *, higher_is_better: bool) -> list[tuple[str, int]]:
    """Which samples to show: ``(rank, index)``, worst first, each sample once.

    Args:
        values: float64 ``[n]``; infinite ones take part, NaN (not defined for that sample) does not.
    """
    indices = np.flatnonzero(~np.isnan(values))
    keys = values[indices] if higher_is_better else -values[indices]
    order = indices[np.argsort(keys, kind="stable")].tolist()
    each = min(EACH, max(1, len(order) // 3))
    middle = max(0, (len(order) - each) // 2)
    ranks = [("worst", order[:each]), ("best", order[::-1][:each]), ("median", order[middle : middle + each])]
    taken: set[int] = set()
    result: dict[str, list[tuple[str, int]]] = {}
    for rank, members in ranks:
        result[rank] = [(rank, index) for index in members if index not in taken]
        taken.update(members)
    return [entry for rank in ("worst", "median", "best") for entry in result[rank]]


def error_map(reference: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    """Mean absolute difference over the channels, in colour: black is none, pale yellow `ERROR_MAX` or more.

    Args:
        reference, reconstruction: uint8 ``[H, W, 3]``.

    Returns:
        uint8 ``[H, W, 3]``.
    """
    difference = np.abs(reference.astype(np.int16) - reconstruction.astype(np.int16)).mean(axis=2)
    place = np.minimum(difference / ERROR_MAX, 1.0) * (len(_COLOURS) - 1)
    stops = np.arange(len(_COLOURS))
    channels = [np.interp(place, stops, _COLOURS[:, channel]) for channel in range(3)]
    colours: np.ndarray = np.rint(np.stack(channels, axis=2)).astype(np.uint8)
    return colours


@dataclass(frozen=True, slots=True)
class Entry:
    """One sample to show: its rank (``worst``, ``median``, ``best``) and its row."""

    rank: str
    index: int


@dataclass(frozen=True, slots=True)
class Ranked:
    """The samples to show, worst first, and the column that they were chosen by.

    Attributes:
        values: that column, float64 ``[n]``.
    """

    column: str
    values: np.ndarray
    entries: list[Entry]

    def entry(self, entry: Entry, sample_id: str) -> dict[str, Any]:
        """What every gallery entry of a record begins with."""
        value = float(self.values[entry.index])
        return {"id": sample_id, "rank": entry.rank, "metric": self.column, "value": value}


def ranked(metrics: Sequence[Aggregated], columns: Mapping[str, np.ndarray]) -> Ranked | None:
    """Choose samples by the first per-sample column of the first metric that has one; None without any."""
    metric = next((metric for metric in metrics if metric.columns), None)
    if metric is None:
        return None
    values = columns[metric.columns[0]]
    entries = [Entry(*entry) for entry in chosen(values, higher_is_better=metric.higher_is_better)]
    return Ranked(metric.columns[0], values, entries)


@dataclass(frozen=True, slots=True)
class Picture:
    """An image before and after, uint8 ``[H, W, 3]``."""

    id: str
    original: np.ndarray
    reconstruction: np.ndarray


def write(folder: Path, ranked: Ranked, pictures: Iterable[Picture]) -> list[dict[str, Any]]:
    """Write the chosen images' pictures below a run's folder.

    Args:
        pictures: in the order of `ranked.entries`.

    Returns:
        the record's ``gallery`` entries.

    Raises:
        BenchError: the folder cannot be written.
    """
    make_folder(folder / FOLDER)
    result: list[dict[str, Any]] = []
    for chosen_one, picture in zip(ranked.entries, pictures, strict=True):
        entry = ranked.entry(chosen_one, picture.id)
        shown = {
            "original": picture.original,
            "reconstruction": picture.reconstruction,
            "error": error_map(picture.original, picture.reconstruction),
        }
        for kind, pixels in shown.items():
            entry[kind] = f"{FOLDER}/{chosen_one.index:06d}-{kind}.png"
            write_atomically(folder / entry[kind], png(pixels))
        result.append({**entry, "error_max": ERROR_MAX})
    remove_stale(folder, result)
    return result


def remove_stale(folder: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Remove what an older record showed and these entries do not."""
    shown = {value for entry in entries for value in entry.values() if isinstance(value, str)}
    for file in (folder / FOLDER).iterdir():
        if f"{FOLDER}/{file.name}" not in shown:
            file.unlink()


def png(pixels: np.ndarray) -> bytes:
    """A picture for the gallery, uint8 ``[H, W, 3]``, reduced to `LONGEST_SIDE`."""
    image = Image.fromarray(pixels)
    factor = -(-max(image.size) // LONGEST_SIDE)
    if factor > 1:
        image = image.reduce((min(factor, image.width), min(factor, image.height)))
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=1)  # a tenth larger, in a third of the time
    return data.getvalue()
