"""``data check``: is this copy of a dataset whole, and which files of it are broken or missing?"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast, get_args

from harness.console import Console
from harness.data.base import AssetSource, ClipSource, Dataset, ImageSource, SampleError
from harness.data.catalog import DATASETS, open_dataset
from harness.data.fingerprint import content_sha256, ids_sha256
from harness.errors import BenchError
from harness.experiment import Modality

Progress = Callable[[int], None]
_SHOWN = 20  # names a line lists before it counts the rest
_BLOCK = 4  # frames of a clip that a thread holds


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """What a dataset holds.

    Attributes:
        name, title, expected, modality: as in `harness.data.base.Dataset`.
        found: samples that are there.
        labelled: how many of them have a label.
        broken: id and reason of each sample that cannot be decoded.
        missing: official ids that are not there; empty where no official list is known.
        unexpected: ids that are there and are not official.
        sizes: smallest and largest ``(height, width)`` by area, of the readable samples; None without any, and of
            assets.
        frames: of all readable clips together; None for others.
        faces: triangles of each readable asset, rising; empty for others.
        rates: frames per second that the readable clips have, rising.
        ids_sha256: over the ids of all samples.
        content_sha256: over ids and bytes of the readable ones, as a run's record has it.
        noted: id and note of each readable asset that asks for what is not there (textures, materials: grey).
        notes: the dataset's own.
    """

    name: str
    title: str
    expected: int | None
    modality: Modality
    found: int
    labelled: int
    broken: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    sizes: tuple[tuple[int, int], tuple[int, int]] | None
    frames: int | None
    faces: tuple[int, ...]
    rates: tuple[Fraction, ...]
    ids_sha256: str
    content_sha256: str
    notes: tuple[str, ...]
    noted: tuple[tuple[str, str], ...] = ()

    @property
    def whole(self) -> bool:
        """Every expected sample is there and readable, and nothing else."""
        return not (self.broken or self.missing or self.unexpected) and self.expected in (None, self.found)

    def lines(self) -> list[str]:
        """For people, one fact a line."""
        readable = self.found - len(self.broken)
        of = "" if self.expected is None else f" of {self.expected:,} expected"
        kind = {"video": "clips", "asset": "models"}.get(self.modality, "images")
        lines = [f"{self.title} ({self.name}): {readable:,} readable {kind}{of}"]
        if self.frames is not None:
            lines.append(f"frames: {self.frames:,}")
        if self.faces:
            few, many, total = self.faces[0], self.faces[-1], sum(self.faces)
            lines.append(f"faces: {few:,} to {many:,} a model, {total:,} in all")
        if self.sizes:
            (h, w), (high, wide) = self.sizes
            lines.append(f"sizes: {w} x {h} to {wide} x {high} pixels")
        if self.rates:
            lines.append(f"frames per second: {', '.join(f'{float(rate):.6g}' for rate in self.rates)}")
        if self.modality == "image":
            lines.append(f"labels: {self.labelled:,} of {self.found:,}")
        lines += self.notes
        lines += [f"broken: {sample_id}: {reason}" for sample_id, reason in self.broken[:_SHOWN]]
        if len(self.broken) > _SHOWN:
            lines.append(f"broken: and {len(self.broken) - _SHOWN:,} more")
        lines += [f"noted: {sample_id}: {note}" for sample_id, note in self.noted[:_SHOWN]]
        if len(self.noted) > _SHOWN:
            lines.append(f"noted: and {len(self.noted) - _SHOWN:,} more")
        lines += _listed("missing", self.missing) + _listed("not of this set", self.unexpected)
        lines += [f"ids sha256: {self.ids_sha256}", f"content sha256: {self.content_sha256}"]
        return lines


def check(spec: str, kind: str | None = None, only: Path | None = None) -> int:
    """The command ``data check``: print what a dataset holds.

    Args:
        spec: ``NAME`` or ``NAME=PATH``.
        kind: ``image``, ``video`` or ``asset``; None for the kind that has the name, images where both have it.
        only: a file with the ids of a subset; None for all samples.

    Returns:
        the exit status: 0 where the copy is whole, 1 where something is missing or broken.

    Raises:
        BenchError: it cannot be opened.
    """
    report = _inspected(spec, kind, only)
    print("\n".join(report.lines()))
    return 0 if report.whole else 1


def fingerprint(spec: str, kind: str | None = None, only: Path | None = None) -> int:
    """The command ``data fingerprint``: print count and hashes as a run's record has them.

    Samples are decoded for it, since a record's hash leaves out what cannot be read.

    Args:
        spec, kind, only: as for `check`.

    Returns:
        the exit status: 0.

    Raises:
        BenchError: it cannot be opened.
    """
    report = _inspected(spec, kind, only)
    print(f"count: {report.found - len(report.broken)}")
    print(f"ids sha256: {report.ids_sha256}")
    print(f"content sha256: {report.content_sha256}")
    return 0


def _inspected(spec: str, kind: str | None, only: Path | None) -> CheckReport:
    name, _, location = spec.partition("=")
    dataset = open_dataset(_modality(name, kind), name, location or None, only=only)
    with Console().progress(dataset.title, len(dataset)) as progress:
        return inspect(dataset, progress=progress)


def _modality(name: str, kind: str | None) -> Modality:
    if kind is not None:
        if kind not in get_args(Modality):
            raise BenchError(f"--kind {kind}: not one of {', '.join(get_args(Modality))}")
        return cast("Modality", kind)
    kinds = [entry.modality for entry in DATASETS if entry.name == name]
    if not kinds:
        known = dict.fromkeys(entry.name for entry in DATASETS)
        raise BenchError(f"no dataset {name!r}; there are: {', '.join(known)}")
    return "image" if "image" in kinds else kinds[0]


@dataclass(frozen=True, slots=True)
class _Readable:
    """What one sample tells once it was decoded: of an image its size, of an asset its faces, of a clip the rest."""

    sha256: str
    size: tuple[int, int] | None = None
    faces: int | None = None
    noted: tuple[str, ...] = ()
    frames: int | None = None
    rate: Fraction | None = None


def inspect(dataset: Dataset, *, progress: Progress | None = None) -> CheckReport:
    """Decode every sample once, of clips every frame.

    Args:
        progress: called with 1 after each sample.
    """
    broken: list[tuple[str, str]] = []
    read: list[tuple[str, _Readable]] = []
    samples = dataset.samples
    for sample, result in zip(samples, _read_all(dataset), strict=True):
        if isinstance(result, SampleError):
            broken.append((result.sample_id, result.reason))
        else:
            read.append((sample.id, result))
        if progress:
            progress(1)
    official = dataset.official_ids()
    ids = {sample.id for sample in samples}
    sizes = [one.size for _, one in read if one.size is not None]
    by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    return CheckReport(
        name=dataset.name,
        title=dataset.title,
        expected=dataset.expected,
        modality=dataset.modality,
        found=len(samples),
        labelled=sum(sample.label is not None for sample in samples),
        broken=tuple(broken),
        missing=() if official is None else tuple(sorted(set(official) - ids)),
        unexpected=() if official is None else tuple(sorted(ids - set(official))),
        sizes=(by_area[0], by_area[-1]) if by_area else None,
        frames=sum(one.frames or 0 for _, one in read) if dataset.modality == "video" else None,
        faces=tuple(sorted(one.faces for _, one in read if one.faces is not None)),
        rates=tuple(sorted({one.rate for _, one in read if one.rate is not None})),
        ids_sha256=ids_sha256(sample.id for sample in samples),
        content_sha256=content_sha256((sample_id, one.sha256) for sample_id, one in read),
        notes=dataset.notes,
        noted=tuple((sample_id, note) for sample_id, one in read for note in one.noted),
    )


def _read_all(dataset: Dataset) -> Iterator[_Readable | SampleError]:
    """In order, with as many threads as cores (decoders release the lock) and few samples in flight."""
    threads = os.cpu_count() or 1
    waiting: deque[Future[_Readable | SampleError]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for index in range(len(dataset)):
            waiting.append(pool.submit(_read, dataset, index))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read(dataset: Dataset, index: int) -> _Readable | SampleError:
    try:
        if isinstance(dataset, ClipSource):
            clip = dataset.open(index)
            frames = sum(len(block) for block in clip.blocks(_BLOCK))
            size = (clip.shape.height, clip.shape.width)
            return _Readable(clip.sha256, size, frames=frames, rate=clip.shape.rate)
        if isinstance(dataset, AssetSource):
            model = dataset.open(index)
            return _Readable(model.sha256, faces=len(model.mesh.faces), noted=model.mesh.notes)
        decoded = cast("ImageSource", dataset).read(index)
        height, width = decoded.pixels.shape[:2]
        return _Readable(decoded.sha256, (height, width))
    except SampleError as error:
        return error


def _listed(word: str, names: tuple[str, ...]) -> list[str]:
    if not names:
        return []
    rest = f", and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return [f"{word}: {len(names):,}: {', '.join(names[:_SHOWN])}{rest}"]
