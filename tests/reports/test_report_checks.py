"""Table 1's rows of ours come from what `atoken-bench check` saw and from runs, never from a card."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fake_runs import EXPERIMENTS, make_run

from harness.errors import BenchError
from reports.build import Report, build
from reports.capabilities import capability_state
from reports.checks import read_checks
from reports.command import FORMATS, write
from reports.records import read_all
from reports.states import StateRow

NAMES = (
    *("image reconstruction", "video reconstruction", "asset reconstruction", "discrete tokens"),
    *("continuous tokens", "temporal compression", "native resolution"),
)


def make_check(
    runs: Path, name: str, holds: set[str], *, faults: dict[str, list[str]] | None = None, **card: Any
) -> Path:
    """A check as `harness.check` writes it."""
    folder = runs / "checks" / f"{name}--01234567"
    folder.mkdir(parents=True)
    # A card that boasts: nothing of it may reach the table.
    boast = {"modalities": ["image", "video", "asset"], "token_type": "VAE", "compression": [4, 16, 16]}
    made = {
        "schema": 1,
        "tokenizer": {
            "spec": name,
            "card": {"name": name, "title": name, "weights_sha256": {}, "paper_row": None, **boast, **card},
        },
        "contract": {"trained": True, "tolerance": 1e-4, "faults": faults or {"card": [], "image": []}},
        "capabilities": {one: {"holds": one in holds, "seen": f"saw <{one}>"} for one in NAMES},
        "settings": {},
        "environment": {},
        "code": {},
        "finished": "2026-11-27T01:00:00+00:00",
    }
    (folder / "check.json").write_text(json.dumps(made))
    return folder / "check.json"


def report_of(runs: Path) -> Report:
    return build(read_all(runs), EXPERIMENTS, checks=read_checks(runs))


def ticks(report: Report, name: str) -> dict[str, str]:
    state = capability_state(report)
    row: StateRow = next(one for one in state.rows if one.name == name)
    headers = [column.header for column in state.table.columns]
    return {header: one.tick for header, one in zip(headers, row.cells, strict=True) if one.state == "measured"}


def test_ticks_are_what_was_seen(tmp_path: Path) -> None:
    make_check(tmp_path, "mine", {"image reconstruction", "continuous tokens"})
    assert ticks(report_of(tmp_path), "mine") == {
        "Reconstruction / Image": "✓",
        "Reconstruction / Video": "✗",
        "Reconstruction / 3D": "✗",
        "Discrete Token": "✗",
        "Cont. Token": "✓",
        "Temporal Comp.": "✗",
        "Native Res.": "✗",
    }


def test_what_was_run_and_not_checked_is_told_how(tmp_path: Path) -> None:
    make_run(tmp_path, "atoken")
    make_run(tmp_path, "jpeg:75")
    state = capability_state(report_of(tmp_path))
    further = state.rows[len(state.table.rows) :]
    assert [(row.name, row.badges) for row in further] == [("atoken-nano", ("not checked",))]
    assert {one.state for one in further[0].cells} == {"text", "blank"}
    assert "atoken-bench check atoken" in {way.command for way in state.ways}


def test_the_papers_row_is_measured_by_its_checkpoints(tmp_path: Path) -> None:
    make_check(tmp_path, "so-c", {"continuous tokens"}, paper_row="AToken-So/C / Stage 3")
    make_check(tmp_path, "so-d", {"discrete tokens"}, paper_row="AToken-So/D")
    found = ticks(report_of(tmp_path), "AToken")
    # The row stands for the family.
    assert (found["Discrete Token"], found["Cont. Token"], found["Native Res."]) == ("✓", "✓", "✗")
    state = capability_state(report_of(tmp_path))
    wan = next(row for row in state.rows if row.name == "Wan")
    assert {one.state for one in wan.cells} <= {"text", "printed", "blank"}


def test_the_page_shows_what_was_seen(tmp_path: Path) -> None:
    make_check(tmp_path / "runs", "mine", set(), faults={"card": [], "image": ["turned <b>upside down</b>"]})
    out = tmp_path / "out"
    out.mkdir()
    write(report_of(tmp_path / "runs"), out, FORMATS)
    text = (out / "tables" / "table01.html").read_text()
    assert 'id="seen-mine--01234567"' in text
    assert "saw &lt;native resolution&gt;" in text
    assert "turned &lt;b&gt;upside down&lt;/b&gt;" in text
    assert "the contract is broken" in text
    assert json.loads((out / "checks" / "mine--01234567.json").read_text())["schema"] == 1
    links = re.findall(r'href="\.\./tables/table01\.html(#[^"]+)"', text)
    assert set(links) == {"#seen-mine--01234567"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda made: made.pop("capabilities"), "missing 'capabilities'"),
        (lambda made: made.update(schema=2), "newer version"),
        (lambda made: made.update(capabilities=3), "damaged"),
    ],
)
def test_a_damaged_check_is_named(change: Any, said: str, tmp_path: Path) -> None:
    path = make_check(tmp_path, "mine", set())
    made = json.loads(path.read_text())
    change(made)
    path.write_text(json.dumps(made))
    with pytest.raises(BenchError, match=f"{re.escape(str(path))}: .*{said}"):
        read_checks(tmp_path)
    path.write_text("{")
    with pytest.raises(BenchError, match="damaged"):
        read_checks(tmp_path)
