"""Turns a run's shard files into its record: the same code for one process and for many."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from harness import provenance, records, shards
from harness.data.fingerprint import content_sha256
from harness.errors import BenchError
from harness.metrics.base import Aggregated, Cell
from harness.plan import Plan
from harness.protocol import Protocol
from harness.shards import ROW, DamagedShard, Row, Shard, StreamedFeatures
from harness.storage import write_atomically
from harness.workload import Workload, joined

SAMPLES = "samples.parquet"
FRAMES = "frames.parquet"


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """All shards of a run, without their features.

    Attributes:
        shards: in order; rows and failures are the run's when strung together.
        files: ``{"index", "file", "sha256", "n"}`` of each.
        columns: float64 ``[n]`` by name, in the dataset's order; those that metrics take from all samples together
            come last (`Aggregated.late`).
        frames: per-frame values of videos by name, one sample after another.
    """

    shards: Sequence[Shard]
    files: Sequence[dict[str, Any]]
    columns: Mapping[str, np.ndarray]
    frames: Mapping[str, np.ndarray]

    @property
    def rows(self) -> list[Row]:
        return [row for shard in self.shards for row in shard.rows]


def merge(plan: Plan, folder: Path, found: dict[str, Any] | None, work: Workload) -> dict[str, Any]:
    """Read every shard, compute the cells, write table, gallery and, last, the record.

    Args:
        found: settings that `Tokenizer.prepare` found; the tokenizer has them already.

    Returns:
        The record as it reads back.

    Raises:
        BenchError: no sample could be read at all, or a file cannot be written.
    """
    paths = [folder / "shards" / plan.shard_name(shard, found) for shard in range(plan.shards)]
    evidence = collect(paths, plan.metrics)
    rows = evidence.rows
    if not rows:
        first = evidence.shards[0].failed[0]
        raise BenchError(
            f"dataset {plan.dataset.name}: none of {plan.selected} samples could be measured; "
            f"the first, {first['id']}: {first['reason']}"
        )
    cells = _in_protocol_order([*measured_cells(evidence, paths, plan.metrics, plan.protocol), *plan.absent], plan)
    _write_table(folder / SAMPLES, rows, evidence.columns)
    if evidence.frames:
        _write_frames(folder / FRAMES, rows, evidence.frames)
    pictures = work.show(folder, rows, evidence.columns)
    record = _record(plan, evidence, cells, pictures, work.facts())
    records.save(folder, record)
    record = records.load(folder / records.NAME)
    # Shards of an older code or other weights, which this record replaces.
    for path in (folder / "shards").glob("*.safetensors"):
        if path not in paths:
            path.unlink()
    return record


def measured_cells(
    evidence: Evidence, paths: Sequence[Path], metrics: Sequence[Aggregated], protocol: Protocol
) -> list[Cell]:
    """The cells of metrics that the shards hold the evidence of; features are read from `paths`, the shards' files.

    Raises:
        KeyError: a metric's column or feature is in no shard.
    """
    features = StreamedFeatures(paths, [len(shard.rows) for shard in evidence.shards])
    return [cell for metric in metrics for cell in metric.cells(evidence.columns, features, seed=protocol.seed)]


def collect(paths: Sequence[Path], metrics: Sequence[Aggregated]) -> Evidence:
    """Read a run's shard files, in order, with the columns of these metrics.

    Raises:
        BenchError: a file is damaged.
    """
    read: list[Shard] = []
    files, frames = [], []
    for index, path in enumerate(paths):
        try:
            shard = shards.read(path)
        except DamagedShard as error:
            raise BenchError(f"{path}: {error}; run the same command again, it measures this shard anew") from error
        columns = shard.columns
        frames.append(shard.frames)
        read.append(Shard(index=index, rows=shard.rows, failed=shard.failed, columns=columns, work=shard.work))
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append({"index": index, "file": f"shards/{path.name}", "sha256": sha256, "n": len(shard.rows)})
    names = [name for metric in metrics for name in metric.columns]
    full = [shard.columns for shard in read if shard.rows]
    columns = {name: np.concatenate([part[name] for part in full]) for name in names} if full else {}
    features = StreamedFeatures(paths, [len(shard.rows) for shard in read])
    for metric in metrics if full else ():
        columns |= metric.late(features)
    curves = joined(frames)
    # A shard file keeps no order of its arrays; the table's is the metrics'.
    names = [name for metric in metrics for name in metric.frame_columns]
    return Evidence(
        shards=read, files=files, columns=columns, frames={name: curves[name] for name in names if name in curves}
    )


def _in_protocol_order(cells: Sequence[Cell], plan: Plan) -> list[Cell]:
    """By the protocol's list; a metric's further cells (``rFID mean term``) follow the one they start with."""
    names = [spec.name for spec in plan.protocol.metrics]

    def place(cell: Cell) -> int:
        if cell.name in names:
            return names.index(cell.name)
        starts = [name for name in names if cell.name.startswith(name)]
        return names.index(max(starts, key=len)) if starts else len(names)

    return sorted(cells, key=place)


def _write_table(path: Path, rows: Sequence[Row], columns: Mapping[str, np.ndarray]) -> None:
    """The per-sample table: what is known of each sample, then every metric's column."""
    _write_columns(path, {name: [getattr(row, name) for row in rows] for name in ROW} | dict(columns))


