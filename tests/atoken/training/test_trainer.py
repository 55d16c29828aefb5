"""Runs that are cut off, go wrong, or are asked to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atoken.training.data import Batch, Photos, load_photos
from atoken.training.errors import TrainingError
from atoken.training.recipe import Recipe
from atoken.training.state import CHECKPOINT
from atoken.training.trainer import LOG, Trainer
from tests.atoken.training.pictures import picture


def losses(out: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    assert len({line["step"] for line in lines}) == len(lines)
    return {line["step"]: line["loss"] for line in lines}


@pytest.fixture
def photos(folder: Path) -> Photos:
    return load_photos(folder)


def test_training_lowers_the_loss_and_averages_the_weights(recipe: Recipe, photos: Photos, tmp_path: Path) -> None:
    recipe = replace(recipe, steps=150, lr=1e-3, ema=0.9)
    trainer = Trainer(recipe, photos, tmp_path / "run")
    fixed = Batch(photos.ids, [pixels[5:69, 5:69] for pixels in photos.pixels])
    before = trainer.loss(fixed)[0].item()
    assert trainer.run()
    assert trainer.loss(fixed)[0].item() < before - 0.1
    weight, average = (m.decoder.blocks[0].attn.to_out.weight for m in (trainer.model, trainer.ema))
    assert 0 < (weight - average).abs().max() < weight.abs().max()


def test_a_resumed_run_has_the_very_losses_of_an_uninterrupted_one(
    recipe: Recipe, photos: Photos, tmp_path: Path
) -> None:
    assert Trainer(recipe, photos, tmp_path / "whole").run()
    calls = iter(range(100))
    assert not Trainer(recipe, photos, tmp_path / "cut").run(stop=lambda: next(calls) == 7)
    resumed = Trainer(recipe, photos, tmp_path / "cut")
    assert resumed.step == 7
    assert resumed.run()
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    states = [torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("cut", "whole")]
    for kind in ("model", "ema"):
        for key, value in states[0][kind].items():
            assert torch.equal(value, states[1][kind][key]), key


KILLED = """
import json, sys, torch
torch.set_num_threads(1)
from pathlib import Path
from atoken import config
from atoken.config import ATokenConfig
from atoken.training.data import load_photos
from atoken.training.recipe import Recipe
from atoken.training.trainer import Trainer
folder, out, recipe, tiny = sys.argv[1:]
tiny = ATokenConfig.from_dict(json.loads(tiny))
config.PRESETS[tiny.name] = tiny
Trainer(Recipe(**json.loads(recipe)), load_photos(Path(folder)), Path(out)).run()
"""


def test_kill_9_then_resume_gives_the_same_losses(
    recipe: Recipe, photos: Photos, folder: Path, tmp_path: Path, tiny: Any
) -> None:
    recipe = replace(recipe, steps=400, checkpoint_every=5)
    out = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, str(folder), str(out)]
    command += [json.dumps(recipe.to_dict()), json.dumps(tiny.to_dict())]
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        deadline = time.monotonic() + 60
        # Past a checkpoint and some steps that are only in the log.
        while not ((out / CHECKPOINT).exists() and len((out / LOG).read_text().splitlines()) >= 13):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    shown = (out / LOG).read_text().splitlines()
    resumed = Trainer(recipe, photos, out)
    start = resumed.step
    assert 0 < start < 400
    assert start % 5 == 0
    calls = iter(range(100))
    resumed.run(stop=lambda: next(calls) == 15)
    whole = Trainer(recipe, photos, tmp_path / "whole")
    calls = iter(range(1000))
    whole.run(stop=lambda: next(calls) == start + 15)
    assert losses(out) == losses(tmp_path / "whole")
    # What the killed run had logged after its last checkpoint came again, equal.
    for line in shown:
        if line.endswith("}"):
            step = json.loads(line)["step"]
            assert step > start + 15 or losses(out)[step] == json.loads(line)["loss"]


def test_a_step_without_a_finite_loss_changes_nothing(
    recipe: Recipe, photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(recipe, photos, tmp_path / "run")
    whole = trainer.loss

    def broken(batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        loss, parts = whole(batch)
        return (loss * torch.nan if trainer.step in (2, 5, 6) else loss), parts

    monkeypatch.setattr(trainer, "loss", broken)
    weights: dict[int, torch.Tensor] = {}
    proj = trainer.model.proj.weight

    def note() -> bool:
        weights[trainer.step] = proj.detach().clone()
        return False

    assert trainer.run(stop=note)
    assert trainer.skipped == 3
    assert torch.equal(weights[2], weights[3])
    assert torch.equal(weights[5], weights[7])
    assert not torch.equal(weights[3], weights[4])
    assert Trainer(recipe, photos, tmp_path / "run").skipped == 3


def test_many_such_steps_in_a_row_stop_the_run_and_name_the_samples(
    recipe: Recipe, photos: Photos, tmp_path: Path
) -> None:
    trainer = Trainer(recipe, photos, tmp_path / "run")
    with torch.no_grad():
        trainer.model.decoder.out_layer.weight[0, 0] = torch.inf
    with pytest.raises(TrainingError, match=r"step 3: no finite loss in 3 steps in a row; .*p\d\.png"):
        trainer.run()
    assert Trainer(recipe, photos, tmp_path / "run").step == 3


def test_time_is_up(recipe: Recipe, photos: Photos, tmp_path: Path) -> None:
    assert not Trainer(replace(recipe, steps=10**6), photos, tmp_path / "run").run(seconds=0.3)
    assert 0 < Trainer(replace(recipe, steps=10**6), photos, tmp_path / "run").step < 10**6


def test_validation_is_of_the_averaged_weights(recipe: Recipe, photos: Photos, tmp_path: Path) -> None:
    validation = Photos(["v"], [picture(9, 256, 260)], [])
    seen: list[dict[str, Any]] = []
    trainer = Trainer(replace(recipe, validate_every=8), photos, tmp_path / "run", validation=validation)
    assert trainer.run(report=seen.append)
    scores = {line["step"]: line["val_psnr"] for line in seen if "val_psnr" in line}
    assert list(scores) == [8, 12]
    crop = validation.pixels[0][:, 2:258]
    rebuilt = trainer.ema.decode(trainer.ema.encode([crop]))[0]
    assert scores[12] == pytest.approx(20 * np.log10(255) - 10 * np.log10(np.mean((rebuilt - crop.astype(float)) ** 2)))


@pytest.mark.parametrize("change", [{"lr": 1e-3}, {"seed": 5}])
def test_another_recipe_does_not_go_on(
    recipe: Recipe, photos: Photos, tmp_path: Path, change: dict[str, float]
) -> None:
    Trainer(recipe, photos, tmp_path / "run").run()
    with pytest.raises(TrainingError, match=f"at step 12 with another {next(iter(change))};"):
        Trainer(replace(recipe, **change), photos, tmp_path / "run")  # type: ignore[arg-type]


def test_more_steps_go_on_until_the_cooldown_has_begun(recipe: Recipe, photos: Photos, tmp_path: Path) -> None:
    calls = iter(range(100))
    Trainer(recipe, photos, tmp_path / "run").run(stop=lambda: next(calls) == 5)
    longer = replace(recipe, steps=20)
    Trainer(longer, photos, tmp_path / "run").run()
    Trainer(longer, photos, tmp_path / "whole").run()
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    with pytest.raises(TrainingError, match="with another steps"):
        Trainer(recipe, photos, tmp_path / "run")


def test_other_photos_do_not_go_on(recipe: Recipe, photos: Photos, tmp_path: Path) -> None:
    Trainer(recipe, photos, tmp_path / "run").run()
    fewer = Photos(photos.ids[1:], photos.pixels[1:], [])
    with pytest.raises(TrainingError, match="a run on other images"):
        Trainer(recipe, fewer, tmp_path / "run")


@pytest.mark.parametrize("content", [b"", b"no state", None])
def test_a_broken_state_is_named(recipe: Recipe, photos: Photos, tmp_path: Path, content: bytes | None) -> None:
    if content is None:
        torch.save({"weights": 1}, tmp_path / CHECKPOINT)
    else:
        (tmp_path / CHECKPOINT).write_bytes(content)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: not a state of this trainer"):
        Trainer(recipe, photos, tmp_path)
