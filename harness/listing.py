"""What `atoken-bench list` prints. Nothing heavy is imported: it answers at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint

import rich.box
import rich.console
from rich.table import Table

from harness import protocol, registry
from harness.ablation import Ablation
from harness.data.catalog import DATASETS
from harness.experiment import Experiment
from harness.metrics.families import EMBEDDING_METRICS, FAMILIES, STRUCTURE_METRICS


def tables(what: str | None) -> list[Table]:
    """The tables of one kind, or of all kinds where `what` is None."""
    return [build() for kind, build in KINDS.items() if what in (None, kind)]


def table(title: str, rows: Sequence[Mapping[str, str]]) -> Table:
    """A table whose columns are the keys of its rows."""
    result = Table(title=title, title_justify="left", title_style="bold", box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for column in rows[0] if rows else ():
        result.add_column(column, overflow="fold")
    for row in rows:
        result.add_row(*row.values())
    return result


def show(built: Sequence[Table]) -> None:
    console = rich.console.Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 200  # a pipe has no width of its own; lines that break are no use to grep
    for one in built:
        console.print(one)


def _experiments() -> Table:
    return table("Experiments", [experiment_row(experiment) for experiment in registry.experiments().values()])


def experiment_row(experiment: Experiment) -> dict[str, str]:
    """Name, status, title and the cells or the figure of the paper that an experiment fills or redoes."""
    cells = "; ".join(f"{fills.table}: {_cells(fills.group, fills.columns)}" for fills in experiment.fills)
    if isinstance(experiment, Ablation):
        cells = f"{experiment.figure}; trains {len(experiment.variants)}, options {', '.join(experiment.options)}"
    return {"name": experiment.name, "status": experiment.status, "title": experiment.title, "fills": cells}


def _cells(group: Mapping[str, str], columns: Mapping[str, str]) -> str:
    heads = ", ".join(dict.fromkeys(head for head in group.values() if head))
    names = ", ".join(columns.values())
    return f"{heads} × {names}" if heads else names


def _tokenizers() -> Table:
    return table("Tokenizers", [_tokenizer(name, point) for name, point in registry.tokenizers().items()])


def _tokenizer(name: str, point: EntryPoint) -> dict[str, str]:
    package = point.dist.name if point.dist else ""
    return {"name": name, "factory": point.value, "package": package}


def _embedders() -> Table:
    return table("Embedders", [_tokenizer(name, point) for name, point in registry.embedders().items()])


def _datasets() -> Table:
    rows = [
        {
            "name": entry.name,
            "of": entry.modality,
            "title": entry.title,
            "samples": f"{entry.expected:,}" if entry.expected else "any",
            "location": entry.location,
        }
        for entry in DATASETS
    ]
    return table("Datasets", rows)


def _metrics() -> Table:
    rows = [
        {
            "name": name,
            "of": modality,
            "title": family.title,
            "options": "; ".join(f"{k}: {v}" for k, v in family.options.items()),
        }
        for modality, families in (
            *FAMILIES.items(),
            ("embedding", EMBEDDING_METRICS),
            ("structure", STRUCTURE_METRICS),
        )
        for name, family in families.items()
    ]
    return table("Metrics", rows)


def _protocols() -> Table:
    rows = []
    for experiment in registry.experiments().values():
        for name in protocol.names(experiment.name):
            loaded = protocol.load(experiment.name, name)
            rows.append(
                {
                    "experiment": experiment.name,
                    "name": f"{name} v{loaded.version}",
                    "title": loaded.title,
                    "prepare": loaded.prepare,
                    "sha256": loaded.sha256[:12],
                }
            )
    return table("Protocols", rows)


KINDS: dict[str, Callable[[], Table]] = {
    "experiments": _experiments,
    "tokenizers": _tokenizers,
    "embedders": _embedders,
    "datasets": _datasets,
    "metrics": _metrics,
    "protocols": _protocols,
}
