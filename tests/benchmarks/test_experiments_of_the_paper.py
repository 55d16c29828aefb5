"""Every figure of the paper's tables belongs to an experiment, and every experiment to the paper."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.image_recon import EXPERIMENT
from benchmarks.planned import EXPERIMENTS
from harness import protocol, registry
from harness.experiment import Experiment
from reports import paper

ALL = (EXPERIMENT, *EXPERIMENTS)
FIGURES = [f"table{number:02d}" for number in range(3, 14)]  # 1 and 2 describe, they measure nothing


def covered(experiments: tuple[Experiment, ...]) -> dict[str, dict[int, set[str]]]:
    """Table -> column -> names of the experiments that fill it. Raises for a column that does not exist."""
    columns: dict[str, dict[int, set[str]]] = {}
    for experiment in experiments:
        for fills in experiment.fills:
            table = paper.load(fills.table)
            for group in fills.group.values():
                for last in fills.columns.values():
                    place = table.column(group, last)
                    columns.setdefault(fills.table, {}).setdefault(place, set()).add(experiment.name)
    return columns


@pytest.mark.parametrize("name", FIGURES)
def test_every_column_with_figures_is_filled_by_one_experiment(name: str) -> None:
    table = paper.load(name)
    places = {place for place, column in enumerate(table.columns) if column.metric}
    found = covered(ALL)[name]
    assert set(found) == places
    assert all(len(names) == 1 for names in found.values())


def test_every_table_is_named_once() -> None:
    assert sorted(covered(ALL)) == FIGURES


@pytest.mark.parametrize("experiment", ALL, ids=lambda experiment: experiment.name)
def test_an_experiment_says_what_it_is(experiment: Experiment) -> None:
    assert experiment.title
    assert experiment.needs
    assert experiment.datasets
    assert {dataset for fills in experiment.fills for dataset in fills.group} <= set(experiment.datasets)
    if experiment.status == "planned":
        assert experiment.runner is None
        assert not experiment.protocols
        assert experiment.fills or "Figure" in experiment.title


def test_the_command_finds_them_all() -> None:
    assert {experiment.name for experiment in ALL} <= set(registry.experiments())
    assert len({experiment.name for experiment in ALL}) == len(ALL)


def test_image_recon_is_whole() -> None:
    assert set(EXPERIMENT.protocols) == set(protocol.names("image-recon"))
    cells = {cell for fills in EXPERIMENT.fills for cell in fills.columns}
    for name in EXPERIMENT.protocols:
        assert cells <= {metric.name for metric in protocol.load("image-recon", name).metrics}
    for spec in EXPERIMENT.tokenizers:
        assert registry.TokenizerSpec.parse(spec).name in registry.tokenizers()
    assert EXPERIMENT.runner is not None
    module, _, function = EXPERIMENT.runner.partition(":")
    assert callable(getattr(__import__(module, fromlist=[function]), function))


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys, benchmarks.image_recon, benchmarks.planned;"
        "print(*{'torch', 'numpy', 'pandas', 'PIL'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
