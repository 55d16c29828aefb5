"""`atoken-bench audit run`: a record against the evidence beside it; what differs was changed after the run."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atoken.errors import ATokenError
from harness import records, shards
from harness.building import dataset_of
from harness.data.fingerprint import content_sha256, ids_sha256
from harness.errors import BenchError
from harness.merge import FRAMES, SAMPLES, Evidence, cell_entry, collect, measured_cells
from harness.metrics.base import Aggregated, Cell
from harness.metrics.registry import build_asset_metrics, build_clip_metrics, build_metrics
from harness.protocol import Protocol
from harness.shards import ROW, DamagedShard
from harness.understanding.measures import build_embedding_metrics
from harness.understanding.separability import build_structure_metrics
from harness.weights import WeightStore
from harness.workload import joined

TOLERANCE = 1e-6
"""Relative, of recomputed figures: another machine's linear algebra moves the last digits, no printed one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an audit of a run found.

    Attributes:
        differing: a line for each thing that is not what the evidence gives.
        unchecked: a line for each thing that cannot be checked here, with the reason.
        cells: how many cells were recomputed.
        samples: how many samples' values were compared.
    """

    differing: tuple[str, ...]
    unchecked: tuple[str, ...]
    cells: int
    samples: int


class RunAudit:
    """Compares one run's record with its shards, its per-sample table and the files that it names by hash.

    Args:
        folder: the run's.
        weights: folders with metrics' trunk weights, beside those that the run was given.

    Raises:
        BenchError: no record, or one that cannot be read at all.
    """

    def __init__(self, folder: Path, weights: Sequence[Path] = ()) -> None:
        self.folder = folder
        self.record = records.load(folder / records.NAME)
        self.request = self._request()
        listed = [Path(path) for path in self.request.get("weights", ())]
        self.store = WeightStore([*weights, *(path for path in listed if path.is_dir())])
        self.unchecked: list[str] = []
        self.cells = 0
        self.samples = 0

    def run(self) -> Outcome:
        """Compare everything.

        Raises:
            BenchError: the record lacks a field without which nothing can be compared.
        """
        try:
            differing = [*self._protocol(), *self._files(), *self._dataset(), *self._tokenizer()]
        except (KeyError, TypeError, AttributeError) as error:
            raise BenchError(f"{self.folder / records.NAME}: damaged record ({error!r}); run it again") from error
        return Outcome(
            differing=tuple(differing), unchecked=tuple(self.unchecked), cells=self.cells, samples=self.samples
        )

    def _request(self) -> dict[str, Any]:
        """What the run was asked for; empty where ``run.json`` is not there."""
        path = self.folder / records.REQUEST
        try:
            return dict(json.loads(path.read_bytes())["request"])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchError(f"{path}: not readable ({error}); run the same command again") from error

    def _protocol(self) -> Iterator[str]:
        stated = self.record["protocol"]
        found = self._of_content().sha256
        if found != stated["sha256"]:
            yield f"protocol: states sha256 {stated['sha256'][:12]}, its content has {found[:12]}"
        if self.request and Protocol.from_content(self.request["protocol"], records.REQUEST).sha256 != found:
            yield f"protocol: its content is not that of {records.REQUEST}"
        if (seed := self.record["settings"]["seed"]) != self._of_content().seed:
            yield f"settings.seed: states {seed}, the protocol has {self._of_content().seed}"

    def _of_content(self) -> Protocol:
        return Protocol.from_content(self.record["protocol"]["content"], str(self.folder / records.NAME))

    def _files(self) -> Iterator[str]:
        """Shard files, and all that is recomputed from them."""
        paths: list[Path] = []
        columns: list[str] = []
        frames: list[Mapping[str, np.ndarray]] = []
        whole = True
        for entry in self.record["shards"]:
            path = self.folder / entry["file"]
            paths.append(path)
            try:
                found = hashlib.sha256(path.read_bytes()).hexdigest()
                shard = shards.read(path)
            except FileNotFoundError:
                whole = False
                yield f"{entry['file']}: missing"
                continue
            except (OSError, DamagedShard) as error:
                whole = False
                yield f"{entry['file']}: {error}"
                continue
            columns += shard.columns
            frames.append(shard.frames)
            if found != entry["sha256"]:
                yield f"{entry['file']}: states sha256 {entry['sha256'][:12]}, the file has {found[:12]}"
        if not paths or not whole:
            self.unchecked.append("cells and samples: not all shards can be read")
            return
        metrics, absent = self._metrics()
        measured = [metric for metric in metrics if set(columns).issuperset(metric.columns)]
        evidence = collect(paths, measured)
        if not evidence.rows:
            yield "shards: they hold no measured sample"
            return
        for entry, shard in zip(self.record["shards"], evidence.shards, strict=True):
            if entry["n"] != len(shard.rows):
                yield f"{entry['file']}: states n {entry['n']}, the file has {len(shard.rows)}"
        yield from self._counts(evidence)
        yield from self._table(evidence)
        yield from self._frames(evidence, joined(frames))
        yield from self._cells(evidence, paths, measured, absent)
        yield from self._gallery(evidence)
        yield from self._figure()
        yield from self._weights(metrics)

    def _metrics(self) -> tuple[Sequence[Aggregated], list[Cell]]:
        protocol, device = self._of_content(), torch.device("cpu")
        if protocol.structure is not None:
            return build_structure_metrics(protocol)
        if protocol.embed is not None:
            return build_embedding_metrics(protocol)
        modality = self.record.get("modality", "image")
        if modality == "asset":
            return build_asset_metrics(protocol, self.store, device)
        build = build_clip_metrics if modality == "video" else build_metrics
        size = self.record["tokenizer"]["card"].get("codebook_size")
        return build(protocol, self.store, device, codebook_size=size)

    def _counts(self, evidence: Evidence) -> Iterator[str]:
        failed = [dict(entry) for shard in evidence.shards for entry in shard.failed]
        samples, rows = self.record["samples"], evidence.rows
        found = {"selected": len(rows) + len(failed), "used": len(rows), "failed": failed}
        for name, value in found.items():
            if samples[name] != value:
                yield f"samples.{name}: states {samples[name]}, the shards give {value}"
        for name in ("encode_ms", "decode_ms"):
            mean, stated = sum(getattr(row, name) for row in rows) / len(rows), self.record["time"][name]
            if not close(mean, stated):
                yield f"time.{name}: states {stated}, the shards give {mean}"
        content = content_sha256((row.id, row.sha256) for row in rows)
        if (stated := self.record["dataset"]["content_sha256"]) != content:
            yield f"dataset.content_sha256: states {stated[:12]}, the shards give {content[:12]}"

    def _table(self, evidence: Evidence) -> Iterator[str]:
        """The per-sample table against every column of the shards, of metrics that are not built here too."""
        table = read_table(self.folder / SAMPLES)
        if isinstance(table, str):
            yield table
            return
        rows = evidence.rows
        wanted: dict[str, Sequence[Any]] = {name: [getattr(row, name) for row in rows] for name in ROW}
        full = [shard.columns for shard in evidence.shards if shard.rows]
        wanted |= {name: np.concatenate([part[name] for part in full]).tolist() for name in full[0]}
        wanted |= {name: column.tolist() for name, column in evidence.columns.items() if name not in wanted}
        self.samples = len(rows)
        yield from _differences(SAMPLES, table, wanted, [row.id for row in rows])

    def _frames(self, evidence: Evidence, frames: Mapping[str, np.ndarray]) -> Iterator[str]:
        if not frames:
            return
        table = read_table(self.folder / FRAMES)
        if isinstance(table, str):
            yield table
            return
        ids = [row.id for row in evidence.rows for _ in range(row.frames)]
        numbers = [number for row in evidence.rows for number in range(row.frames)]
        names = [f"{sample}, frame {number}" for sample, number in zip(ids, numbers, strict=True)]
        columns = {name: values.tolist() for name, values in frames.items()}
        yield from _differences(FRAMES, table, {"id": ids, "frame": numbers, **columns}, names)

    def _cells(
        self, evidence: Evidence, paths: Sequence[Path], metrics: Sequence[Aggregated], absent: Sequence[Cell]
    ) -> Iterator[str]:
        made: dict[str, dict[str, Any]] = {}
        for metric in metrics:
            try:
                cells = measured_cells(evidence, paths, [metric], self._of_content())
            except KeyError:
                continue  # its features are in no shard: it was not measured
            made |= {cell.name: cell_entry(cell) for cell in cells}
        made = {entry["name"]: entry for entry in _as_read([*made.values()])}
        here = {cell.name: cell.absent for cell in absent}
        for stated in self.record["cells"]:
            name = stated["name"]
            if name in made:
                self.cells += 1
                yield from _fields(f"cell {name}", stated, made.pop(name))
            elif stated["value"] is None:
                continue
            elif reason := next((why for spec, why in here.items() if name.startswith(spec)), None):
                self.unchecked.append(f"cell {name}: {reason}")
            else:
                yield f"cell {name}: states {stated['value']}, the shards hold no evidence of it"
        yield from (f"cell {name}: missing, the shards give {entry['value']}" for name, entry in made.items())

    def _gallery(self, evidence: Evidence) -> Iterator[str]:
        place = {row.id: index for index, row in enumerate(evidence.rows)}
        for entry in self.record["gallery"]:
            column = evidence.columns.get(entry.get("metric", ""))
            if entry["id"] not in place:
                yield f"gallery: shows {entry['id']}, which no shard holds"
            elif column is not None and not close(float(column[place[entry["id"]]]), entry["value"]):
                found = column[place[entry["id"]]]
                yield f"gallery, {entry['id']}: states {entry['metric']} {entry['value']}, the shards give {found}"

    def _figure(self) -> Iterator[str]:
        """The drawing's points (Figure 8) lie beside the record."""
        if not (stated := self.record.get("figure")):
            return
        try:
            found = hashlib.sha256((self.folder / stated["file"]).read_bytes()).hexdigest()
        except OSError:
            yield f"{stated['file']}: missing or not readable"
            return
        if found != stated["sha256"]:
            yield f"{stated['file']}: states sha256 {stated['sha256'][:12]}, the file has {found[:12]}"

    def _weights(self, metrics: Sequence[Aggregated]) -> Iterator[str]:
        here = {name: sha256 for metric in metrics for name, sha256 in metric.weights.items()}
        for name, sha256 in self.record["weights"].items():
            if name not in here:
                self.unchecked.append(f"weights {name}: not on this machine")
            elif here[name] != sha256:
                yield f"weights.{name}: states sha256 {sha256[:12]}, the file here has {here[name][:12]}"

    def _dataset(self) -> Iterator[str]:
        """The dataset's ids where it is at hand; its bytes are in the shards' hashes."""
        if not self.request:
            self.unchecked.append(f"dataset: {records.REQUEST} is missing, so nothing says where it lay")
            return
        only = self.request["list"]
        try:
            dataset = dataset_of(self.request["modality"], self.request["data"], only and Path(only))
        except ATokenError as error:
            self.unchecked.append(f"dataset: {error}")
            return
        selected = [sample.id for sample in dataset.samples[: self.record["settings"]["limit"]]]
        stated = self.record["dataset"]
        if (found := ids_sha256(selected)) != stated["ids_sha256"]:
            yield f"dataset.ids_sha256: states {stated['ids_sha256'][:12]}, the data here has {found[:12]}"
        if len(dataset) != stated["count"]:
            yield f"dataset.count: states {stated['count']}, the data here has {len(dataset)}"

    def _tokenizer(self) -> Iterator[str]:
        """The checkpoint's files where they are at hand."""
        stated = self.record["tokenizer"]["card"].get("weights_sha256") or {}
        ckpt = (self.request.get("tokenizer") or {}).get("ckpt")
        for name, sha256 in stated.items():
            places = [] if ckpt is None else [Path(ckpt), Path(ckpt) / name]
            path = next((place for place in places if place.is_file() and place.name == name), None)
            if path is None:
                self.unchecked.append(f"checkpoint {name}: not where the run had it")
                continue
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != sha256:
                yield f"tokenizer.card.weights_sha256.{name}: states {sha256[:12]}, {path} has {found[:12]}"


