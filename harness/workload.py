"""What a run does with the samples of one modality; `harness.execution` asks, whatever they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.console import Advance
from harness.errors import BenchError
from harness.shards import Row

if TYPE_CHECKING:
    from harness.plan import Plan


@dataclass(frozen=True, slots=True)
class Failed:
    """A sample that could not be read, prepared or encoded."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Noted:
    """A sample that was measured with less than it asks for: grey in place of a missing texture, and its like."""

    id: str
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Rows of samples, and as many entries in each column and feature.

    Attributes:
        frames: per-frame values of videos, per-view values of assets, by name, one sample after another: float64
            ``[sum of the rows' frames]``.
        noted: what measured samples asked for and did not get.
    """

    rows: list[Row]
    failed: list[Failed]
    columns: dict[str, np.ndarray]
    features: dict[str, np.ndarray]
    frames: dict[str, np.ndarray] = field(default_factory=dict)
    noted: list[Noted] = field(default_factory=list)

    @classmethod
    def of(cls, parts: Sequence[Measured]) -> Measured:
        """The parts strung together."""
        return cls(
            rows=[row for part in parts for row in part.rows],
            failed=[failed for part in parts for failed in part.failed],
            columns=joined([part.columns for part in parts]),
            features=joined([part.features for part in parts]),
            frames=joined([part.frames for part in parts]),
            noted=[noted for part in parts for noted in part.noted],
        )


def joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Concatenate arrays by name; parts without any (nothing was measured) do not count."""
    full = [part for part in parts if part]
    return {name: np.concatenate([part[name] for part in full]) for name in full[0]} if full else {}


class Workload(ABC):
    """Reads, reconstructs, measures and shows a plan's samples.

    Attributes:
        unit: what a sample is, in the plural.
    """

    unit: str

    @abstractmethod
    def look(self) -> None:
        """Show the tokenizer all of the run's samples once, for the settings that it fits to them."""

    @abstractmethod
    def measure(self, shards: Sequence[Sequence[int]], advance: Advance) -> Iterator[Measured]:
        """Measure samples, a shard at a time, in order; reads ahead across the shards' borders.

        Args:
            shards: positions in the dataset's order.
            advance: told of each sample that is done.
        """

    def facts(self) -> dict[str, Any]:
        """Entries of the record that this kind of run has beside those of all."""
        return {}

    @abstractmethod
    def show(self, folder: Path, rows: Sequence[Row], columns: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        """Write pictures of the worst, the median and the best samples.

        Args:
            folder: the run's.
            rows: of the measured samples, in the order of `columns`.

        Returns:
            the record's ``gallery`` entries.
        """


def workload(plan: Plan, workers: int, cache: Path | None = None) -> Workload:
    """What carries out a plan.

    Args:
        workers: processes that decode images.
        cache: folder of embeddings that outlive a run, see `harness.understanding.vectors`; None: nothing is taken
            from another run.

    Raises:
        BenchError: the tokenizer has no adapter for this modality.
    """
    if plan.protocol.structure is not None:
        from harness.understanding.representation import RepresentationWork

        return RepresentationWork(plan, workers)
    if plan.protocol.embed is not None:
        from harness.understanding.work import EmbedWork

        return EmbedWork(plan, workers, cache)
    modality = plan.dataset.modality
    if modality == "image":
        from harness.image_work import ImageWork

        return ImageWork(plan, workers)
    if modality == "video":
        from harness.clip_work import ClipWork

        return ClipWork(plan)
    if modality == "asset":
        from harness.asset_work import AssetWork

        return AssetWork(plan)
    raise BenchError(f"{plan.experiment}: nothing here measures samples of the kind {modality}")
