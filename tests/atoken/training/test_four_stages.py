"""The whole curriculum in one command, on a model of a few thousand weights: every task, every growth, every figure."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

import atoken.text
from atoken import config
from atoken.assets.asset import Asset
from atoken.assets.gaussians import Gaussians
from atoken.config import ATokenConfig, TransformerConfig
from atoken.text import TextHead
from atoken.tokenizer import AToken
from atoken.training.data.prepared import store_prepared
from atoken.training.errors import TrainingError
from atoken.training.logs import LOG
from atoken.training.recipe import Recipe
from atoken.training.recipe_files import load_recipe
from atoken.training.session import Inputs, run_session
from atoken.training.start.clips import held
from atoken.training.start.gaussians import start_gaussians
from atoken.training.tasks import TASKS
from tests.atoken.training.pictures import picture
from tests.atoken.training.samples import made_asset

HALF = TransformerConfig(width=128, blocks=3, heads=2, mlp=96)
SMALL = ATokenConfig(name="four-test", encoder=HALF, decoder=HALF)
STAGES = ("image-foundation", "video-dynamics", "geometry", "discrete-tokens", "gaussians")


class Words:
    """A text tower whose vectors are hashes."""

    name, version, width, fingerprint = "sentence", "0", 160, "words"

    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") for text in texts]
        rows = [torch.randn(self.width, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The shipped recipe but for sizes: each task comes at least once in each stage that has it."""
    monkeypatch.setitem(config.PRESETS, SMALL.name, SMALL)
    monkeypatch.setattr(atoken.text, "load_tower", lambda *_, **__: Words())
    changes = [
        "model=four-test", "precision=float32", "log_every=1", "checkpoint_every=3", "pack_tokens=256",
        "gaussian_decoder={width: 32, blocks: 1, heads: 2, mlp: 32, gaussians: 2}", "optimizer.lr=1e-4",
        "gathering=nearest",
    ]  # fmt: skip
    for stage, steps in zip(STAGES, (2, 3, 5, 5, 3), strict=True):
        of_it = f"stages.{stage}"
        changes += [f"{of_it}.steps={steps}"]
        for task in load_recipe("nano").to_dict()["stages"][stage]["tasks"]:
            changes.append(f"{of_it}.tasks.{task}.samples=2")
            if task != "image_text":
                changes.append(f"{of_it}.tasks.{task}.share=1")
            if not task.startswith("asset"):
                changes += [f"{of_it}.tasks.{task}.resolution=[32, 32]", f"{of_it}.tasks.{task}.side_step=16"]
            if task == "video_recon":
                changes.append(f"{of_it}.tasks.{task}.frames=[8, 8]")
            if task == "asset_recon":
                changes += [f"{of_it}.tasks.{task}.renders=2", f"{of_it}.tasks.{task}.render_size=16"]
    return load_recipe("nano", overrides=changes)


@pytest.fixture
def given(folder: Path, tmp_path: Path) -> Inputs:
    """Captioned images, clips made of them, assets; the same kinds to measure on."""
    rows = [f"p{seed}.png,picture number {seed}" for seed in range(6)]
    (folder / "captions.csv").write_text("file,caption\n" + "\n".join(rows) + "\n")
    for part in ("assets", "held-out-assets", "held-out", "clips/clip"):
        (tmp_path / part).mkdir(parents=True)
    for seed in range(3):
        store_prepared(tmp_path / "assets" / f"a{seed}.npz", made_asset(seed))
    store_prepared(tmp_path / "held-out-assets" / "b.npz", made_asset(9))
    Image.fromarray(picture(8, 256, 256)).save(tmp_path / "held-out" / "v.png")
    for frame in range(5):
        Image.fromarray(np.roll(picture(7, 48, 64), frame, axis=1)).save(tmp_path / "clips/clip" / f"{frame:03d}.png")
    pixels = io.BytesIO()
    Image.fromarray(picture(3, 64, 64)).save(pixels, "PNG")
    table = {"image": [pixels.getvalue()] * 2, "label": [4, 7], "class_name": ["cat", "dog_sled, sled"]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "labelled.parquet")
    return Inputs(
        data={"images": [str(folder)], "videos": [f"moving:{folder}"], "assets": [str(tmp_path / "assets")]},
        val={
            "images": [str(tmp_path / "held-out")],
            "videos": [str(tmp_path / "clips")],
            "assets": [str(tmp_path / "held-out-assets")],
            "labelled": [str(tmp_path / "labelled.parquet")],
        },
        out=tmp_path / "run",
        cache=tmp_path / "cache",
        workers=0,
    )


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / LOG).read_text().splitlines()]


