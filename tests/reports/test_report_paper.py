"""The paper's tables: the same bytes as the developers' copy, every figure typed."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest

from harness.errors import BenchError
from reports import paper


@pytest.mark.parametrize("name", paper.names())
def test_equals_the_developers_copy(shared: Path, name: str) -> None:
    ours = (resources.files("reports") / "paper" / f"{name}.csv").read_bytes()
    assert ours == (shared / "paper" / "tables" / f"{name}.csv").read_bytes()


def test_there_are_thirteen() -> None:
    files = sorted(file.name for file in (resources.files("reports") / "paper").iterdir())
    assert files == [f"table{number:02d}.csv" for number in range(1, 14)]
    assert [paper.load(name).number for name in paper.names()] == list(range(1, 14))


def test_every_figure_of_a_metric_column_is_typed() -> None:
    for name in paper.names():
        table = paper.load(name)
        for row in table.rows:
            for index, column in enumerate(table.columns):
                if column.metric:
                    printed = table.printed(row, index)
                    assert (printed is None) == (row.values[index] == "-")
                    assert printed is None or f"{printed.value:.{printed.decimals}f}{printed.unit}" == printed.text


def test_directions_follow_the_arrows() -> None:
    table = paper.load("table04")
    assert [(c.group, c.label, c.higher_is_better) for c in table.columns[4:8]] == [
        ("ImageNet", "PSNR", True),
        ("ImageNet", "SSIM", True),
        ("ImageNet", "LPIPS", False),
        ("ImageNet", "rFID", False),
    ]
    assert [column.metric for column in table.columns[:4]] == [False] * 4
    for column in paper.load("table05").columns[3:]:
        assert column.higher_is_better  # accuracies and recalls, printed without arrows
    assert not any(column.metric for name in ("table01", "table02") for column in paper.load(name).columns)


def test_percentages_keep_their_unit() -> None:
    table = paper.load("table13")
    printed = table.printed(table.rows[0], table.column("T2I", "GenEval"))
    assert printed is not None
    assert (printed.value, printed.decimals, printed.unit) == (62.14, 2, "%")


def test_a_row_is_named_by_family_and_method() -> None:
    keys = [row.key for row in paper.load("table04").rows]
    assert "AToken-So/C / Stage 3" in keys
    assert "AToken-So/D" in keys
    assert "SD-VAE" in keys


def test_best_of_a_block_is_by_direction_and_not_by_the_papers_marks() -> None:
    table = paper.load("table04")
    continuous = tuple(row for row in table.rows if row.group == "Continuous Latent")
    # The paper prints 0.916 (Hunyuan) in bold; 0.917 (FLUX.1) is higher.
    assert table.best(table.column("ImageNet", "SSIM↑"), continuous) == 0.917
    assert table.best(table.column("ImageNet", "rFID↓"), continuous) == 0.176
    discrete = tuple(row for row in table.rows if row.group == "Discrete Latent")
    assert table.best(table.column("ImageNet", "PSNR↑"), discrete) == 27.14


def test_a_single_figure_is_not_the_best_of_its_block() -> None:
    table = paper.load("table03")
    trellis = next(row for row in table.rows if row.method == "Trellis-SLAT")
    assert table.best(table.column("3D", "PSNR↑"), table.block(trellis)) is None


def test_table_5_is_ranked_within_a_resolution() -> None:
    table = paper.load("table05")
    block = table.block(table.rows[0])
    assert {row.values[0] for row in block} == {"224"}


def test_unknown_names_say_what_there_is() -> None:
    with pytest.raises(BenchError, match="no table 'table14'; there are table01"):
        paper.load("table14")
    with pytest.raises(BenchError, match=re.escape("table04: no column 'PSNR' below 'ImageNet'")):
        paper.load("table04").column("ImageNet", "PSNR")
    table = paper.load("table04")
    with pytest.raises(BenchError, match=r"row 'SD-VAE', column 'Comp. Ratio': '\(1, 8, 8\)' is not a figure"):
        table.printed(table.rows[0], 1)
