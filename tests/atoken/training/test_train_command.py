"""`atoken train` from the command's own entry point."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from atoken import cli
from atoken.tokenizer import AToken
from atoken.training.recipe import Recipe
from atoken.training.trainer import LOG, Trainer
from tests.atoken.training.pictures import picture

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `atoken train` with arguments; gives exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["atoken", "train", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture
def recipe_file(recipe: Recipe, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe.to_dict()))
    return path


def test_the_model_and_its_figures_are_written(
    run: Run, recipe_file: Path, folder: Path, tmp_path: Path, tiny: Any
) -> None:
    val = tmp_path / "val"
    val.mkdir()
    for seed in (7, 8):
        Image.fromarray(picture(seed, 256, 300)).save(val / f"v{seed}.png")
    Image.fromarray(picture(9, 256, 255)).save(val / "small.png")
    (folder / "p1.png").write_bytes(b"no picture")
    code, out, err = run(recipe_file, "--data", folder, "--val", val, "--out", tmp_path / "out")
    assert code == 0, err
    assert "5 photographs, step 0 of 12" in out
    assert [line.split(":")[0] for line in err.splitlines()] == ["skipped p1.png", "skipped small.png"]
    model = AToken.from_pretrained(tmp_path / "out" / "model")
    assert model.config == tiny
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert (figures["images"], figures["step"]) == (2, 12)
    crops = [picture(seed, 256, 300)[:, 22:278] for seed in (7, 8)]
    errors = [
        np.mean((a.astype(float) - b) ** 2) for a, b in zip(model.decode(model.encode(crops)), crops, strict=True)
    ]
    assert figures["psnr_mean"] == pytest.approx(np.mean(10 * np.log10(255**2 / np.array(errors))))
    # The noise of the posterior costs little, and something.
    assert figures["psnr_mean"] - 1 < figures["psnr_sample"] < figures["psnr_mean"]


def test_the_same_command_goes_on(run: Run, recipe_file: Path, folder: Path, tmp_path: Path) -> None:
    arguments = (recipe_file, "--data", folder, "--out", tmp_path / "out")
    code, out, _ = run(*arguments, "--minutes", 0)
    assert code == 0
    assert "stopped at step 0 of 12; the same command goes on" in out
    assert run(*arguments)[0] == 0
    assert len((tmp_path / "out" / LOG).read_text().splitlines()) == 12
    code, out, _ = run(*arguments)
    assert code == 0
    assert "step 12 of 12" in out


def test_another_number_of_steps(run: Run, recipe_file: Path, folder: Path, tmp_path: Path) -> None:
    assert run(recipe_file, "--data", folder, "--out", tmp_path / "out", "--steps", 3)[0] == 0
    assert len((tmp_path / "out" / LOG).read_text().splitlines()) == 3


def test_ctrl_c_saves_and_leaves(
    run: Run, recipe_file: Path, recipe: Recipe, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Trainer.loss

    def interrupt(self: Trainer, batch: Any) -> Any:
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return whole(self, batch)

    monkeypatch.setattr(Trainer, "loss", interrupt)
    code, out, _ = run(recipe_file, "--data", folder, "--out", tmp_path / "out")
    assert code == 0
    assert "stopped at step 4 of 12" in out
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("recipe_name", "data", "message"),
    [
        ("huge", "photos", "huge: no such recipe; give one of "),
        ("nano", "nowhere", "nowhere: no such folder; give a folder of images"),
        ("nano", "empty", "empty: the folder holds no image"),
    ],
)
def test_bad_input_is_one_clear_line(
    run: Run, folder: Path, tmp_path: Path, recipe_name: str, data: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    code, out, err = run(recipe_name, "--data", tmp_path / data, "--out", tmp_path / "out")
    assert code == 1
    assert not out
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_another_recipe_in_the_same_folder(
    run: Run, recipe_file: Path, recipe: Recipe, folder: Path, tmp_path: Path
) -> None:
    assert run(recipe_file, "--data", folder, "--out", tmp_path / "out", "--steps", 3)[0] == 0
    recipe_file.write_text(yaml.safe_dump(recipe.to_dict() | {"clip": 2.0}))
    code, _, err = run(recipe_file, "--data", folder, "--out", tmp_path / "out", "--steps", 3)
    assert code == 1
    assert "at step 3 with another clip" in err
