"""`atoken-bench compare`: two runs over the same samples, sample by sample."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import BenchError
from harness.metrics.bootstrap import mean_interval
from harness.records import NAME
from harness.shards import NAMING, ROW
from reports import numbers
from reports.records import SAMPLES, Record, read

if TYPE_CHECKING:
    from rich.table import Table

FORMATS = ("table", "json")
RESAMPLES = 1999
"""Of the bootstrap: with this number the two ends have the same rank from their side, so B - A is minus A - B."""
_FIELDS = (
    ("experiment",),
    ("protocol", "name"),
    ("protocol", "sha256"),
    ("dataset", "name"),
    ("dataset", "ids_sha256"),
    ("dataset", "content_sha256"),
    ("understanding", "texts_sha256"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """One metric of two runs, compared over the samples that both measured.

    Attributes:
        metric: name of the column in ``samples.parquet``.
        unit: of the metric's cell.
        higher_is_better: None where no cell of the record says it; then nobody wins.
        n: samples with a value in both runs, infinite ones too.
        undefined: samples without a value in one of the runs, left out of everything.
        infinite: of the `n`, those whose difference is infinite (an identical image's PSNR): in wins and p-value,
            not in the mean, its interval and the effect size.
        mean_difference: mean over samples of A less B; two infinite values of one sign differ by 0. None where
            every difference is infinite or there is no sample.
        interval: paired 95 % percentile bootstrap of the mean difference; None below two finite differences.
        p_value: two-sided Wilcoxon signed-rank test over the `n` samples, an infinite difference as the largest;
            1 where every difference is 0, None without samples.
        effect_size: the mean difference over the standard deviation (n - 1) of the differences; 0 where all are 0,
            None where they are all the same other number or fewer than two are finite.
        wins_a, wins_b: samples on which A or B is better; None without a direction.
        ties: samples on which both are equal.
    """

    metric: str
    unit: str
    higher_is_better: bool | None
    n: int
    undefined: int
    infinite: int
    mean_difference: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    effect_size: float | None
    wins_a: int | None
    wins_b: int | None
    ties: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs: ``metrics`` were compared, ``left_out`` gives the reason of those that were not, ``notes`` say what
    else is not the same in the two runs."""

    a: Record
    b: Record
    metrics: tuple[Paired, ...]
    left_out: Mapping[str, str]
    notes: tuple[str, ...]


def compare(run_a: Path, run_b: Path) -> Comparison:
    """Compare two runs' folders.

    Raises:
        BenchError: a record or table that cannot be read, runs of another experiment, protocol or dataset (names
            the fields and both values), tables of other samples, or no metric in common.
    """
    a, b = read(run_a / NAME), read(run_b / NAME)
    _refuse(a, b)
    tables = _table(a), _table(b)
    for key in ("id", "sha256"):
        if tables[0][key].to_pylist() != tables[1][key].to_pylist():
            raise BenchError(
                f"{a.folder / SAMPLES} and {b.folder / SAMPLES}: column {key} differs although the records state the "
                "same dataset; one table was changed, see `atoken-bench audit run`"
            )
    shared = [name for name in tables[0].column_names if name in tables[1].column_names and name not in (*ROW, *NAMING)]
    left_out = {
        name: f"only in {record.folder}"
        for record, table, other in ((a, *tables), (b, *reversed(tables)))
        for name in table.column_names
        if name not in (*ROW, *NAMING) and name not in other.column_names
    }
    metrics = []
    for name in shared:
        cells = [_cell(record, name) for record in (a, b)]
        titles = [None if cell is None else cell["name"] for cell in cells]
        if titles[0] != titles[1]:
            left_out[name] = f"A measured {titles[0]}, B {titles[1]}"
            continue
        values = [table[name].to_numpy().astype(np.float64) for table in tables]
        up = None if cells[0] is None else bool(cells[0]["higher_is_better"])
        unit = "" if cells[0] is None else str(cells[0].get("unit", ""))
        metrics.append(paired(name, *values, higher_is_better=up, unit=unit))
    if not metrics:
        raise BenchError(f"{run_a} and {run_b}: no metric has a value per sample in both")
    return Comparison(a=a, b=b, metrics=tuple(metrics), left_out=left_out, notes=_notes(a, b))


def paired(
    metric: str, a: np.ndarray, b: np.ndarray, *, higher_is_better: bool | None, unit: str = "", seed: int = 0
) -> Paired:
    """Compare two columns ``[n]`` of one metric, whose entries belong to the same samples.

    Args:
        a, b: not-a-number where a sample has no value; infinities are values.
        seed: of the bootstrap.
    """
    defined = ~(np.isnan(a) | np.isnan(b))
    a, b = a[defined], b[defined]
    with np.errstate(invalid="ignore"):
        differences = np.where(a == b, 0.0, a - b)  # infinity less infinity is not-a-number
    finite = differences[np.isfinite(differences)]
    mean = float(finite.mean()) if len(finite) else None
    larger, smaller = int((differences > 0).sum()), int((differences < 0).sum())
    wins = (None, None) if higher_is_better is None else (larger, smaller) if higher_is_better else (smaller, larger)
    return Paired(
        metric=metric,
        unit=unit,
        higher_is_better=higher_is_better,
        n=len(differences),
        undefined=int((~defined).sum()),
        infinite=len(differences) - len(finite),
        mean_difference=mean,
        interval=mean_interval(finite, count=RESAMPLES, seed=seed),
        p_value=_p_value(differences),
        effect_size=_effect_size(finite),
        wins_a=wins[0],
        wins_b=wins[1],
        ties=len(differences) - larger - smaller,
    )


def _effect_size(differences: np.ndarray) -> float | None:
    if len(differences) < 2:
        return None
    # Equal differences leave a deviation of rounding alone, not of samples.
    if differences.min() == differences.max():
        return None if differences[0] else 0.0
    return float(differences.mean() / differences.std(ddof=1))


def _p_value(differences: np.ndarray) -> float | None:
    from scipy.stats import wilcoxon

    if not len(differences):
        return None
    if not differences.any():
        return 1.0
    # The test looks at signs and ranks alone: infinite differences share the rank above all finite ones.
    sizes = np.abs(differences[np.isfinite(differences)])
    top = 2 * sizes.max() if sizes.any() else 1.0
    return float(wilcoxon(np.clip(differences, -top, top)).pvalue)


def _refuse(a: Record, b: Record) -> None:
    """Raise where the two runs are not about the same thing."""
    differing = []
    for path in _FIELDS:
        values: list[Any] = [a.raw, b.raw]
        for key in path:
            values = [value.get(key) if isinstance(value, Mapping) else None for value in values]
        if values[0] != values[1]:
            differing.append(f"{'.'.join(path)} ({_short(values[0])} and {_short(values[1])})")
    weights = [record.raw.get("weights", {}) for record in (a, b)]
    differing += [
        f"weights.{name} ({_short(weights[0][name])} and {_short(weights[1][name])})"
        for name in weights[0]
        if name in weights[1] and weights[0][name] != weights[1][name]
    ]
    if differing:
        raise BenchError(
            f"{a.folder} and {b.folder} cannot be compared: they differ in {', '.join(differing)}; run both on the "
            "same samples under the same protocol"
        )


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text


def _notes(a: Record, b: Record) -> tuple[str, ...]:
    notes = [
        f"{key}: A {a.settings.get(key)}, B {b.settings.get(key)}"
        for key in ("device", "dtype")
        if a.settings.get(key) != b.settings.get(key)
    ]
    measured = [record.raw.get("code", {}).get("measured_with") for record in (a, b)]
    return (*notes, *(["measured with other code or packages, see both records"] if measured[0] != measured[1] else []))


def _table(record: Record) -> pa.Table:
    path = record.folder / SAMPLES
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise BenchError(f"{path}: no per-sample table; run it again") from None
    except (OSError, pa.ArrowException) as error:
        raise BenchError(f"{path}: not a readable table ({error}); run it again") from None
    if missing := [name for name in ("id", "sha256") if name not in table.column_names]:
        raise BenchError(f"{path}: no column {missing[0]}; run it again")
    return table


def _cell(record: Record, column: str) -> Mapping[str, Any] | None:
    """The cell that a column is summed up in; a metric with unofficial weights says so behind its column's name."""
    named = [cell for cell in record.raw["cells"] if cell["name"].startswith(column)]
    return min(named, key=lambda cell: len(cell["name"]), default=None)


def to_json(made: Comparison) -> str:
    """The comparison as JSON."""
    sides = {
        side: {"folder": str(record.folder), "tokenizer": record.spec, "title": record.title}
        for side, record in (("a", made.a), ("b", made.b))
    }
    same = {"experiment": made.a.experiment, "protocol": made.a.protocol["name"], "dataset": made.a.dataset["name"]}
    content = {
        **sides,
        **same,
        "bootstrap": {"resamples": RESAMPLES, "level": 0.95},
        "test": "Wilcoxon signed-rank, two-sided",
        "metrics": [asdict(metric) for metric in made.metrics],
        "left_out": dict(made.left_out),
        "notes": list(made.notes),
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)


def to_table(made: Comparison) -> Table:
    """The comparison as a table for a terminal."""
    from harness.listing import table

    title = f"{made.a.title} (A) less {made.b.title} (B): {made.a.experiment}, {made.a.dataset['name']}, "
    return table(title + str(made.a.protocol["name"]), [_row(metric) for metric in made.metrics])


def _row(metric: Paired) -> dict[str, str]:
    mean, bounds = metric.mean_difference, metric.interval
    sizes = [] if mean is None else [mean, *(bounds or ())]
    decimals = numbers.decimals_for([abs(size) for size in sizes], metric.unit)
    arrow = {None: "", True: " ↑", False: " ↓"}[metric.higher_is_better]
    effect, p = metric.effect_size, metric.p_value
    return {
        "metric": f"{metric.metric}{arrow}{f' {metric.unit}' if metric.unit else ''}",
        "n": numbers.count(metric.n),
        "A - B": numbers.DASH if mean is None else numbers.difference(mean, decimals),
        "95 %": numbers.interval(bounds, decimals) or numbers.DASH,
        "p": numbers.DASH if p is None else "< 0.0001" if p < 0.0001 else f"{p:.4f}",
        "effect": numbers.DASH if effect is None else numbers.difference(effect, 2),
        "A wins": numbers.DASH if metric.wins_a is None else numbers.count(metric.wins_a),
        "B wins": numbers.DASH if metric.wins_b is None else numbers.count(metric.wins_b),
        "equal": numbers.count(metric.ties),
    }


def remarks(made: Comparison) -> list[str]:
    """What the table alone does not say, a line each."""
    said = []
    for metric in made.metrics:
        if metric.infinite:
            said.append(
                f"{metric.metric}: {metric.infinite} of {metric.n} differences are infinite (one of the two is "
                "identical to its original); they count in p and wins, not in the mean, interval and effect"
            )
        if metric.undefined:
            said.append(f"{metric.metric}: {metric.undefined} samples have no value in one run and are left out")
    said += [f"{name}: left out, {reason}" for name, reason in made.left_out.items()]
    said += list(made.notes)
    said.append(
        "p: Wilcoxon signed-rank, two-sided, for each metric alone; interval: paired bootstrap, "
        f"{RESAMPLES} resamples; effect: mean over standard deviation of the differences"
    )
    return said


def show(run_a: Path, run_b: Path, format_: str) -> None:
    """Compare two runs and print the outcome.

    Raises:
        BenchError: as `compare`, and an unknown format.
    """
    if format_ not in FORMATS:
        raise BenchError(f"no format {format_!r}; there are: {', '.join(FORMATS)}")
    made = compare(run_a, run_b)
    if format_ == "json":
        print(to_json(made))
        return
    from harness.listing import show as show_tables

    show_tables([to_table(made)])
    print("\n".join(remarks(made)))
