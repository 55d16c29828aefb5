"""MkDocs hook: what a page says of experiments, protocols, data, tokenizers and commands is made at build.

A line ``<!-- generated: NAME ARGUMENT... -->`` becomes what the function `NAME` of `generated` returns, so that a page
cannot go stale. The built site needs no network.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

sys.path.insert(0, str(Path(__file__).parent))
import generated  # beside this file, which is no package

_MARK = re.compile(r"^<!-- generated: ([a-z_]+)((?: \S+)*) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Fill the marks of a page in."""

    def made(match: re.Match[str]) -> str:
        name, arguments = match[1], match[2].split()
        if name not in generated.PARTS:
            raise PluginError(f"{page.file.src_path}: no part {name!r}; there are {', '.join(generated.PARTS)}")
        return generated.PARTS[name](*arguments)

    return _MARK.sub(made, markdown)
