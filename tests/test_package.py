"""The wheel holds all that runs need: it is built, unpacked beside nothing else, and used from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def installed(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs."""
    pytest.importorskip("hatchling", reason="needs hatchling, of the test dependencies, to build the wheel")
    built, target = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", built, repository], check=True)
    (wheel,) = built.glob("*.whl")
    assert wheel.stat().st_size < 40_000_000
    subprocess.run([*pip, "install", "--no-deps", "--target", target, wheel], check=True)
    return target


def _run(installed: Path, where: Path, *command: str) -> str:
    program = f"import sys; sys.path.insert(0, {str(installed)!r}); import {command[0]} as m; {command[1]}"
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=where, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_runs_an_experiment_from_another_folder(installed: Path, tmp_path: Path) -> None:
    where = _run(installed, tmp_path, "harness.cli", "print(m.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    arguments = ["run", "image-recon", "--tokenizer", "identity", "--limit", "1", "--workers", "0"]
    _run(installed, tmp_path, "harness.cli", f"sys.argv[1:] = {arguments}; m.main()")
    _run(installed, tmp_path, "harness.cli", "sys.argv[1:] = ['report']; m.main()")
    assert len(list((tmp_path / "runs").rglob("record.json"))) == 1
    assert (tmp_path / "report" / "index.html").is_file()


def test_the_wheel_carries_the_shipped_model_and_the_golden_cases(installed: Path, tmp_path: Path) -> None:
    loaded = "m.AToken.from_pretrained('atoken-nano'); print(m.__file__)"
    assert Path(_run(installed, tmp_path, "atoken", loaded).strip()).is_relative_to(installed)
    assert list((installed / "harness" / "golden_cases").glob("*.safetensors"))
    for name in ("davis2016.csv", "tokenbench.csv"):
        assert (installed / "harness" / "data" / "lists" / name).is_file()
    for name in ("index.es.js", "LICENSE", "manifest.json"):
        assert (installed / "reports" / "vendor" / "gsplat" / name).is_file()
