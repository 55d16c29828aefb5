"""Every cell of the paper's tables has one state, and the state is what the runs and the data file say."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from io import StringIO
from pathlib import Path

import pytest
from fake_runs import EXPERIMENTS, make_run

from benchmarks import asset_recon
from harness import registry
from harness.errors import BenchError
from harness.experiment import Experiment
from reports import data, paper, states_data
from reports.build import Report, build
from reports.composed import composed
from reports.figures import figure_states
from reports.records import read_all
from reports.states import StateCell, TableState, table_state
from reports.table_pages import states

SHIPPED = registry.experiments()


@pytest.fixture(scope="module")
def bare() -> Report:
    """No runs, and the paper's experiments."""
    return build([], SHIPPED)


@pytest.fixture(scope="module")
def tables(bare: Report) -> dict[str, TableState]:
    return states(bare)


def cell(state: TableState, row: str, header: str) -> StateCell:
    headers = [column.header for column in state.table.columns]
    return next(one for one in state.rows if one.name == row).cells[headers.index(header)]


@pytest.mark.parametrize("name", paper.names())
def test_every_printed_figure_has_a_state_and_a_dash_has_none(tables: dict[str, TableState], name: str) -> None:
    state = tables[name]
    table = paper.load(name)
    assert [row.name for row in state.rows] == [row.key for row in table.rows]
    figures = name not in ("table01", "table02")
    for row, made in zip(table.rows, state.rows, strict=True):
        for place, (column, text) in enumerate(zip(table.columns, row.values, strict=True)):
            one = made.cells[place]
            if place == table.method or (figures and not column.metric):
                assert one.state == "text"
            elif text == "-":
                assert (one.state, one.text) == ("blank", "–")
            else:
                assert one.state in ("printed", "missing")
                assert one.text == text
                # Who reads of a cell that nobody measured is told how, or what is missing.
                assert one.way is not None or one.missing is not None
    counted = Counter(one.state for row in state.rows for one in row.cells if one.state != "text")
    assert {kind: n for kind, n in state.counts.items() if n} == dict(counted)


def test_a_command_names_the_checkpoint_where_the_suite_knows_it(bare: Report) -> None:
    state = table_state(bare, "table04")
    mine = cell(state, "AToken-So/C / Stage 3", "ImageNet / PSNR↑").way
    assert mine is not None
    assert mine.command == ("atoken-bench run image-recon --data imagenet-val=PATH --ckpt atoken-soc.pt --preset so-c")
    other = cell(state, "SD-VAE", "COCO / PSNR↑").way
    assert other is not None
    assert other.command == (
        "atoken-bench run image-recon --data coco-val2017=PATH --tokenizer my_package.my_module:create"
    )
    # One entry for all that wait for the same command.
    assert {"SD-VAE", "UniTok", "Wan2.2"} <= set(other.rows)
    assert other.columns == ["COCO / PSNR↑", "COCO / SSIM↑", "COCO / LPIPS↓", "COCO / rFID↓"]


def test_commands_are_ones_that_the_command_line_takes(tables: dict[str, TableState]) -> None:
    from typer.testing import CliRunner

    from harness.cli import app

    commands = {way.command for state in tables.values() for way in state.ways if way.command}
    assert len(commands) > 20
    known = {verb: CliRunner().invoke(app, [verb, "--help"]).output for verb in ("run", "check")}
    for command in sorted(commands):
        program, verb, what, *options = command.split()
        if program == "atoken-bench":
            assert all(option in known[verb] for option in options if option.startswith("--")), command
            assert verb != "run" or SHIPPED[what].status == "built", command
        for spec in re.findall(r"--tokenizer (\S+)", command):
            assert spec == "my_package.my_module:create" or spec.partition(":")[0] in registry.embedders(), command


def test_what_is_not_published_is_told_with_its_source(bare: Report) -> None:
    video = cell(table_state(bare, "table06"), "Hunyuan", "TokenBench / PSNR↑")
    assert video.state == "missing"
    assert video.missing is not None
    assert video.missing.kind == "list"
    assert "471" in video.missing.what
    assert video.way is not None
    assert video.way.nearest
    assert cell(table_state(bare, "table06"), "Hunyuan", "DAVIS / PSNR↑").state == "printed"
    stage2 = cell(table_state(bare, "table05"), "AToken-So/C / Stage 2", "ImageNet-1k / val")
    assert stage2.missing is not None
    assert stage2.missing.kind == "weights"
    assert {one.state for row in table_state(bare, "table13").rows for one in row.cells} == {"text", "missing"}


def test_a_run_takes_the_place_of_whatever_was_said(tmp_path: Path) -> None:
    make_run(tmp_path, "atoken:so-c.pt", dataset="imagenet-val", expected=50_000)
    make_run(tmp_path, "jpeg:75", dataset="imagenet-val", expected=50_000)
    report = build(read_all(tmp_path), EXPERIMENTS)
    state = table_state(report, "table04")
    psnr = cell(state, "AToken-So/C / Stage 3", "ImageNet / PSNR↑")
    assert psnr.state == "measured"
    assert psnr.record is not None
    assert psnr.figure is not None
    assert psnr.figure.value == psnr.record.cell("PSNR").value  # type: ignore[union-attr]
    assert psnr.figure.difference == psnr.figure.value - 29.72
    # rFID was asked for and could not be measured: it stays printed, and says why.
    rfid = cell(state, "AToken-So/C / Stage 3", "ImageNet / rFID↓")
    assert (rfid.state, rfid.text) == ("printed", "0.209")
    assert "pt_inception" in rfid.absent
    assert cell(state, "AToken-So/C / Stage 3", "COCO / PSNR↑").state == "printed"
    (further,) = state.rows[len(state.table.rows) :]
    assert further.name == "JPEG, quality 75"
    assert state.counts["measured"] == 3
    assert state.counts["further"] == 3
    # The same run fills table 3, whose row has no stage.
    assert cell(table_state(report, "table03"), "AToken-So/C", "Image / PSNR↑").record is psnr.record