def test_all_stages_from_nothing(recipe: Recipe, given: Inputs) -> None:
    told: list[str] = []
    assert run_session(recipe, range(5), given, device="cpu", say=told.append)
    steps = [line for line in lines(given.out) if "task" in line]
    for number, stage in enumerate(recipe.stages, start=1):
        of_it = [line for line in steps if line["stage"] == number]
        assert {line["task"] for line in of_it} == set(stage.tasks) - {"image_text"}
        assert {"image_text/semantic" in line for line in of_it} == {"image_text" in stage.tasks}
    assert {line["task"] for line in steps} == set(TASKS) - {"image_text"}
    assert any(
        line["asset_recon/l1"] > 0 and line["asset_recon/voxels"] > 0 for line in steps if "asset_recon/l1" in line
    )
    # KL is of posteriors; codes have none.
    assert {line["stage"] for line in steps if any(key.endswith("/kl") for key in line)} == {1, 2, 3, 5}

    figures = json.loads((given.out / "figures.json").read_text())
    assert set(figures["stage-1"]) == {"step", "val_images_psnr", "val_top1"}
    every = {"step", "val_images_psnr", "val_top1", "val_assets_psnr", "val_clips_psnr", "val_clip_clip_psnr"}
    assert set(figures["stage-3"]) == set(figures["stage-4"]) == set(figures["stage-5"]) == every
    assert all(0 <= figures[stage]["val_top1"] <= 1 for stage in figures)

    image, clip = picture(1, 32, 48), np.stack([picture(2, 32, 32)] * 6)
    asset = Asset(made_asset(4).features.astype(np.float32) / 255, made_asset(4).coords.astype(np.int32))
    continuous, discrete = (AToken.from_pretrained(given.out / f"stage-{n}" / "model") for n in (3, 4))
    assert (continuous.config.latent_channels, continuous.quantizer) == (48, None)
    assert discrete.quantizer is not None
    assert (discrete.config.encoder.blocks, discrete.config.decoder.blocks) == (7, 4)
    for model in (continuous, discrete):
        latents = model.encode([image, clip, asset])
        rebuilt = model.decode(latents if model.quantizer is None else model.quantize(latents))
        assert [part.shape for part in rebuilt[:2]] == [image.shape, clip.shape]
        assert isinstance(rebuilt[2], Gaussians)
        head = TextHead.from_pretrained(given.out / "stage-4" / "model", tower=Words())
        assert head.logits(model.embed([image]), head.embed(["picture number 1"])).shape == (1, 1)
    assert any("all stages are done" in line for line in told)

    # The last stage goes on from the third and has moved its Gaussian decoder alone, by losses of its own.
    third, last = (AToken.from_pretrained(given.out / f"stage-{n}" / "model") for n in (3, 5))
    after = last.state_dict()
    moved = [name for name, value in third.state_dict().items() if not torch.equal(after[name], value)]
    assert moved
    assert all(name.startswith("gaussian_decoder.") for name in moved)
    assert last.gaussian_decoder is not None
    assert last.gaussian_decoder.config.smallest_scale == 2.2e-3
    with_log = {line["stage"] for line in steps if "asset_recon/pictures_log_mse" in line}
    assert with_log == {5}
    heads = [TextHead.from_pretrained(given.out / f"stage-{n}" / "model", tower=Words()) for n in (3, 5)]
    assert (heads[0].log_scale, heads[0].bias) == (heads[1].log_scale, heads[1].bias)

    # What opens the clips' way is as it was made, and whatever would move it is refused.
    second = AToken.from_pretrained(given.out / "stage-2" / "model")
    kept = held(second)
    assert "proj.weight" in kept
    for name, mask in kept.items():
        assert torch.equal(second.get_parameter(name)[mask], discrete.get_parameter(name)[mask])
    shutil.copytree(given.out / "stage-2", (other := given.out.parent / "other") / "stage-2")
    decays = replace(recipe, optimizer=replace(recipe.optimizer, weight_decay=0.1))
    with pytest.raises(TrainingError, match=r"optimizer.weight_decay is 0\.1: where clips have components"):
        run_session(decays, range(2, 3), replace(given, out=other), device="cpu", say=told.append)


def test_stage_by_stage_is_the_same_run(recipe: Recipe, given: Inputs, tmp_path: Path) -> None:
    given = replace(given, val={})
    assert run_session(recipe, range(5), given, device="cpu", say=lambda _: None)
    apart = replace(given, out=tmp_path / "apart")
    for stage in range(5):
        assert run_session(recipe, range(stage, stage + 1), apart, device="cpu", say=lambda _: None)
    for stage in range(1, 6):
        one, other = (
            AToken.from_pretrained(run.out / f"stage-{stage}" / "model").state_dict() for run in (given, apart)
        )
        assert all(torch.equal(other[name], value) for name, value in one.items())


def test_what_models_have_learnt_to_name_by_stays_when_captions_change(
    recipe: Recipe, given: Inputs, folder: Path
) -> None:
    given = replace(given, val={})
    assert run_session(recipe, range(1), given, device="cpu", say=lambda _: None)
    captions = folder / "captions.csv"
    captions.write_text(captions.read_text().replace("picture number", "something else, namely"))
    assert run_session(recipe, range(1, 2), given, device="cpu", say=lambda _: None)
    first, second = (TextHead.from_pretrained(given.out / f"stage-{n}" / "model") for n in (1, 2))
    assert first.projection is not None
    assert second.projection is not None
    assert torch.equal(first.projection, second.projection)


