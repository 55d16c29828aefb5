"""`atoken train` from the command's own entry point."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from atoken import cli
from atoken.tokenizer import AToken
from atoken.training.logs import LOG
from atoken.training.recipe import Recipe
from atoken.training.trainer import Trainer
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
def given(recipe: Recipe, folder: Path, tmp_path: Path) -> list[object]:
    """The usual arguments; the recipe is a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe.to_dict()))
    return [
        "--recipe",
        path,
        "--data",
        f"images={folder}",
        "--out",
        tmp_path / "out",
        "--device",
        "cpu",
        "--workers",
        0,
    ]


def test_the_model_and_its_figures_are_written(
    run: Run, given: list[object], folder: Path, tmp_path: Path, tiny: Any
) -> None:
    val = tmp_path / "val"
    val.mkdir()
    for seed in (7, 8):
        Image.fromarray(picture(seed, 256, 300)).save(val / f"v{seed}.png")
    Image.fromarray(picture(9, 256, 255)).save(val / "small.png")
    (folder / "p1.png").write_bytes(b"no picture")
    code, out, err = run(*given, "--val", f"images={val}")
    assert code == 0, err
    assert "stage 1, images: step 0 of 12" in out
    assert "skipped small.png: 255x256 pixels" in out
    # A broken file is replaced when it is drawn, and named at the end.
    assert "1 samples could not be used and were replaced by others:" in out
    assert "p1.png" in out.split("replaced by others:")[1]
    model = AToken.from_pretrained(tmp_path / "out" / "stage-1" / "model")
    assert (model.config.name, model.config.patch[0]) == (tiny.name, 1)
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert figures["stage-1"]["step"] == 12
    assert 10 < figures["stage-1"]["val_images_psnr"] < 40
    assert yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())["model"] == tiny.name


def test_the_same_command_goes_on(run: Run, given: list[object], tmp_path: Path) -> None:
    code, out, _ = run(*given, "--minutes", 0)
    assert code == 0
    assert "stopped before the end; the same command goes on from there" in out
    code, out, _ = run(*given)
    assert code == 0
    assert "all stages are done" in out
    assert len((tmp_path / "out" / LOG).read_text().splitlines()) == 12
    code, out, _ = run(*given)
    assert code == 0
    assert "all stages are done" in out


def test_a_key_of_the_recipe_is_changed(run: Run, given: list[object], tmp_path: Path) -> None:
    assert run(*given, "--set", "stages.images.steps=3", "--set", "optimizer.lr=1e-4")[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / LOG).read_text().splitlines()]
    assert len(lines) == 3
    assert max(line["lr"] for line in lines) <= 1e-4


def test_ctrl_c_saves_and_leaves(
    run: Run, given: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Trainer._accumulate
    before = signal.getsignal(signal.SIGINT)  # a shell's background job, for one, ignores it

    def interrupt(self: Trainer, *arguments: Any) -> Any:
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return whole(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_accumulate", interrupt)
        code, out, _ = run(*given)
    assert code == 0
    assert "stopped before the end" in out
    assert signal.getsignal(signal.SIGINT) is before
    code, out, _ = run(*given)
    assert "step 4 of 12" in out


def test_a_plan_needs_no_data(run: Run, given: list[object]) -> None:
    code, out, _ = run("--recipe", "so400m", "--stage", 3, "--plan")
    assert code == 0
    assert "GPU-hours" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "huge", "--data", "images=photos", "--out", "o"], "huge: no such recipe; give one of "),
        (["--recipe", "nano", "--out", "o"], "training needs --data KIND=PATH and --out DIR"),
        (["--data", "photos", "--out", "o"], "--data photos: write KIND=PATH, with KIND images, videos or assets"),
        (["--data", "sounds=x", "--out", "o"], "--data sounds=x: write KIND=PATH"),
        (["--data", "images=nowhere", "--out", "o"], "nowhere: no such file or folder"),
        (["--data", "images=empty", "--out", "o"], "empty: "),
        (["--data", "images=photos", "--out", "o", "--stage", "6"], "--stage 6: give a stage from 1 to 5"),
        (["--data", "images=photos", "--out", "o", "--set", "lr=1"], "lr"),
        (["--data", "images=photos", "--out", "o", "--tracker", "paper"], "--tracker paper: give tensorboard or wandb"),
        (["--data", "images=photos", "--out", "o"], "image_text needs images with captions"),
    ],
)
def test_bad_input_is_one_clear_line(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    code, _, err = run(*arguments, "--device", "cpu")
    assert code == 1
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "o" / "stage-1").exists()


def test_another_recipe_in_the_same_folder(run: Run, given: list[object]) -> None:
    assert run(*given, "--minutes", 0)[0] == 0
    code, _, err = run(*given, "--set", "optimizer.clip=2.0")
    assert code == 1
    assert "at step 0 with another optimizer.clip" in err


def test_a_later_stage_needs_the_one_before(run: Run, given: list[object], recipe: Recipe, tmp_path: Path) -> None:
    data = recipe.to_dict()
    data["stages"]["more"] = {**data["stages"]["images"], "steps": 2}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(data))
    code, _, err = run(*given, "--stage", 2)
    assert code == 1
    assert "stage 2 starts from the model of stage 1" in err
    assert run(*given)[0] == 0
    assert (tmp_path / "out" / "stage-2" / "model" / "model.safetensors").is_file()
