"""Golden cases: the file that holds one, and the sheet on which its outputs are compared.

A case is one ``.safetensors`` file made by a reference run: inputs ``in/...``, float16 weights
``weights/...``, outputs ``out/...``; the header tells seed, shapes and settings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from harness.errors import BenchError

__all__ = ["TOLERANCES", "Case", "Produced", "Row", "Tolerance", "Verdict", "compare", "read_case"]

Verdict = Literal["ok", "FAIL", "no target"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One compared output.

    Attributes:
        case: the file's name without its suffix.
        output: key of the output, without ``out/``.
        max_abs_diff: largest absolute difference; None where nothing was compared.
        tolerance: what it may be; 0 asks for equality.
        verdict: ``no target`` marks values that a reference file holds and that nobody should reach.
        note: why, in words, where the figures do not say it.
    """

    case: str
    output: str
    max_abs_diff: float | None = None
    tolerance: float | None = None
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerance:
    """Largest absolute differences that an install may show in a dtype; outputs have std about 1.

    Attributes:
        values: of all outputs but one.
        kl: of the KL divergence per token, a sum over channels of up to tens.
        border: a bounded latent nearer than this to a rounding border may fall on either side.
    """

    values: float
    kl: float
    border: float

    def of(self, output: str) -> float:
        """For an output by its key."""
        return self.kl if output == "kl_per_token" else self.values


TOLERANCES: dict[torch.dtype, Tolerance] = {
    # Wrong variants of the arithmetic (another GELU, another epsilon, another axis order, ...) all exceed these.
    torch.float32: Tolerance(values=2e-5, kl=1e-4, border=2e-5),
    # What rounding alone does, doubled: 0.11 is the largest seen over all cases, 0.5 for KL and
    # 0.05 for bounded latents. Enough to see a wrong formula, not a changed epsilon.
    torch.bfloat16: Tolerance(values=0.2, kl=1.0, border=0.1),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What a golden file holds: its header, JSON values parsed, and its tensors on the CPU."""

    name: str
    header: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """Tensors whose key starts with `prefix`, by the rest of their key, in natural order."""
        found = {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}
        return {key: found[key] for key in sorted(found, key=_natural)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Produced:
    """What this install gives for a case.

    Attributes:
        values: by output key. Integer tensors must agree exactly.
        certain: by output key, mask of the values that rounding cannot turn over; all if not given.
        no_target: by output key, why the stored values are not to be reached.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    certain: dict[str, Tensor] = field(default_factory=dict)
    no_target: dict[str, str] = field(default_factory=dict)


def read_case(path: Path) -> Case:
    """Read a golden file.

    Raises:
        BenchError: not there, no safetensors file, or truncated.
    """
    try:
        with safe_open(path, "pt") as file:
            header = {key: _parsed(value) for key, value in (file.metadata() or {}).items()}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise BenchError(f"{path}: cannot be read as a golden case ({error})") from None
    return Case(name=path.stem, header=header, tensors=tensors)


def compare(case: Case, produced: Produced, tolerance: Tolerance) -> list[Row]:
    """A row for every output of the file; one that this install does not produce fails."""
    return [_row(case.name, key, wanted, produced, tolerance) for key, wanted in case.under("out/").items()]


def _row(case: str, key: str, wanted: Tensor, produced: Produced, tolerance: Tolerance) -> Row:
    if key not in produced.values:
        return Row(case=case, output=key, verdict="FAIL", note="this install knows no such output")
    got = produced.values[key].detach().cpu()
    if got.shape != wanted.shape:
        return Row(case=case, output=key, verdict="FAIL", note=f"{list(got.shape)} instead of {list(wanted.shape)}")
    gap = (got.double() - wanted.double()).abs()
    note = ""
    if key in produced.certain:
        certain = produced.certain[key].cpu()
        gap = gap[certain]
        if not certain.all():
            note = f"{int((~certain).sum())} of {certain.numel()} lie on a rounding border"
    # NaN must fail: a plain maximum of nothing or of NaN would not.
    largest = float(gap.max()) if gap.numel() else 0.0
    limit = tolerance.of(key) if wanted.is_floating_point() else 0.0
    verdict: Verdict = "ok" if largest <= limit else "FAIL"
    if key in produced.no_target:
        verdict, note = "no target", produced.no_target[key]
    return Row(case=case, output=key, max_abs_diff=largest, tolerance=limit, verdict=verdict, note=note)


def _parsed(value: str) -> Any:
    """Lists, objects and numbers are stored as JSON, names as they are."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def _natural(key: str) -> list[Any]:
    """block_10 after block_2."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", key)]
