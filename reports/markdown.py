"""Tables as GitHub-flavoured Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable

from reports.grid import Grid, GridCell

_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~])")


def escape(text: str) -> str:
    """Text that a Markdown reader shows as it is, on one line."""
    text = _SPECIAL.sub(r"\\\1", " ".join(text.split()))
    # An entity starts at "&": that first, then the two that start tags.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _paragraph(text: str) -> str:
    """`escape` for text that begins a line, where a dash or a number would begin a list."""
    return re.sub(r"^(?:([-+=])|(\d+)([.)]))", r"\2\\\1\3", escape(text))


def document(title: str, grids: Iterable[Grid]) -> str:
    """A heading, then each grid with its caption and footnotes."""
    parts = [f"# {escape(title)}\n"]
    for grid in grids:
        parts += [f"## {escape(grid.title)}\n", _table(grid), _paragraph(grid.caption) + "\n"]
        parts += [f"- {mark}: {escape(text)}" for mark, text in grid.footnotes]
        if grid.footnotes:
            parts.append("")
    return "\n".join(parts)


def _table(grid: Grid) -> str:
    groups = [text for text, columns in grid.groups for _ in range(columns)] or [""] * len(grid.header)
    # Markdown has one header row: the group's name goes into each of its columns.
    header = [escape(f"{group} {leaf}".strip()) for group, leaf in zip(groups, grid.header, strict=True)]
    aligned = [":--" if place < grid.left else "--:" for place in range(len(header))]
    lines = [_join(header), _join(aligned)]
    for row in grid.rows:
        if isinstance(row, str):
            lines.append(_join([f"*{escape(row)}*", *[""] * (len(header) - 1)]))
        else:
            lines.append(_join([_cell(cell) for cell in row]))
    return "\n".join(lines) + "\n"


def _cell(cell: GridCell) -> str:
    text = f"**{escape(cell.text)}**" if cell.strong else escape(cell.text)
    if cell.mark:
        text += f" ({cell.mark})"
    return f"{text} {escape(cell.remark)}" if cell.remark else text


def _join(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
