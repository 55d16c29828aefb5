"""Runs that are cut off, go wrong, or are asked to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from atoken.tokenizer import AToken
from atoken.training import passes
from atoken.training.errors import TrainingError
from atoken.training.logs import LOG
from atoken.training.recipe import Matrices, Recipe
from atoken.training.session import Inputs, run_session
from atoken.training.trainer import Trainer
from atoken.training.validation import psnr
from tests.atoken.training.pictures import picture

Make = Callable[..., Recipe]


def inputs(folder: Path, out: Path, **more: Any) -> Inputs:
    return Inputs(data={"images": [str(folder)]}, val={}, out=out, cache=out.parent / "cache", **{"workers": 0} | more)


def train(recipe: Recipe, folder: Path, out: Path, *, steps: int | None = None, **more: Any) -> bool:
    """Run, or run so many steps."""
    calls = iter(range(10**6))
    stop = (lambda: False) if steps is None else (lambda: next(calls) == steps)
    return run_session(
        recipe, range(len(recipe.stages)), inputs(folder, out, **more), device="cpu", stop=stop, say=lambda _: None
    )


def losses(out: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    lines = [line for line in lines if "image_recon/loss" in line]
    assert len({line["step"] for line in lines}) == len(lines)
    return {line["step"]: line["image_recon/loss"] for line in lines}


def model(out: Path) -> AToken:
    return AToken.from_pretrained(out / "stage-1" / "model")


def same(one: Path, other: Path) -> None:
    a, b = model(one).state_dict(), model(other).state_dict()
    assert all(torch.equal(value, b[key]) for key, value in a.items())


def test_training_makes_reconstructions_better(make_recipe: Make, folder: Path, tmp_path: Path) -> None:
    still = {"lr": 1e-12, "final_lr": 1e-12}
    assert train(make_recipe(1, optimizer=still), folder, tmp_path / "start")
    assert train(make_recipe(150, checkpoint_every=100), folder, tmp_path / "run")
    pictures = [picture(seed)[5:69, 5:69] for seed in range(6)]
    scores = []
    for run in ("start", "run"):
        rebuilt = model(tmp_path / run).decode(model(tmp_path / run).encode(pictures))
        scores.append(sum(map(psnr, rebuilt, pictures)) / len(pictures))
    assert scores[1] > scores[0] + 0.3


@pytest.mark.parametrize("matrices", ["adamw", "muon"])
def test_a_resumed_run_has_the_very_losses_of_an_uninterrupted_one(
    recipe: Recipe, folder: Path, tmp_path: Path, matrices: Matrices
) -> None:
    recipe = replace(recipe, optimizer=replace(recipe.optimizer, matrices=matrices))
    assert train(recipe, folder, tmp_path / "whole")
    assert not train(recipe, folder, tmp_path / "cut", steps=7)
    assert not (tmp_path / "cut" / "stage-1" / "model").exists()
    assert max(losses(tmp_path / "cut")) == 7
    assert train(recipe, folder, tmp_path / "cut", workers=2)  # workers change nothing
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    same(tmp_path / "cut", tmp_path / "whole")


def test_a_done_stage_is_left_as_it_is(recipe: Recipe, folder: Path, tmp_path: Path) -> None:
    train(recipe, folder, tmp_path / "run")
    before = (tmp_path / "run" / LOG).read_bytes()
    assert train(recipe, folder, tmp_path / "run")
    assert (tmp_path / "run" / LOG).read_bytes() == before


KILLED = """
import json, sys, torch
torch.set_num_threads(1)
from pathlib import Path
from atoken import config
from atoken.config import ATokenConfig
from atoken.training.recipe_files import parse
from atoken.training.session import Inputs, run_session
folder, out, recipe, tiny = sys.argv[1:]
tiny = ATokenConfig.from_dict(json.loads(tiny))
config.PRESETS[tiny.name] = tiny
out = Path(out)
recipe = parse(json.loads(recipe), where="test")
inputs = Inputs(data={"images": [folder]}, val={}, out=out, cache=out.parent / "cache", workers=0)
run_session(recipe, range(1), inputs, device="cpu")
"""


def test_kill_9_then_resume_gives_the_same_losses(make_recipe: Make, folder: Path, tmp_path: Path, tiny: Any) -> None:
    recipe = make_recipe(400)
    out = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, str(folder), str(out)]
    command += [json.dumps(recipe.to_dict()), json.dumps(tiny.to_dict())]
    checkpoints = out / "stage-1" / "checkpoints"
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 90
        # Past a checkpoint and some steps that are only in the log.
        while not (list(checkpoints.glob("*/complete.json")) and len((out / LOG).read_text().splitlines()) >= 13):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    shown = (out / LOG).read_text().splitlines()
    train(recipe, folder, out, steps=15)
    resumed = losses(out)
    start = max(resumed) - 15
    assert 0 < start < 400
    assert start % 5 == 0
    train(recipe, folder, tmp_path / "whole", steps=start + 15)
    assert resumed == losses(tmp_path / "whole")
    # What the killed run had logged after its last checkpoint came again, equal.
    for line in shown:
        if line.endswith("}"):
            values = json.loads(line)
            assert values["step"] > start + 15 or resumed[values["step"]] == values["image_recon/loss"]


def test_a_step_without_a_finite_loss_changes_nothing(
    recipe: Recipe, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weigh, accumulate = passes.weigh, Trainer._accumulate
    weights: dict[int, torch.Tensor] = {}
    steps: list[int] = []

    def noting(self: Trainer, *args: Any) -> Any:
        steps.append(self.step)
        weights[self.step] = self.trainee.tokenizer.proj.weight.detach().clone()
        return accumulate(self, *args)

    def broken(terms: Any, given: Any) -> torch.Tensor:
        return weigh(terms, given) * (torch.nan if steps[-1] in (2, 5, 6) else 1.0)

    monkeypatch.setattr(Trainer, "_accumulate", noting)
    monkeypatch.setattr(passes, "weigh", broken)
    assert train(recipe, folder, tmp_path / "run")
    assert torch.equal(weights[2], weights[3])
    assert torch.equal(weights[5], weights[7])
    assert not torch.equal(weights[3], weights[4])
    last = json.loads((tmp_path / "run" / LOG).read_text().splitlines()[-1])
    assert last["skipped"] == 3


def test_many_such_steps_in_a_row_stop_the_run_and_name_the_samples(
    recipe: Recipe, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weigh = passes.weigh
    with monkeypatch.context() as patch:
        patch.setattr(passes, "weigh", lambda terms, given: weigh(terms, given) * torch.inf)
        with pytest.raises(TrainingError, match=r"step 3: no finite loss in 3 steps in a row; .*p\d\.png"):
            train(recipe, folder, tmp_path / "run")
    seen: list[str] = []
    run_session(recipe, range(1), inputs(folder, tmp_path / "run"), device="cpu", stop=lambda: True, say=seen.append)
    assert "step 3 of 12" in seen[0]


def test_time_is_up(make_recipe: Make, folder: Path, tmp_path: Path) -> None:
    given = inputs(folder, tmp_path / "run")
    assert not run_session(make_recipe(10**6), range(1), given, device="cpu", seconds=6, say=lambda _: None)
    assert 0 < max(losses(tmp_path / "run")) < 10**6


def test_validation_is_of_the_averaged_weights(make_recipe: Make, folder: Path, tmp_path: Path) -> None:
    held_out = tmp_path / "val"
    held_out.mkdir()
    Image.fromarray(picture(9, 256, 260)).save(held_out / "v.png")
    recipe = make_recipe(validate_every=8)
    given = replace(inputs(folder, tmp_path / "run"), val={"images": [str(held_out)]})
    assert run_session(recipe, range(1), given, device="cpu", say=lambda _: None)
    lines = [json.loads(line) for line in (tmp_path / "run" / LOG).read_text().splitlines()]
    scores = {line["step"]: line["val_images_psnr"] for line in lines if "val_images_psnr" in line}
    assert list(scores) == [8, 12]
    crop = picture(9, 256, 260)[:, 2:258]
    exported = model(tmp_path / "run")
    rebuilt = exported.decode(exported.encode([crop]))[0]
    error = ((rebuilt - crop.astype(float)) ** 2).mean()
    assert scores[12] == pytest.approx(10 * torch.log10(torch.tensor(255**2 / error)).item(), abs=1e-4)
    assert json.loads((tmp_path / "run" / "figures.json").read_text())["stage-1"]["val_images_psnr"] == scores[12]
    assert Image.open(tmp_path / "run" / "stage-1" / "samples" / "step-00000012.png").size == (768, 256)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seed": 5}, "seed"), ({"pack_tokens": 32}, "pack_tokens"), ({"latent_std": 0.1}, "latent_std")],
)
def test_another_recipe_does_not_go_on(
    make_recipe: Make, folder: Path, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    train(make_recipe(), folder, tmp_path / "run", steps=6)
    with pytest.raises(TrainingError, match=f"at step 6 with another {named};"):
        train(make_recipe(**change), folder, tmp_path / "run")


def test_a_stage_goes_on_if_what_it_sets_for_itself_changes_no_result(
    recipe: Recipe, folder: Path, tmp_path: Path
) -> None:
    def with_own(**changes: Any) -> Recipe:
        return replace(recipe, stages=(replace(recipe.stages[0], changes=changes),))

    train(recipe, folder, tmp_path / "run", steps=4)
    train(with_own(checkpoint_every=2), folder, tmp_path / "run", steps=4)
    with pytest.raises(TrainingError, match=r"at step 8 with another optimizer\.lr;"):
        train(with_own(optimizer={"lr": 0.5}), folder, tmp_path / "run")


def test_more_steps_go_on_until_the_cooldown_has_begun(make_recipe: Make, folder: Path, tmp_path: Path) -> None:
    train(make_recipe(20), folder, tmp_path / "run", steps=5)
    train(make_recipe(30), folder, tmp_path / "run", steps=12)
    train(make_recipe(30), folder, tmp_path / "whole", steps=17)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    with pytest.raises(TrainingError, match=r"with another stage\.steps"):
        train(make_recipe(20), folder, tmp_path / "run")
    # Past its own cool-down's start the rate has fallen already, and more steps would have kept it up.
    with pytest.raises(TrainingError, match=r"with another stage\.steps"):
        train(make_recipe(60), folder, tmp_path / "run")


def test_other_photos_do_not_go_on(recipe: Recipe, folder: Path, tmp_path: Path) -> None:
    train(recipe, folder, tmp_path / "run", steps=6)
    (folder / "p0.png").unlink()
    with pytest.raises(TrainingError, match="a run on other data"):
        train(recipe, folder, tmp_path / "run")


def test_a_broken_checkpoint_is_named(recipe: Recipe, folder: Path, tmp_path: Path) -> None:
    train(recipe, folder, tmp_path / "run", steps=6)
    newest = tmp_path / "run" / "stage-1" / "checkpoints" / "step-00000006"
    for part in newest.glob("*.distcp"):
        part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(TrainingError, match=r"step-00000006: cannot be read .* from the one before"):
        train(recipe, folder, tmp_path / "run")
    (newest / "complete.json").unlink()  # as a kill leaves it: the one before is taken
    assert train(recipe, folder, tmp_path / "run")


def test_out_of_memory_names_task_and_tokens(
    recipe: Recipe, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    train(recipe, folder, tmp_path / "run", steps=5)
    with monkeypatch.context() as patch:
        patch.setattr(passes, "reconstruct", full)
        said = r"out of memory in image_recon: a pack of 4 items, 64 tokens; lower pack_tokens \(now 64\), or set "
        with pytest.raises(TrainingError, match=said):
            train(recipe, folder, tmp_path / "run")
    # The checkpoint before stands.
    assert train(recipe, folder, tmp_path / "run")


def test_recomputed_blocks_give_the_same_losses(make_recipe: Make, folder: Path, tmp_path: Path) -> None:
    train(make_recipe(3), folder, tmp_path / "plain")
    train(make_recipe(3, recompute=True), folder, tmp_path / "recomputed")
    plain, recomputed = losses(tmp_path / "plain"), losses(tmp_path / "recomputed")
    assert plain == pytest.approx(recomputed, rel=1e-5)
    # No result of theirs: a run may change its mind.
    train(make_recipe(6), folder, tmp_path / "mixed", steps=2)
    assert train(make_recipe(6, recompute=True), folder, tmp_path / "mixed")


def test_trackers_are_given_numbers_and_pictures(make_recipe: Make, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    held_out = tmp_path / "val"
    held_out.mkdir()
    Image.fromarray(picture(9, 256, 260)).save(held_out / "v.png")
    given = replace(inputs(folder, tmp_path / "run", trackers=("tensorboard",)), val={"images": [str(held_out)]})
    assert run_session(make_recipe(4), range(1), given, device="cpu", say=lambda _: None)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    shown = {event.step: event.value for event in events.Scalars("stage-1/image_recon/loss")}
    assert shown == pytest.approx(losses(tmp_path / "run"), rel=1e-6)
    assert [event.step for event in events.Images("stage-1/images")] == [4]


def test_a_tracker_that_is_not_installed(recipe: Recipe, folder: Path, tmp_path: Path) -> None:
    try:
        import wandb  # noqa: F401
    except ImportError:
        with pytest.raises(TrainingError, match=r"logging to wandb needs its package .*: pip install wandb"):
            train(recipe, folder, tmp_path / "run", trackers=("wandb",))
    else:
        pytest.skip("wandb is installed here")
