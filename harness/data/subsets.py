"""A part of a dataset, by a list of ids: the paper measures on 471 of TokenBench's 500 videos, for example."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar, cast

from harness.data.base import AssetSource, Clip, ClipSource, Dataset, Decoded, ImageSource, Model, Sample
from harness.errors import BenchError

_SHOWN = 5  # ids that a message names before it counts the rest

D = TypeVar("D", bound=Dataset)


def subset(dataset: D, file: Path) -> D:
    """The samples whose ids a file lists, in the dataset's order.

    What the list names and a complete copy would have, but this one has not, is missing: `official_ids` of the
    subset are the listed ids, and a note counts them.

    Args:
        file: UTF-8, one id a line; empty lines and lines that begin with ``#`` are skipped. Or a ``.csv`` with a
            column `file_identifier`, as TRELLIS publishes them. An entry may be written as `Dataset.id_of` knows.

    Raises:
        BenchError: no such file, no text, no ids, ids that are listed twice or that the dataset does not know,
            or none of them is there.
    """
    listed = [dataset.id_of(entry) for entry in _listed(file)]
    places = {sample.id: index for index, sample in enumerate(dataset.samples)}
    known = places.keys() | set(dataset.official_ids() or ())
    if unknown := [id_ for id_ in listed if id_ not in known and not dataset.may_have(id_)]:
        example = f"; its ids are like {dataset.samples[0].id}" if places else ""
        raise BenchError(f"{file}: {_some(unknown)} not in {dataset.title} ({dataset.name}){example}")
    if twice := [id_ for id_, count in Counter(listed).items() if count > 1]:
        raise BenchError(f"{file}: {_some(twice)} listed more than once")
    there = sorted(places[id_] for id_ in listed if id_ in places)
    if not there:
        raise BenchError(f"{file}: this copy of {dataset.title} has none of the {len(listed):,} listed")
    if isinstance(dataset, ImageSource):
        return cast("D", _ImageSubset(dataset, there, listed, file))
    if isinstance(dataset, ClipSource):
        return cast("D", _ClipSubset(dataset, there, listed, file))
    if isinstance(dataset, AssetSource):
        return cast("D", _AssetSubset(dataset, there, listed, file))
    raise TypeError(f"a {type(dataset).__name__} is neither of images nor of clips nor of assets")


class _Subset(Dataset):
    """Everything but the reading of samples, which the kinds do for themselves."""

    def __init__(self, whole: Dataset, indices: Sequence[int], listed: Sequence[str], file: Path) -> None:
        self.name, self.expected, self.credits = whole.name, whole.expected, whole.credits
        self.title = f"{len(listed):,} of {whole.title} by {file.name}"
        there = {whole.samples[index].id for index in indices}
        absent = [id_ for id_ in listed if id_ not in there]
        note = f"{len(absent):,} of the {len(listed):,} listed are missing: {_first(absent)}"
        self.notes = (*whole.notes, note) if absent else whole.notes
        self._indices = tuple(indices)
        self._listed = tuple(sorted(listed))
        self._samples = tuple(whole.samples[index] for index in indices)
        self._stamp = whole.stamp
        self.class_names = whole.class_names
        if whole.captions is not None:
            self.captions = tuple(whole.captions[index] for index in indices)

    @property
    def samples(self) -> Sequence[Sample]:
        return self._samples

    def official_ids(self) -> Sequence[str]:
        return self._listed

    def stamp(self, index: int) -> str:
        return self._stamp(self._indices[index])


class _ImageSubset(_Subset, ImageSource):
    def __init__(self, whole: ImageSource, indices: Sequence[int], listed: Sequence[str], file: Path) -> None:
        super().__init__(whole, indices, listed, file)
        self._whole = whole

    def read(self, index: int) -> Decoded:
        return self._whole.read(self._indices[index])


class _ClipSubset(_Subset, ClipSource):
    def __init__(self, whole: ClipSource, indices: Sequence[int], listed: Sequence[str], file: Path) -> None:
        super().__init__(whole, indices, listed, file)
        self._whole = whole

    def open(self, index: int) -> Clip:
        return self._whole.open(self._indices[index])


class _AssetSubset(_Subset, AssetSource):
    def __init__(self, whole: AssetSource, indices: Sequence[int], listed: Sequence[str], file: Path) -> None:
        super().__init__(whole, indices, listed, file)
        self._whole = whole

    def open(self, index: int) -> Model:
        return self._whole.open(self._indices[index])


def _listed(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BenchError(f"{file}: {error.strerror or error}; give a file with one id a line") from None
    except UnicodeDecodeError:
        raise BenchError(f"{file}: is no UTF-8 text; give a file with one id a line") from None
    if file.suffix.lower() == ".csv":
        return _identifiers(file, text)
    lines = [line.strip() for line in text.splitlines()]
    ids = [line for line in lines if line and not line.startswith("#")]
    if not ids:
        raise BenchError(f"{file}: lists no ids")
    return ids


def _identifiers(file: Path, text: str) -> list[str]:
    try:
        ids = [row["file_identifier"].strip() for row in csv.DictReader(io.StringIO(text))]
    except (KeyError, AttributeError, csv.Error):
        raise BenchError(
            f"{file}: has no column file_identifier in every line; give TRELLIS's csv, or one id a line in a .txt"
        ) from None
    if not ids:
        raise BenchError(f"{file}: lists no ids")
    return ids


def _first(ids: Sequence[str]) -> str:
    shown = ", ".join(ids[:_SHOWN])
    return f"{shown} and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else shown


def _some(ids: Sequence[str]) -> str:
    return f"{_first(ids)} {'is' if len(ids) == 1 else 'are'}"
