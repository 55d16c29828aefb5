"""``data check``: is this copy of a dataset whole, and which files of it are broken or missing?"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from harness.console import Console
from harness.data.base import ImageSource, SampleError
from harness.data.catalog import open_images
from harness.data.fingerprint import content_sha256, ids_sha256
from harness.data.images import ImageDataset

Progress = Callable[[int], None]
_SHOWN = 20  # names a line lists before it counts the rest


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """What a dataset holds.

    Attributes:
        name, title, expected: as in `harness.data.base.Dataset`.
        found: samples that are there.
        labelled: how many of them have a label.
        broken: id and reason of each sample that cannot be decoded.
        missing: official ids that are not there; empty where no official list is known.
        unexpected: ids that are there and are not official.
        sizes: smallest and largest ``(height, width)`` by area, of the readable samples; None without any.
        ids_sha256: over the ids of all samples.
        content_sha256: over ids and bytes of the readable ones, as a run's record has it.
        notes: the dataset's own.
    """

    name: str
    title: str
    expected: int | None
    found: int
    labelled: int
    broken: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    sizes: tuple[tuple[int, int], tuple[int, int]] | None
    ids_sha256: str
    content_sha256: str
    notes: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Every expected sample is there and readable, and nothing else."""
        return not (self.broken or self.missing or self.unexpected) and self.expected in (None, self.found)

    def lines(self) -> list[str]:
        """For people, one fact a line."""
        readable = self.found - len(self.broken)
        of = "" if self.expected is None else f" of {self.expected:,} expected"
        lines = [f"{self.title} ({self.name}): {readable:,} readable images{of}"]
        if self.sizes:
            (h, w), (high, wide) = self.sizes
            lines.append(f"sizes: {w} x {h} to {wide} x {high} pixels")
        lines.append(f"labels: {self.labelled:,} of {self.found:,}")
        lines += self.notes
        lines += [f"broken: {sample_id}: {reason}" for sample_id, reason in self.broken[:_SHOWN]]
        if len(self.broken) > _SHOWN:
            lines.append(f"broken: and {len(self.broken) - _SHOWN:,} more")
        lines += _listed("missing", self.missing) + _listed("not of this set", self.unexpected)
        lines += [f"ids sha256: {self.ids_sha256}", f"content sha256: {self.content_sha256}"]
        return lines


def check(spec: str) -> int:
    """The command ``data check``: print what a dataset holds.

    Args:
        spec: ``NAME`` or ``NAME=PATH``.

    Returns:
        the exit status: 0 where the copy is whole, 1 where something is missing or broken.

    Raises:
        BenchError: it cannot be opened.
    """
    report = _inspected(spec)
    print("\n".join(report.lines()))
    return 0 if report.whole else 1


def fingerprint(spec: str) -> int:
    """The command ``data fingerprint``: print count and hashes as a run's record has them.

    Samples are decoded for it, since a record's hash leaves out what cannot be read.

    Args:
        spec: ``NAME`` or ``NAME=PATH``.

    Returns:
        the exit status: 0.

    Raises:
        BenchError: it cannot be opened.
    """
    report = _inspected(spec)
    print(f"count: {report.found - len(report.broken)}")
    print(f"ids sha256: {report.ids_sha256}")
    print(f"content sha256: {report.content_sha256}")
    return 0


def _inspected(spec: str) -> CheckReport:
    name, _, location = spec.partition("=")
    dataset = open_images(name, location or None)
    with Console().progress(dataset.title, len(dataset)) as progress:
        return inspect(dataset, progress=progress)


def inspect(dataset: ImageSource, *, progress: Progress | None = None) -> CheckReport:
    """Decode every sample once.

    Args:
        progress: called with 1 after each sample.
    """
    broken: list[tuple[str, str]] = []
    hashes: list[tuple[str, str]] = []
    sizes: list[tuple[int, int]] = []
    samples = dataset.samples
    for sample, result in zip(samples, _read_all(dataset), strict=True):
        if isinstance(result, SampleError):
            broken.append((result.sample_id, result.reason))
        else:
            sha256, size = result
            hashes.append((sample.id, sha256))
            sizes.append(size)
        if progress:
            progress(1)
    official: Sequence[str] | None = None
    notes: tuple[str, ...] = ()
    if isinstance(dataset, ImageDataset):
        official, notes = dataset.official_ids(), dataset.notes
    ids = {sample.id for sample in samples}
    by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    return CheckReport(
        name=dataset.name,
        title=dataset.title,
        expected=dataset.expected,
        found=len(samples),
        labelled=sum(sample.label is not None for sample in samples),
        broken=tuple(broken),
        missing=() if official is None else tuple(sorted(set(official) - ids)),
        unexpected=() if official is None else tuple(sorted(ids - set(official))),
        sizes=(by_area[0], by_area[-1]) if by_area else None,
        ids_sha256=ids_sha256(sample.id for sample in samples),
        content_sha256=content_sha256(hashes),
        notes=notes,
    )


def _read_all(dataset: ImageSource) -> Iterator[tuple[str, tuple[int, int]] | SampleError]:
    """In order, with as many threads as cores (decoders release the lock) and few samples in flight."""
    threads = os.cpu_count() or 1
    waiting: deque[Future[tuple[str, tuple[int, int]] | SampleError]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for index in range(len(dataset)):
            waiting.append(pool.submit(_read, dataset, index))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read(dataset: ImageSource, index: int) -> tuple[str, tuple[int, int]] | SampleError:
    try:
        decoded = dataset.read(index)
    except SampleError as error:
        return error
    height, width = decoded.pixels.shape[:2]
    return decoded.sha256, (height, width)


def _listed(word: str, names: tuple[str, ...]) -> list[str]:
    if not names:
        return []
    rest = f", and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return [f"{word}: {len(names):,}: {', '.join(names[:_SHOWN])}{rest}"]