def read_table(path: Path) -> Mapping[str, list[Any]] | str:
    """Columns of a Parquet file, or the line that says why there are none."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return dict(parquet.read_table(path).to_pydict())
    except FileNotFoundError:
        return f"{path.name}: missing"
    except (OSError, pa.ArrowException) as error:
        return f"{path.name}: not a readable table ({error})"


def _differences(
    name: str, table: Mapping[str, list[Any]], wanted: Mapping[str, Sequence[Any]], ids: Sequence[str]
) -> Iterator[str]:
    """A line for each column that is not what the shards give, with the first row that differs."""
    for column in [*wanted, *(other for other in table if other not in wanted)]:
        if column not in table:
            yield f"{name}: no column {column}, which the shards have"
        elif column not in wanted:
            yield f"{name}: a column {column} that no shard has"
        elif len(table[column]) != len(ids):
            yield f"{name}, {column}: {len(table[column])} rows, the shards give {len(ids)}"
        else:
            pairs = zip(ids, table[column], wanted[column], strict=True)
            differing = [(row, a, b) for row, a, b in pairs if not _same(a, b)]
            if differing:
                row, found, right = differing[0]
                more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
                yield f"{name}, {column} of {row}: states {found}, the shards give {right}{more}"


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other):
        return True  # no value in both
    return bool(one == other)


def close(one: float, other: float) -> bool:
    return _same(one, other) or math.isclose(one, other, rel_tol=TOLERANCE)


def _fields(what: str, stated: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """A line for each field of a cell that is not what was recomputed."""
    for name in found:
        one, other = stated.get(name), found[name]
        pair = [one, other] if name == "interval" else [[one], [other]]
        numeric = all(isinstance(part, list) and all(isinstance(n, int | float) for n in part) for part in pair)
        if numeric and len(pair[0]) == len(pair[1]):
            equal = all(close(a, b) for a, b in zip(*pair, strict=True))
        else:
            equal = one == other
        if not equal:
            yield f"{what}, {name}: states {one}, recomputed {other}"


def _as_read(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Cells as they come back from a record: lists for tuples, text keys."""
    with tempfile.TemporaryDirectory() as folder:
        records.save(Path(folder), {"schema": records.SCHEMA, "cells": cells})
        return list(records.load(Path(folder) / records.NAME)["cells"])


