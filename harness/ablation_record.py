"""The record of an ablation, ``ablation.json``: its variants, their recipes, logs, and the records that measure them.

Figures are not in it: they stand in the ordinary records that it points to, each in a run's folder of its own. Written
last and whole, so its existence means that the ablation is done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import BenchError
from harness.storage import write_atomically

__all__ = ["LOG", "NAME", "RECIPE", "SCHEMA", "load", "save", "sha256_of"]

SCHEMA = 1
NAME = "ablation.json"
LOG, RECIPE = "log.jsonl", "recipe.yaml"
"""Of a training run's folder, as `atoken train` writes them."""


def save(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the record into the ablation's folder, atomically.

    Raises:
        BenchError: the folder cannot be written.
    """
    text = json.dumps({"schema": SCHEMA, **record}, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / NAME, text.encode())


def load(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        BenchError: not JSON, no record of an ablation, or one of a schema that this version does not know.
    """
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BenchError(f"{path}: not a readable record ({error}); run the same command again") from None
    schema = record.get("schema") if isinstance(record, dict) else None
    if not isinstance(schema, int) or "variants" not in record:
        raise BenchError(f"{path}: not the record of an ablation; run it again or remove the folder")
    if schema > SCHEMA:
        raise BenchError(f"{path}: written by a newer version (schema {schema}, known {SCHEMA}); update atoken-bench")
    return dict(record)


def sha256_of(data: Any) -> str:
    """Hash of plain data as canonical JSON: of a recipe, what decides a training beside its data."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
