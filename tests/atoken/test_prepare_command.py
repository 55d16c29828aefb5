"""`atoken prepare`: resumable, broken meshes named, nothing lost on Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from atoken.errors import ATokenError
from atoken.prepare_command import prepare
from atoken.training.data import load_prepared
from tests.atoken.training.test_data_assets import write_cube, write_library

QUICK = ["--views", "4", "--size", "64", "--pictures", "3", "--picture-size", "16"]

app = typer.Typer()
app.command()(prepare)


def run(*arguments: object) -> str:
    """What it prints; raises what it raises."""
    result = CliRunner().invoke(app, [str(a) for a in arguments] + QUICK, catch_exceptions=False, standalone_mode=False)
    return result.output


def stamps(folder: Path) -> dict[str, int]:
    """Of whole files: what is being written is hidden."""
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("[!.]*.npz")}


def test_a_library_is_prepared_once(tmp_path: Path) -> None:
    library, out = write_library(tmp_path / "library.zip"), tmp_path / "out"
    assert f"3 assets prepared, 0 stood already, in {out}" in run(library, "-o", out)
    before = stamps(out)
    assert sorted(before) == ["chair.npz", "slippers_other.npz", "tv.npz"]
    assert load_prepared(out / "tv.npz").captions == ("a 3D model of a TV",)
    (out / "tv.npz").unlink()
    assert "1 assets prepared, 2 stood already" in run(library, "-o", out, "--jobs", "2")
    after = stamps(out)
    assert {name: after[name] for name in ("chair.npz", "slippers_other.npz")} == {
        name: before[name] for name in ("chair.npz", "slippers_other.npz")
    }


def test_some_meshes_can_be_held_out(tmp_path: Path) -> None:
    run(write_library(tmp_path / "library.zip"), "-o", tmp_path / "out", "--hold-out", 2)
    assert sorted(stamps(tmp_path / "out/train")) == ["chair.npz", "slippers_other.npz"]
    assert sorted(stamps(tmp_path / "out/val")) == ["tv.npz"]


def test_broken_meshes_are_named_and_counted(tmp_path: Path) -> None:
    write_cube(tmp_path / "in")
    (tmp_path / "in/bad.obj").write_text("nothing")
    output = run(tmp_path / "in", "-o", tmp_path / "out")
    assert f"{tmp_path}/in/bad.obj: " in output
    assert "1 of 2 meshes left out, see above" in output
    (tmp_path / "in/cube.obj").unlink()
    with pytest.raises(ATokenError, match="none of 1 meshes could be used"):
        run(tmp_path / "in", "-o", tmp_path / "out")


def test_two_meshes_of_one_name(tmp_path: Path) -> None:
    one, two = write_cube(tmp_path / "one"), write_cube(tmp_path / "two")
    with pytest.raises(ATokenError, match=r"two/cube.obj and .*one/cube.obj would both be .*cube.npz"):
        run(one, two, "-o", tmp_path / "out")


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ATokenError, match="nothing was written"):
        run(write_cube(tmp_path / "in"), "-o", tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interrupt_loses_nothing(tmp_path: Path, jobs: str) -> None:
    for number in range(40):
        mesh = write_cube(tmp_path / "in", f"cube{number}")
        mesh.write_text(mesh.read_text().replace("0.5", f"0.{number + 10}"))
    out = tmp_path / "out"
    program = "import typer; from atoken.prepare_command import prepare; typer.run(prepare)"
    command = [sys.executable, "-c", program, str(tmp_path / "in"), "-o", str(out), "--jobs", jobs]
    child = subprocess.Popen([*command, "--views", "20", "--size", "128"], start_new_session=True)
    while not stamps(out):
        time.sleep(0.05)
        assert child.poll() is None
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: the workers hear it too
    assert child.wait(timeout=60) != 0
    done = stamps(out)
    assert 0 < len(done) < 40
    assert len(list(out.iterdir())) == len(done)  # no parts lie about
    for name in done:
        load_prepared(out / name)
