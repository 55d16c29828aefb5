"""The viewer of Gaussians: another project's library, unchanged in ``vendor/``, in a form that pages from disk load."""

from __future__ import annotations

import base64
import json
from importlib import resources
from pathlib import Path
from typing import Any

SCRIPT = "static/gsplat.js"
"""Where a report keeps it."""

_FOLDER = resources.files("reports") / "vendor" / "gsplat"


def manifest() -> dict[str, Any]:
    """``name``, ``version``, ``licence``, ``source``, and the files with their SHA-256."""
    return dict(json.loads((_FOLDER / "manifest.json").read_text(encoding="utf-8")))


def write(path: Path) -> None:
    """Write the library as a script that keeps its text, in base64, in the page's ``splatLibrary``.

    It is an ES module, and browsers load such files from servers only; from a text they take it anywhere.
    """
    known = manifest()
    licence = (_FOLDER / "LICENSE").read_text(encoding="utf-8")
    text = base64.b64encode((_FOLDER / "index.es.js").read_bytes()).decode("ascii")
    head = f"/*! {known['name']} {known['version']}, {known['source']}\n\n{licence}*/\n"
    path.write_text(f'{head}self.splatLibrary = "{text}";\n', encoding="utf-8")
