"""Other projects' libraries for the pages: npm packages, unchanged below ``vendor/``, with licence and manifest."""

from __future__ import annotations

import json
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

__all__ = ["SCRIPTS", "file", "head", "manifest", "write_scripts"]

SCRIPTS = {"tablesort": "tablesort.min.js", "panzoom": "panzoom.min.js"}
"""Libraries that every page loads as they are: folder below ``vendor/`` -> its script."""


def file(name: str, path: str) -> Traversable:
    """A file of a library."""
    return resources.files("reports") / "vendor" / name / path


def manifest(name: str) -> dict[str, Any]:
    """``name``, ``version``, ``licence``, ``source``, and the files with their SHA-256."""
    return dict(json.loads(file(name, "manifest.json").read_text(encoding="utf-8")))


def head(name: str) -> str:
    """A comment with what the library is and its licence, which asks to be kept with every copy."""
    known = manifest(name)
    licence = file(name, "LICENSE").read_text(encoding="utf-8")
    return f"/*! {known['name']} {known['version']}, {known['source']}\n\n{licence}*/\n"


def write_scripts(folder: Path) -> None:
    """Write `SCRIPTS` into a folder, each below its licence."""
    for name, script in SCRIPTS.items():
        text = file(name, script).read_text(encoding="utf-8")
        (folder / script).write_text(head(name) + text, encoding="utf-8", newline="")
