"""`atoken-bench audit golden`: does this install compute what the reference computed?

Any folder of files of the schema in `harness.golden_sheet` serves; what a case holds is read from
its header, never from its name. A few cases ship with the package (``golden_cases/``, random weights
from our own reference runs): a 40-frame video in three tiles, a packed video and image with FSQ, and
the parts alone. Outputs that others imply were left out of them, to keep them small. Cases with videos
run twice, at once and as streams.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import rich.console
import torch
from rich.table import Table

from atoken.errors import ATokenError
from harness import golden_assets, golden_network, golden_parts, golden_streams, golden_views
from harness.errors import BenchError
from harness.golden_sheet import TOLERANCES, Case, Row, compare, read_case

__all__ = ["SHIPPED", "Row", "audit_golden", "run_golden"]

SHIPPED = Path(__file__).parent / "golden_cases"

# By the header key that only this kind of case has; the first that is there decides.
_PARTS = {
    "head_dims": golden_parts.rope,
    "grids": golden_parts.positions,
    "levels": golden_parts.fsq,
    "specs": golden_parts.preprocess,
    "camera_angle_x": golden_views.views,
}


def run_golden(folder: Path | None, device: str = "cpu", dtype: str = "float32") -> list[Row]:
    """Run every golden case of a folder through this install.

    Args:
        folder: holds ``.safetensors`` cases; None means those that ship with the package.
        device: as torch names it.
        dtype: of weights and activations, ``float32`` or ``bfloat16``. Parts that are always
            computed in float32 are held to its tolerance in either.

    Returns:
        A row for each output of each file. A case that this install does not know fails.

    Raises:
        BenchError: no such folder, no case in it, or a device or dtype that cannot be audited.
    """
    folder = SHIPPED if folder is None else folder
    if not folder.is_dir():
        raise BenchError(f"{folder}: no such folder; give one with golden .safetensors files")
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise BenchError(f"{folder}: holds no golden case (*.safetensors)")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise BenchError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    precision = getattr(torch, dtype, None)
    if precision not in TOLERANCES:
        known = ", ".join(str(known).removeprefix("torch.") for known in TOLERANCES)
        raise BenchError(f"no tolerances for dtype {dtype!r}; choose one of {known}")
    return [row for path in paths for row in _rows(path, place, precision)]


def _rows(path: Path, device: torch.device, dtype: torch.dtype) -> list[Row]:
    try:
        rows = _run(read_case(path), device, dtype)
    except ATokenError as error:
        return [Row(case=path.stem, output="-", verdict="FAIL", note=str(error))]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        # Of a file that says one thing and holds another; the audit goes on to the next.
        note = f"does not follow the schema ({type(error).__name__}: {str(error).splitlines()[0]})"
        return [Row(case=path.stem, output="-", verdict="FAIL", note=note)]
    return rows or [Row(case=path.stem, output="-", verdict="FAIL", note="holds no outputs to compare with")]


def _run(case: Case, device: torch.device, dtype: torch.dtype) -> list[Row]:
    for key, part in _PARTS.items():
        if key in case.header:
            return compare(case, part(case, device), TOLERANCES[torch.float32])
    if "gs_cfg" in case.header:
        return compare(case, golden_assets.asset(case, device, dtype), TOLERANCES[dtype])
    if "arch_cfg" in case.header:
        tolerance = TOLERANCES[dtype]
        rows = compare(case, golden_network.network(case, device, dtype, tolerance), tolerance)
        return rows + golden_streams.streamed(case, device, dtype, tolerance)
    kind = case.header.get("case", "without a name")
    return [Row(case=case.name, output="-", verdict="FAIL", note=f"unknown kind of case: {kind}")]


def audit_golden(folder: Path | None, device: str, dtype: str, echo: Callable[[str], None]) -> int:
    """Run the cases and print a row per output, then the counts.

    Args:
        echo: called with the table and with the closing line.

    Returns:
        The exit code: 1 if any row fails, else 0.
    """
    rows = run_golden(folder, device, dtype)
    table = Table(title=f"golden cases on {device} in {dtype}", title_justify="left")
    for name in ("case", "output", "verdict", "note"):
        table.add_column(name, no_wrap=True)
    for place, name in ((2, "max |diff|"), (3, "tolerance")):
        table.add_column(name, justify="right", no_wrap=True)
        table.columns.insert(place, table.columns.pop())
    for row in rows:
        figures = ("" if value is None else f"{value:.1e}" for value in (row.max_abs_diff, row.tolerance))
        table.add_row(row.case, row.output, *figures, row.verdict, row.note)
    # As wide as it needs to be: a log must not lose figures to a narrow terminal.
    console = rich.console.Console(file=io.StringIO(), width=500, highlight=False, markup=False)
    with console.capture() as text:
        console.print(table)
    echo("\n".join(line.rstrip() for line in text.get().splitlines()))
    counts = Counter(row.verdict for row in rows)
    cases = len({row.case for row in rows})
    echo(f"{cases} case{'s' * (cases > 1)}: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items()))
    return 1 if counts["FAIL"] else 0
