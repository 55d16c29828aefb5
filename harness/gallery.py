"""Pictures of the worst, the median and the best samples: original, reconstruction and error map."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.data.prepare import Pipeline
from harness.errors import BenchError
from harness.loading import Prepared, prepared
from harness.measuring import Measurer
from harness.plan import Plan
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


def write(
    plan: Plan, folder: Path, pipeline: Pipeline, ids: Sequence[str], columns: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Reconstruct the chosen samples once more and write their pictures.

    Ranked by the first per-sample column of the protocol's first metric that has one; without any, there
    is no gallery.

    Returns:
        the record's ``gallery`` entries.

    Raises:
        BenchError: a sample cannot be read any more, or the folder cannot be written.
    """
    ranking = next(((metric, metric.columns[0]) for metric in plan.metrics if metric.columns), None)
    if ranking is None:
        return []
    metric, column = ranking
    entries = chosen(columns[column], higher_is_better=metric.higher_is_better)
    places = {sample.id: place for place, sample in enumerate(plan.dataset.samples)}
    measurer = Measurer(plan.tokenizer, plan.protocol, (), plan.settings.device)
    make_folder(folder / FOLDER)
    result: list[dict[str, Any]] = []
    stream = prepared(plan.dataset, pipeline, [places[ids[index]] for _, index in entries], workers=0)
    for (rank, index), item in zip(entries, stream, strict=True):
        if not isinstance(item, Prepared):
            raise BenchError(f"{item.id}: could be measured and cannot be read for the gallery: {item.reason}")
        (image,) = measurer.reconstruct([item])
        original, reconstruction = (
            x.permute(1, 2, 0).cpu().numpy() for x in (image.reference_u8, image.reconstruction_u8)
        )
        pictures = {
            "original": original,
            "reconstruction": reconstruction,
            "error": error_map(original, reconstruction),
        }
        entry: dict[str, Any] = {"id": item.id, "rank": rank, "metric": column, "value": float(columns[column][index])}
        for kind, pixels in pictures.items():
            name = f"{FOLDER}/{index:06d}-{kind}.png"
            write_atomically(folder / name, _png(pixels))
            entry[kind] = name
        result.append({**entry, "error_max": ERROR_MAX})
    shown = {entry[kind] for entry in result for kind in ("original", "reconstruction", "error")}
    for stale in (folder / FOLDER).glob("*.png"):
        if f"{FOLDER}/{stale.name}" not in shown:
            stale.unlink()
    return result


def _png(pixels: np.ndarray) -> bytes:
    image = Image.fromarray(pixels)
    factor = -(-max(image.size) // LONGEST_SIDE)
    if factor > 1:
        image = image.reduce((min(factor, image.width), min(factor, image.height)))
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=1)  # a tenth larger, in a third of the time
    return data.getvalue()
