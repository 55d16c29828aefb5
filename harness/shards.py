"""Shard files: the evidence of a fixed slice of the dataset, in one file that is whole or not there.

A ``.safetensors`` file with ``column/NAME`` float64 ``[n]``, ``feature/NAME`` ``[n, ...]`` and, of videos,
``frame/NAME`` float64 (all frames of all clips), and JSON in its metadata: the samples in order, those that
failed, times, and a SHA-256 over all of it.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from harness.storage import write_atomically

SCHEMA = 2
_COLUMN, _FEATURE, _FRAME = "column/", "feature/", "frame/"


class DamagedShard(Exception):
    """A shard file that is truncated, corrupt or of another schema."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One measured sample.

    Attributes:
        sha256: of the stored bytes.
        height, width: as the tokenizer got it.
        height_in, width_in: as it was decoded.
        frames: how many were measured; 1 for an image; of an asset its views, whose sides `height` and `width` are.
        encode_ms, decode_ms: its part of the pack's time, by tokens.
    """

    id: str
    label: int | None
    sha256: str
    height: int
    width: int
    height_in: int
    width_in: int
    encode_ms: float
    decode_ms: float
    tokens: int
    frames: int = 1


ROW = tuple(field.name for field in fields(Row))
"""What is known of each measured sample, in the order of the per-sample table."""


NAMING = ("predicted", "score")
"""Columns that say what a sample was taken for and how surely; a difference of theirs means nothing."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """What is known of one slice of the dataset.

    Attributes:
        rows: the samples that were measured, in the dataset's order.
        failed: ``{"id", "reason"}`` of those that could not be read.
        columns: float64 ``[n]`` by name.
        features: ``[n, ...]`` by name; empty once read back without them.
        frames: per-frame values of videos, per-view values of assets, by name, float64, one sample after another.
        work: device name, times, peak memory; evidence, not part of any result.
    """

    index: int
    rows: Sequence[Row]
    failed: Sequence[Mapping[str, str]]
    columns: Mapping[str, np.ndarray]
    features: Mapping[str, np.ndarray] = field(default_factory=dict)
    frames: Mapping[str, np.ndarray] = field(default_factory=dict)
    work: Mapping[str, Any] = field(default_factory=dict)


def write(path: Path, shard: Shard) -> None:
    """Write a finished shard, atomically.

    Raises:
        BenchError: the disk is full or read-only.
    """
    arrays = {_COLUMN + name: np.ascontiguousarray(array, np.float64) for name, array in shard.columns.items()}
    arrays |= {_FEATURE + name: np.ascontiguousarray(array) for name, array in shard.features.items()}
    arrays |= {_FRAME + name: np.ascontiguousarray(array, np.float64) for name, array in shard.frames.items()}
    text = json.dumps(
        {
            "schema": SCHEMA,
            "index": shard.index,
            "rows": [{name: getattr(row, name) for name in ROW} for row in shard.rows],
            "failed": [dict(failed) for failed in shard.failed],
            "work": dict(shard.work),
        }
    )
    metadata = {"shard": text, "sha256": _checksum(text, arrays)}
    write_atomically(path, save_tensors(arrays, metadata))


def read(path: Path) -> Shard:
    """Read a shard and verify its checksum.

    Raises:
        DamagedShard: truncated, corrupt, or of another schema; says what is wrong.
    """
    try:
        data = path.read_bytes()
        arrays = load_tensors(data)
        metadata = _metadata(data)
        content = json.loads(metadata["shard"])
        stated = metadata["sha256"]
    except OSError as error:
        raise DamagedShard(f"cannot be read: {error.strerror}") from error
    except (SafetensorError, KeyError, ValueError, struct.error) as error:
        raise DamagedShard(f"not a whole shard file ({type(error).__name__})") from error
    if stated != _checksum(metadata["shard"], arrays):
        raise DamagedShard("its checksum does not match")
    if content["schema"] != SCHEMA:
        raise DamagedShard(f"schema {content['schema']}, not {SCHEMA}")
    return Shard(
        index=content["index"],
        rows=[Row(**row) for row in content["rows"]],
        failed=content["failed"],
        columns=_part(arrays, _COLUMN),
        features=_part(arrays, _FEATURE),
        frames=_part(arrays, _FRAME),
        work=content["work"],
    )


class StreamedFeatures(Mapping[str, np.ndarray]):
    """Features of a whole run, read from its shard files when asked for and not kept.

    A metric that asks for one array has one array in memory: a run's peak does not hold all of them.

    Args:
        files: shard files in order, verified by the caller.
        counts: rows of each.
    """

    def __init__(self, files: Sequence[Path], counts: Sequence[int]) -> None:
        self._parts = [(file, count) for file, count in zip(files, counts, strict=True) if count]
        self._names: tuple[str, ...] = ()
        if self._parts:
            with safe_open(self._parts[0][0], framework="np") as file:
                keys = list(file.keys())
            self._names = tuple(sorted(key.removeprefix(_FEATURE) for key in keys if key.startswith(_FEATURE)))

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        total = sum(count for _, count in self._parts)
        result: np.ndarray | None = None
        start = 0
        for path, count in self._parts:
            with safe_open(path, framework="np") as file:
                part = file.get_tensor(_FEATURE + name)
            if result is None:
                result = np.empty((total, *part.shape[1:]), part.dtype)
            result[start : start + count] = part
            start += count
        assert result is not None  # _names is empty without parts
        return result

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _part(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _metadata(data: bytes) -> dict[str, str]:
    # safetensors.numpy.load gives no metadata from bytes; the header is a length and JSON.
    (length,) = struct.unpack("<Q", data[:8])
    header: dict[str, dict[str, str]] = json.loads(data[8 : 8 + length])
    return header["__metadata__"]


def _checksum(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    total = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        total.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()
