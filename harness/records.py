"""The record of a run, ``record.json``: written last and whole, so its existence means that the run is done.

JSON has no infinity (an identical image has an infinite PSNR): it is written as Python writes and reads
it, ``Infinity``; every reader of records here is Python.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import BenchError
from harness.storage import write_atomically

SCHEMA = 1
NAME = "record.json"


def save(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a record into its run's folder, atomically.

    Raises:
        BenchError: the folder cannot be written.
    """
    write_atomically(folder / NAME, json.dumps(record, indent=1, ensure_ascii=False).encode())


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
    return dict(record)
