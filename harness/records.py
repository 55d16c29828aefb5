"""The record of a run, ``record.json``: written last and whole, so its existence means that the run is done.

JSON has no infinity (an identical image has an infinite PSNR): it is the string ``"Infinity"``, which Python's
``float`` and JavaScript's ``Number`` read back; `load` does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import BenchError
from harness.storage import write_atomically

SCHEMA = 1
NAME = "record.json"
REQUEST = "run.json"
"""What was asked for, written when a run begins: a folder with this file and no record is not finished."""


def save(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a record into its run's folder, atomically.

    Raises:
        BenchError: the folder cannot be written.
    """
    text = json.dumps(_strict(record), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / NAME, text.encode())


def _strict(data: Any) -> Any:
    """Plain data with infinite and undefined numbers as strings."""
    if isinstance(data, float) and not math.isfinite(data):
        return "NaN" if math.isnan(data) else "Infinity" if data > 0 else "-Infinity"
    if isinstance(data, Mapping):
        return {key: _strict(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_strict(value) for value in data]
    return data


def _numbers(entries: Sequence[dict[str, Any]], keys: Sequence[str]) -> None:
    """Turn what `_strict` made of numbers back, in place."""
    for entry in entries:
        for key in keys:
            value = entry.get(key)
            if isinstance(value, str):
                entry[key] = float(value)
            elif isinstance(value, list):
                entry[key] = [float(end) for end in value]


def load(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        BenchError: no record, or one of a schema that this version does not know; names the file.
    """
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BenchError(f"{path}: no such record; the run is not finished") from None
    except (OSError, ValueError) as error:
        raise BenchError(f"{path}: not a readable record ({error}); run the same command again") from error
    schema = record.get("schema") if isinstance(record, dict) else None
    if not isinstance(schema, int):
        raise BenchError(f"{path}: not a record of atoken-bench")
    if schema > SCHEMA:
        raise BenchError(f"{path}: written by a newer version (schema {schema}, known {SCHEMA}); update atoken-bench")
    try:
        _numbers(record.get("cells", ()), ("value", "interval"))
        _numbers(record.get("gallery", ()), ("value",))
    except (TypeError, ValueError, AttributeError) as error:
        raise BenchError(f"{path}: damaged record ({error}); run the same command again") from error
    return dict(record)
