"""Tables as LaTeX fragments for \\input; they need the packages booktabs, amssymb and graphicx."""

from __future__ import annotations

import re
from collections.abc import Iterable

from reports.grid import Grid, GridCell

_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "$": r"\$",
        "&": r"\&",
        "#": r"\#",
        "%": r"\%",
        "_": r"\_",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        # Without these, "<" and ">" are Spanish marks in the old font encoding, and "[" may be taken
        # for an optional argument after "\\".
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "[": "{[}",
        "]": "{]}",
        "×": r"$\times$",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "→": r"$\rightarrow$",
        "∞": r"$\infty$",
        "−": "$-$",
        "±": r"$\pm$",
        "–": r"\textendash{}",
        "`": r"\textasciigrave{}",
        "Δ": r"$\Delta$",
        "†": r"\dag{}",
        "✓": r"\checkmark{}",
        "✗": r"$\times$",
        "●": r"$\bullet$",
        "○": r"$\circ$",
        "✕": r"$\otimes$",
    }
)
HEAD = "% Needs \\usepackage{booktabs,amssymb,graphicx}. Written by atoken-bench report.\n"


def escape(text: str) -> str:
    """Text that LaTeX prints as it is, on one line."""
    # "--" and "''" would melt into a dash and a quotation mark.
    return re.sub(r"([-'])(?=\1)", r"\1{}", " ".join(text.split()).translate(_ESCAPES))


def document(grids: Iterable[Grid], label: str) -> str:
    """One ``table*`` for each grid, labelled ``tab:<label>-<number>``."""
    return HEAD + "\n".join(_table(grid, f"tab:{label}-{place}") for place, grid in enumerate(grids, 1))


def _table(grid: Grid, label: str) -> str:
    columns = "l" * grid.left + "r" * (len(grid.header) - grid.left)
    lines = [
        r"\begin{table*}[t]",
        r"\centering",
        rf"\caption{{{escape(grid.title)}. {escape(grid.caption)}}}",
        rf"\label{{{label}}}",
        # Wide tables shrink to the page, narrow ones keep their size.
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
    ]
    if grid.groups:
        lines.append(" & ".join(rf"\multicolumn{{{n}}}{{c}}{{{escape(text)}}}" for text, n in grid.groups) + r" \\")
        place, rules = 1, []
        for text, n in grid.groups:
            if text:
                rules.append(rf"\cmidrule(lr){{{place}-{place + n - 1}}}")
            place += n
        lines.append(" ".join(rules))
    lines += [" & ".join(escape(text) for text in grid.header) + r" \\", r"\midrule"]
    for row in grid.rows:
        if isinstance(row, str):
            lines.append(rf"\multicolumn{{{len(grid.header)}}}{{l}}{{\textit{{{escape(row)}}}}} \\")
        else:
            lines.append(" & ".join(_cell(cell) for cell in row) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}"]
    for mark, text in grid.footnotes:
        lines.append(rf"\par\parbox{{\linewidth}}{{\footnotesize\textsuperscript{{{mark}}} {escape(text)}}}")
    return "\n".join([*lines, r"\end{table*}", ""])


def _cell(cell: GridCell) -> str:
    text = rf"\textbf{{{escape(cell.text)}}}" if cell.strong else escape(cell.text)
    if cell.mark:
        text += rf"\textsuperscript{{{cell.mark}}}"
    return rf"{text} {{\scriptsize {escape(cell.remark)}}}" if cell.remark else text