def audit_run(folder: Path, weights: Sequence[Path], echo: Callable[[str], None], *, rerun: int = 0) -> int:
    """Print what of a run's record is not what its evidence gives, and what could not be checked.

    Args:
        rerun: how many samples, drawn at random, are measured again.

    Returns:
        the exit status: 1 where something differs.

    Raises:
        BenchError: no record, one that cannot be read, or a run that cannot be done again here.
    """
    if missing := [path for path in weights if not path.is_dir()]:
        raise BenchError(f"--weights {missing[0]}: no such folder")
    outcome = RunAudit(folder, weights).run()
    for line in outcome.differing:
        echo(f"differs: {line}")
    for line in outcome.unchecked:
        echo(f"not checked: {line}")
    echo(
        f"{folder}: {outcome.cells} cells recomputed, {outcome.samples} samples compared, "
        f"{len(outcome.differing)} differences, {len(outcome.unchecked)} things not checked"
    )
    again: tuple[str, ...] = ()
    if rerun:
        from harness.record_rerun import measured_again

        drawn, again = measured_again(folder, rerun)
        for line in again:
            echo(f"differs: {line}")
        echo(f"{folder}: {len(drawn)} samples measured again ({', '.join(drawn)}), {len(again)} differences")
    return int(bool(outcome.differing or again))
