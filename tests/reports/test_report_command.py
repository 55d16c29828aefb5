"""`atoken-bench report` as the user meets it: what it writes, prints, replaces and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fake_runs import make_run

from harness.errors import BenchError
from reports import command, paper
from reports.build import Report
from reports.command import FORMATS, report, terminal


def run(runs: Path, out: Path, formats: tuple[str, ...] = FORMATS) -> str:
    said: list[str] = []
    report(runs, out, formats, said.append)
    return "\n".join(said)


@pytest.mark.usefixtures("installed")
def test_writes_every_format_and_says_where(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report"
    said = run(runs, out)
    assert said.endswith(f"Report: {out / 'index.html'}")
    files = {path.name for path in out.iterdir()}
    assert files >= {"index.html", "table04.md", "table04.tex", "table04.csv", "table04.json", "protocols.md", "static"}
    assert [path.name for path in out.parent.iterdir()] == ["report"]
    assert out.stat().st_mode & 0o777 == 0o755


@pytest.mark.usefixtures("installed")
def test_a_run_that_is_not_finished_is_named(runs: Path, tmp_path: Path) -> None:
    half = runs / "image-recon" / "half--samples--paper--00000000"
    half.mkdir()
    assert "not finished" not in run(runs, tmp_path / "report")
    (half / "run.json").write_text("{}")
    assert f"Left out, since not finished: {half}; " in run(runs, tmp_path / "report")


@pytest.mark.usefixtures("installed")
def test_only_the_formats_asked_for(runs: Path, tmp_path: Path) -> None:
    said = run(runs, tmp_path / "report", ("md",))
    assert said.endswith(f"Report: {tmp_path / 'report'}")
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        *(command.MARKER, "protocols.md"),
        *(f"{name}.md" for name in paper.names()),
    }


def test_the_terminal_shows_the_measured_rows_only(made: Report) -> None:
    text = terminal(made, color=False, width=120)
    assert "Table 4, measured on Sample photographs" in text
    for shown in ("atoken-nano", "identity", "∞", "JPEG, quality 75", "AToken-So/C / Stage 3", "n = 12 of 50,000"):
        assert shown in text
    assert "paper 29.72 (" in text
    assert "SD-VAE" not in text
    assert "\x1b" not in text


@pytest.mark.usefixtures("installed")
def test_no_records_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(BenchError) as caught:
        run(tmp_path, tmp_path / "report")
    assert (
        str(caught.value) == f"{tmp_path}: no records in it; `atoken-bench run image-recon --runs {tmp_path}` makes one"
    )
    assert not (tmp_path / "report").exists()


@pytest.mark.usefixtures("installed")
def test_an_unknown_format_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no report format 'pdf'; there are: html, md, latex, csv"):
        run(runs, tmp_path / "report", ("pdf",))


@pytest.mark.usefixtures("installed")
def test_a_folder_of_the_users_is_never_replaced(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "precious"
    out.mkdir()
    (out / "thesis.tex").write_text("years")
    with pytest.raises(BenchError, match="precious: exists and is no report"):
        run(runs, out)
    assert (out / "thesis.tex").read_text() == "years"
    with pytest.raises(BenchError, match="exists and is no report"):
        run(runs, out / "thesis.tex")


@pytest.mark.usefixtures("installed")
def test_a_report_never_takes_the_place_of_its_runs(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    run(runs, out)
    runs.rename(out / "mine")
    with pytest.raises(BenchError, match="report: holds the runs"):
        run(out / "mine", out)
    assert len(list((out / "mine").rglob("record.json"))) == 9


@pytest.mark.usefixtures("installed")
def test_a_damaged_table_of_samples_is_named(runs: Path, tmp_path: Path) -> None:
    path = next(runs.rglob("samples.parquet"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BenchError, match=r"samples\.parquet: not a readable table"):
        run(runs, tmp_path / "report")


@pytest.mark.usefixtures("installed")
def test_an_old_report_is_replaced_as_a_whole(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    run(runs, out)
    (out / "stale.html").write_text("old")
    run(runs, out)
    assert not (out / "stale.html").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_report_leaves_the_old_one(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException | type[BaseException]
) -> None:
    out = tmp_path / "report"
    run(runs, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    make_run(runs, "jpeg:75", protocol="native")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("reports.html.write", fail)
    with pytest.raises((KeyboardInterrupt, BenchError), match=r"^$|report: cannot write the report .*No space left"):
        run(runs, out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report", "runs"]


@pytest.mark.usefixtures("installed")
def test_a_newer_record_ends_the_command_and_leaves_the_old_report(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    run(runs, out)
    path = make_run(runs, "jpeg:75", protocol="native") / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 7}))
    with pytest.raises(BenchError, match=r"native.*record\.json: written by a newer version .*; update atoken-bench"):
        run(runs, out)
    assert (out / "index.html").is_file()


def test_torch_and_ffmpeg_are_never_imported(clip_runs: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from reports.command import FORMATS, report\n"
        "report(Path(sys.argv[1]), Path(sys.argv[2]), FORMATS, print)\n"
        "heavy = {'torch', 'torchvision', 'torchmetrics', 'av'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(clip_runs), str(tmp_path / "report")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert any((tmp_path / "report" / "clips").iterdir())