def _write_frames(path: Path, rows: Sequence[Row], columns: Mapping[str, np.ndarray]) -> None:
    """The per-frame table of videos: id of the clip, number of the frame from 0 on, then every value."""
    ids = [row.id for row in rows for _ in range(row.frames)]
    numbers = np.concatenate([np.arange(row.frames) for row in rows])
    _write_columns(path, {"id": ids, "frame": numbers, **columns})


def _write_columns(path: Path, values: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_arrays([_column(column) for column in values.values()], names=list(values))
    data = io.BytesIO()
    parquet.write_table(table, data)
    write_atomically(path, data.getvalue())


def _column(values: Sequence[Any] | np.ndarray) -> Any:
    """An Arrow array of texts or of numbers with gaps (None).

    From its buffers: `pyarrow.array` would import pandas to ask whether `values` is one of its own.
    """
    import pyarrow as pa

    if isinstance(values[0], str):
        texts = [value.encode() for value in values]
        ends = np.cumsum([0, *map(len, texts)], dtype=np.int32)
        return pa.StringArray.from_buffers(len(texts), pa.py_buffer(ends), pa.py_buffer(b"".join(texts)))
    there = np.array([value is not None for value in values])
    numbers = np.array([0 if value is None else value for value in values])
    gaps = None if there.all() else pa.py_buffer(np.packbits(there, bitorder="little"))
    return pa.Array.from_buffers(pa.from_numpy_dtype(numbers.dtype), len(numbers), [gaps, pa.py_buffer(numbers)])


def _record(
    plan: Plan,
    evidence: Evidence,
    cells: Sequence[Cell],
    pictures: Sequence[dict[str, Any]],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    rows, work = evidence.rows, [shard.work for shard in evidence.shards]
    encode_ms, decode_ms = (sum(getattr(row, name) for row in rows) for name in ("encode_ms", "decode_ms"))
    seconds = (encode_ms + decode_ms) / 1000
    device_peaks = [part["peak_device_bytes"] for part in work if part["peak_device_bytes"] is not None]
    dataset, protocol = plan.dataset, plan.protocol
    noted = [dict(entry) for part in work for entry in part["noted"]]
    return {
        "schema": records.SCHEMA,
        "experiment": plan.experiment,
        "modality": dataset.modality,
        "tokenizer": {"spec": plan.spec, "card": asdict(plan.tokenizer.card)},
        "protocol": {
            "name": protocol.name,
            "version": protocol.version,
            "sha256": protocol.sha256,
            "content": protocol.content(),
        },
        "dataset": {
            "name": dataset.name,
            "title": dataset.title,
            "count": len(dataset),
            "expected": dataset.expected,
            "ids_sha256": plan.ids_sha256,
            "content_sha256": content_sha256((row.id, row.sha256) for row in rows),
            "credits": dataset.credits,
            "notes": list(dataset.notes),
        },
        "samples": {
            "expected": plan.expected,
            "selected": plan.selected,
            "used": len(rows),
            "failed": [dict(failed) for shard in evidence.shards for failed in shard.failed],
            **({"noted": noted} if noted else {}),
        },
        **facts,
        "cells": [cell_entry(cell) for cell in cells],
        "weights": plan.weights(),
        "settings": {
            **plan.settings.identity(),
            "threads": sorted({part["threads"] for part in work})[-1],
            "shards": plan.shards,
            "seed": protocol.seed,
        },
        "environment": provenance.environment(sorted({part["device_name"] for part in work})),
        "code": {**provenance.code(), "measured_with": plan.software},
        "time": {
            "started": min(part["started"] for part in work),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "wall_s": sum(part["wall_s"] for part in work),
            "encode_ms": encode_ms / len(rows),
            "decode_ms": decode_ms / len(rows),
            "tokens_per_s": sum(row.tokens for row in rows) / seconds if seconds else None,
        },
        "memory": {
            "peak_rss_bytes": max(part["peak_rss_bytes"] for part in work),
            "peak_device_bytes": max(device_peaks, default=None),
        },
        "shards": list(evidence.files),
        "gallery": list(pictures),
    }


def cell_entry(cell: Cell) -> dict[str, Any]:
    """A cell as the record holds it."""
    return {**asdict(cell), "interval": None if cell.interval is None else list(cell.interval)}