def test_table_3_is_composed_of_several_experiments(tmp_path: Path) -> None:
    make_run(tmp_path, "atoken")
    make_run(tmp_path, "jpeg:75")
    other = make_run(tmp_path / "b", "atoken")
    record = json.loads((other / "record.json").read_text())
    record |= {"experiment": "asset-recon", "modality": "asset"}
    (other / "record.json").write_text(json.dumps(record))
    second = Experiment(
        name="asset-recon", title="3D", modality="asset", status="built", fills=asset_recon.EXPERIMENT.fills
    )
    made = composed(build(read_all(tmp_path), {**EXPERIMENTS, "asset-recon": second}))
    assert made is not None
    assert [row.name for row in made.rows] == ["atoken-nano", "JPEG, quality 75"]
    headers = [column.header for column in made.table.columns]
    filled = [
        [header for header, one in zip(headers, row.cells, strict=True) if one.state == "measured"] for row in made.rows
    ]
    assert filled == [["Image / PSNR↑", "3D / PSNR↑", "3D / LPIPS↓"], ["Image / PSNR↑"]]
    assert dict(made.data).keys() == {"Image: image-recon", "3D: asset-recon"}
    assert composed(build([], EXPERIMENTS)) is None


def test_rows_of_table_5_are_told_apart_by_resolution(tmp_path: Path) -> None:
    card = {"paper_row": "AToken-So/D", "title": "AToken-So/D", "token_type": "FSQ"}
    for protocol, side in (("siglip2-256", 256), ("siglip2-512", 512)):
        folder = make_run(tmp_path, "so-d", dataset="imagenet-val", protocol=protocol, card=card)
        record = json.loads((folder / "record.json").read_text())
        record["experiment"] = "image-classify"
        record["protocol"]["content"]["embed"] = {"side": side, "templates": "openai"}
        record["cells"][0] |= {"name": "top-1", "unit": "%", "value": float(side), "interval": None}
        (folder / "record.json").write_text(json.dumps(record))
    classify = SHIPPED["image-classify"]
    built = Experiment(
        name="image-classify", title="c", status="built", fills=classify.fills, protocols=("siglip2-256", "siglip2-512")
    )
    state = table_state(build(read_all(tmp_path), {"image-classify": built}), "table05")
    found = {row.cells[0].text: row.cells[3] for row in state.rows if row.name == "AToken-So/D"}
    assert found["384"].state == "printed"
    values = {side: found[side].figure.value for side in ("256", "512") if found[side].figure is not None}
    assert values == {"256": 256.0, "512": 512.0}


def test_cells_as_csv_and_json_hold_the_same(bare: Report, tables: dict[str, TableState]) -> None:
    rows = [row for state in tables.values() for row in data.cells(bare, state)]
    assert {row["table"] for row in rows} == set(paper.names())
    read = list(csv.DictReader(StringIO(data.to_csv(rows, data.CELL_FIELDS), newline="")))
    stated = json.loads(data.to_json(rows))
    assert len(read) == len(stated) == len(rows)
    for text, entry in zip(read, stated, strict=True):
        assert {key: value or None for key, value in text.items()} == entry


def test_figures_of_the_paper_are_all_listed(bare: Report, tmp_path: Path) -> None:
    found = {one.figure.number: one for one in figure_states(bare, lambda run: "x.html")}
    assert sorted(found) == list(range(1, 15))
    assert {number for number, one in found.items() if one.state == "drawing"} == {1, 2, 3, 5, 6}
    assert found[9].state == "ready"
    assert found[14].state == "planned"
    make_run(tmp_path, "jpeg:75")
    redone = figure_states(build(read_all(tmp_path), SHIPPED), lambda run: "x.html")[8]
    assert redone.state == "redone"
    assert redone.experiments[0].pages == (("1 run", "index.html#image-recon"),)


BASE = """
systems: []
elsewhere: []
missing:
  - {name: a, kind: KIND, what: w, why: y, source: s, cells: [{table: TABLE, rows: [ROW], columns: [COLUMN]}]}
figures: [{number: 1, shows: x, drawing: true}]
"""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"KIND": "mood"}, "kind 'mood' is none of weights, list, recipe"),
        ({"TABLE": "table99"}, "no table 'table99'"),
        ({"ROW": "Nobody*"}, "table04 has no row 'Nobody*'"),
        ({"COLUMN": "COCO / FVD"}, "table04 has no column 'COCO / FVD'"),
        ({"number: 1": "number: 2"}, "figures are not numbered"),
        ({", drawing: true": ""}, "either a drawing, or with the experiments"),
        ({"kind: KIND, ": ""}, "missing"),
        ({"systems: []": "systems: [{rows: [X], tokenizer: a, arguments: b, wants: c}]"}, "no table has a row 'X'"),
        ({"systems: []": "systems: [:"}, "install this package again"),
    ],
)
def test_a_data_file_that_speaks_of_nothing_is_refused(changes: dict[str, str], said: str | None) -> None:
    text = BASE
    for old, new in changes.items():
        text = text.replace(old, new)
    for old, new in (("KIND", "weights"), ("TABLE", "table04"), ("ROW", "SD-*"), ("COLUMN", "COCO / *")):
        text = text.replace(old, new)
    if said is None:
        assert states_data.parse(text).missing[0].cells[0].rows == ("SD-*",)
        return
    with pytest.raises(BenchError, match=f"states.yaml: .*{said}".replace("*'", r"\*'")):
        states_data.parse(text)
