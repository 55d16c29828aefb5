"""Measures some samples of a finished run again and sets them against its per-sample table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness import records, shards
from harness.console import Advance
from harness.errors import BenchError
from harness.merge import SAMPLES
from harness.plan import Plan
from harness.record_audit import read_table
from harness.runner import planned
from harness.understanding.vectors import VECTORS
from harness.workload import Measured, workload

TOLERANCE = 1e-4
"""Relative: another machine, another version of torch or another pack moves the last digits of a float32 network."""
_EXACT = ("sha256", "height", "width", "height_in", "width_in", "tokens", "frames")


def measured_again(folder: Path, count: int, *, seed: int | None = None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Draw samples of a run's per-sample table and measure them anew, with its tokenizer, data and protocol.

    Args:
        count: how many; all where there are fewer.
        seed: of the draw; None for one that nobody can foresee.

    Returns:
        the drawn samples' ids, in the dataset's order, and a line for each value that is not the table's.

    Raises:
        BenchError: the run cannot be done here: its checkpoint, data, device, table or a shard is not at hand.
    """
    table = read_table(folder / SAMPLES)
    if isinstance(table, str):
        raise BenchError(f"{folder}: {table}; run it again")
    plan = planned(folder)
    if plan.tokenizer.needs_prepare:
        # What it found on the whole set stands on its card.
        plan.tokenizer.restore(records.load(folder / records.NAME)["tokenizer"]["card"]["settings"])
    ids = table.get("id", [])
    drawn = {ids[place] for place in np.random.default_rng(seed).permutation(len(ids))[:count]}
    places = [place for place in range(plan.selected) if plan.dataset.samples[place].id in drawn]
    return tuple(plan.dataset.samples[place].id for place in places), tuple(_differing(folder, plan, places, table))


def _differing(folder: Path, plan: Plan, places: list[int], table: Any) -> list[str]:
    # Nothing is taken from other runs: embeddings that were kept are what is checked here.
    (measured,) = workload(plan, 0).measure([places], Advance())
    rows = {sample: index for index, sample in enumerate(table["id"])}
    lines = [f"{failed.id}: in the table, and now {failed.reason}" for failed in measured.failed]
    for index, row in enumerate(measured.rows):
        found: dict[str, Any] = {name: getattr(row, name) for name in _EXACT}
        found |= {name: float(column[index]) for name, column in measured.columns.items()}
        for name, value in found.items():
            stated = table[name][rows[row.id]] if name in table else None
            if stated != value and not _near(stated, value):
                lines.append(f"{name} of {row.id}: the table has {stated}, measured again {value}")
    return [*lines, *_moved(folder, measured)]


def _moved(folder: Path, measured: Measured) -> Iterator[str]:
    """A line for each embedding that is not the one of the run's shards."""
    if VECTORS not in measured.features:
        return
    kept: dict[str, np.ndarray] = {}
    for entry in records.load(folder / records.NAME)["shards"]:
        try:
            shard = shards.read(folder / entry["file"])
        except shards.DamagedShard as error:
            raise BenchError(f"{folder / entry['file']}: {error}; run the same command again") from error
        kept |= {row.id: vector for row, vector in zip(shard.rows, shard.features[VECTORS], strict=True)}
    for row, vector in zip(measured.rows, measured.features[VECTORS], strict=True):
        distance = float(np.abs(vector - kept[row.id]).max())
        if distance > TOLERANCE:
            yield f"embedding of {row.id}: {distance:.2g} from the one of its shard in one of its numbers"


def _near(stated: Any, value: Any) -> bool:
    if not isinstance(stated, float) or not isinstance(value, float):
        return False
    return (math.isnan(stated) and math.isnan(value)) or math.isclose(stated, value, rel_tol=TOLERANCE, abs_tol=1e-7)
