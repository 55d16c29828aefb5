"""The viewer of Gaussians: another project's library, unchanged in ``vendor/``, in a form that pages from disk load."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from reports import vendor

SCRIPT = "static/gsplat.js"
"""Where a report keeps it."""


def manifest() -> dict[str, Any]:
    """See `reports.vendor.manifest`."""
    return vendor.manifest("gsplat")


def write(path: Path) -> None:
    """Write the library as a script that keeps its text, in base64, in the page's ``splatLibrary``.

    It is an ES module, and browsers load such files from servers only; from a text they take it anywhere.
    """
    text = base64.b64encode(vendor.file("gsplat", "index.es.js").read_bytes()).decode("ascii")
    path.write_text(f'{vendor.head("gsplat")}self.splatLibrary = "{text}";\n', encoding="utf-8")