def test_a_run_that_is_cut_off_among_all_tasks_goes_on_to_the_bit(
    recipe: Recipe, given: Inputs, tmp_path: Path
) -> None:
    given = replace(given, val={})
    assert run_session(recipe, range(3), given, device="cpu", say=lambda _: None)
    cut = replace(given, out=tmp_path / "cut")
    for steps in (4, 3):  # in stage 2, then in stage 3
        calls = iter([False] * steps + [True])
        stop = partial(next, calls)
        assert not run_session(recipe, range(3), cut, device="cpu", stop=stop, say=lambda _: None)
    assert run_session(recipe, range(3), cut, device="cpu", say=lambda _: None)
    timed = {"steps_per_s", "samples_per_s", "tokens_per_s", "tflops_per_gpu", "data_share"}
    whole, resumed = (
        [{key: value for key, value in line.items() if key not in timed} for line in lines(run.out)]
        for run in (given, cut)
    )
    assert whole == resumed


def test_a_stage_alone_asks_for_its_own_data_alone(recipe: Recipe, given: Inputs) -> None:
    last = recipe.stages[4]
    large = replace(last, tasks={"asset_recon": replace(last.tasks["asset_recon"], render_size=64)})
    asks = replace(recipe, stages=(*recipe.stages[:4], large))
    with pytest.raises(TrainingError, match="no multiple of render_size 64"):
        run_session(asks, range(5), given, device="cpu", say=print)
    assert not (given.out / "stage-1").exists()
    assert run_session(asks, range(1), given, device="cpu", say=print)


def test_the_gaussian_decoder_alone_of_a_given_tokenizer(recipe: Recipe, given: Inputs, tmp_path: Path) -> None:
    torch.manual_seed(0)
    start, average = tmp_path / "start", tmp_path / "average"
    average.mkdir()
    AToken(SMALL).save_pretrained(start)
    store_prepared(average / "a.npz", replace(made_asset(0), gathering="average"))
    small = "stages.gaussians.tasks.asset_recon.render_size=16"
    other_views = load_recipe("nano-gaussians", overrides=[f"model={SMALL.name}", small])
    shown = replace(given, data={"assets": [str(average)]}, pretrained=start, val={}, out=tmp_path / "elsewhere")
    with pytest.raises(TrainingError, match=r"start: has seen voxels coloured by nearest, .* --set gathering=nearest"):
        run_session(other_views, range(1), shown, device="cpu", say=print)
    head = TextHead.fitted(Words(), ["one", "two", "three"], HALF.width).with_scores(2.0, -3.0)
    head.save_pretrained(start)
    changes = [
        f"model={SMALL.name}", "gathering=nearest", "log_every=1", "stages.gaussians.steps=2",
        "gaussian_decoder={width: 32, blocks: 1, heads: 2, mlp: 32, gaussians: 2}", small,
    ]  # fmt: skip
    alone = load_recipe("nano-gaussians", overrides=changes)
    given = replace(given, val={"assets": given.val["assets"]})
    with pytest.raises(
        TrainingError, match="recipe nano-gaussians starts from a tokenizer: give one with --pretrained"
    ):
        run_session(alone, range(1), given, device="cpu", say=print)
    assert run_session(alone, range(1), replace(given, pretrained=start), device="cpu", say=print)
    folder = given.out / "stage-1" / "model"
    before, after = AToken.from_pretrained(start), AToken.from_pretrained(folder)
    for name, value in before.state_dict().items():
        assert torch.equal(after.get_parameter(name), value), name
    assert after.gaussian_decoder is not None
    fresh = start_gaussians(after.gaussian_decoder.config, seed=alone.seed)
    assert not torch.equal(after.gaussian_decoder.out_layer.weight, fresh.out_layer.weight)
    assert after.gaussian_decoder.config.smallest_scale == 2.2e-3
    # What reads its vectors goes with it.
    again = TextHead.from_pretrained(folder)
    assert (again.fingerprint, again.log_scale, again.bias) == (head.fingerprint, 2.0, -3.0)

    missing = replace(given, pretrained=tmp_path / "none", out=tmp_path / "elsewhere")
    with pytest.raises(TrainingError, match=r"--pretrained .*none: no such file or folder; give the path of a check"):
        run_session(alone, range(1), missing, device="cpu", say=print)
    other = replace(SMALL, decoder=replace(HALF, blocks=2))
    AToken(other).save_pretrained(tmp_path / "other")
    elsewhere = replace(given, pretrained=tmp_path / "other", out=tmp_path / "elsewhere")
    with pytest.raises(TrainingError, match=r"other: is no four-test, which recipe nano-gaussians trains; set model"):
        run_session(alone, range(1), elsewhere, device="cpu", say=print)
