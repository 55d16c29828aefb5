"""The packaged models are what their cards say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open

import atoken
from atoken.assets.asset import Asset
from atoken.config import FSQConfig, preset
from atoken.media import read_image
from atoken.text import TextHead
from atoken.tokenizer import AToken
from atoken.training.data import load_photos, patches
from atoken.training.recipe_files import load_recipe
from atoken.training.start.basis import fit_basis
from atoken.training.validation import load_validation, mean_psnr, psnr
from tests.atoken.training.pictures import pca_psnr

MODELS = Path(atoken.__file__).parent / "models"
NAMES = ("atoken-nano", "atoken-nano-d")
EVERY = 8
"""Photographs of the validation set that are left out for one that is measured."""


def stated(name: str, dataset: str) -> dict[str, float]:
    """Figures of a model card's front matter, by name."""
    _, head, _ = (MODELS / name / "README.md").read_text().split("---\n", 2)
    data: dict[str, Any] = yaml.safe_load(head)
    results = data["model-index"][0]["results"]
    found = next(result for result in results if result["dataset"]["type"] == dataset)
    return {metric["name"]: metric["value"] for metric in found["metrics"]}


@pytest.fixture(scope="module")
def models() -> dict[str, AToken]:
    return {name: AToken.from_pretrained(name) for name in NAMES}


def test_both_are_small_half_precision_and_of_the_recipes_shape(models: dict[str, AToken]) -> None:
    files = [path for name in NAMES for path in (MODELS / name).iterdir()]
    assert sum(path.stat().st_size for path in files) <= 25e6
    for path in files:
        if path.name == "model.safetensors":
            with safe_open(path, "pt") as file:
                assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118
    recipe = load_recipe("nano")
    shapes = {stage.name: recipe.shape(index) for index, stage in enumerate(recipe.stages)}
    assert models["atoken-nano"].config == shapes["gaussians"] == replace(preset("nano"), gathering=recipe.gathering)
    discrete = replace(shapes["discrete-tokens"], name="nano-d", quantizer=FSQConfig())
    assert models["atoken-nano-d"].config == discrete


def test_both_come_from_the_recipes_last_stages(models: dict[str, AToken]) -> None:
    recipe = load_recipe("nano")
    stages = {stage.name: stage for stage in recipe.stages}
    for name, model in zip(("gaussians", "discrete-tokens"), models.values(), strict=True):
        stage = stages[name]
        assert stage.latents == model.config.latent_channels
        assert stage.discrete == (model.config.quantizer is not None)
        assert model.gaussian_decoder is not None
        shape = recipe.in_stage(recipe.stages.index(stage)).gaussian_decoder
        assert (shape.width, shape.gaussians) == (
            model.gaussian_decoder.config.width,
            model.gaussian_decoder.config.gaussians,
        )


def test_both_have_the_last_stages_gaussian_decoder(models: dict[str, AToken]) -> None:
    one, other = (model.gaussian_decoder for model in models.values())
    assert one is not None
    assert other is not None
    assert one.config == other.config
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_a_sample_of_the_posterior_is_close_to_its_mean(models: dict[str, AToken]) -> None:
    from skimage import data

    model, image = models["atoken-nano"], data.astronaut()[:256, 100:356]
    latents = model.encode([image])
    mean, sample = (model.decode(z, output="float")[0] for z in (latents, latents.sample(0)))
    difference = float(((mean - sample) ** 2).mean())
    error = float(((mean - (image / 127.5 - 1)) ** 2).mean())
    assert 0 < difference < 0.02 * error


def test_the_discrete_model_decodes_its_codes(models: dict[str, AToken]) -> None:
    from skimage import data

    model, image = models["atoken-nano-d"], data.astronaut()[:128, 100:228]
    latents = model.encode([image])
    codes = model.quantize(latents)
    assert codes.features.shape == (64, 8)
    assert codes.features.min() >= 0
    assert codes.features.max() < 4096
    assert len(torch.unique(codes.features)) > 64  # not a handful of codes
    (rebuilt,), (again,) = model.decode(codes), model.decode(latents)
    np.testing.assert_array_equal(rebuilt, again)
    assert psnr(rebuilt, image) > 18


@pytest.mark.parametrize("name", NAMES)
def test_any_size_comes_back_at_that_size(models: dict[str, AToken], name: str) -> None:
    from skimage import data

    cat = data.chelsea()[:133, :203]
    (rebuilt,) = models[name].decode(models[name].encode([Image.fromarray(cat)]))
    assert rebuilt.shape == cat.shape
    assert abs(rebuilt.astype(float) - cat).mean() < 14


@pytest.mark.parametrize("name", NAMES)
def test_frames_beyond_the_first_come_back_too(models: dict[str, AToken], name: str) -> None:
    """A picture that moves: frames 1 to 3 of a patch are not copies of frame 0."""
    from skimage import data

    photo, model = data.astronaut(), models[name]
    clip = np.stack([photo[64:192, 100 + 4 * t : 228 + 4 * t] for t in range(8)])
    rebuilt = model.decode(model.encode([clip]))[0]
    copies = np.repeat(clip[::4], 4, axis=0)
    assert psnr(rebuilt, clip) > psnr(copies, clip) + 1


@pytest.mark.parametrize("name", NAMES)
def test_an_asset_becomes_gaussians_of_its_colours(models: dict[str, AToken], name: str) -> None:
    grid = np.stack(np.meshgrid(*[np.arange(28, 36)] * 3, indexing="ij"), -1).reshape(-1, 3).astype(np.int32)
    surface = grid[((grid == 28) | (grid == 35)).any(1)]
    model = models[name]
    means = []
    for colour in ((220, 40, 40), (40, 40, 220)):
        pixels = np.tile(np.array(colour, np.float32) / 255.0, (len(surface), 256))
        gaussians = model.decode_gaussians(model.encode([Asset(pixels, surface)]))[0]
        assert len(gaussians) == len(surface) * model.gaussian_decoder.config.gaussians
        means.append(gaussians.colours.mean(0))
    assert means[0][0] > means[0][2] + 0.3
    assert means[1][2] > means[1][0] + 0.3


@pytest.mark.parametrize("name", NAMES)
def test_its_text_head_is_as_wide_as_its_vectors(models: dict[str, AToken], name: str) -> None:
    head = TextHead.from_pretrained(MODELS / name)
    assert head.tower_name == "sentence"
    assert models[name].embed([np.zeros((64, 64, 3), np.uint8)]).shape == (1, head.width)


@pytest.mark.parametrize("name", NAMES)
def test_the_cards_state_the_measured_psnr(models: dict[str, AToken], name: str, shared: Path) -> None:
    """A subset through the same code; the cards' figures are of all 200."""
    paths = sorted((shared / "data/photos/val").glob("*.jpg"))[::EVERY]
    basis = fit_basis(patches([photo]) for photo in load_photos(shared / "data/photos/train").pixels)
    pixels = [read_image(path) for path in paths]
    ours, pca = mean_psnr(models[name], pixels), pca_psnr(basis, pixels, 48)
    figures = stated(name, "photographs")
    # The gain over the PCA varies little between photographs, PSNR itself a lot.
    assert ours - pca == pytest.approx(figures["PSNR"] - figures["PSNR of pca:48"], abs=0.2)


@pytest.mark.parametrize("name", NAMES)
def test_the_cards_state_the_measured_accuracy(models: dict[str, AToken], name: str, shared: Path) -> None:
    pytest.importorskip("transformers")
    from atoken.text import load_tower

    table = shared / "data/tiny-imagenet-val.parquet"
    head = TextHead.from_pretrained(MODELS / name).with_tower(load_tower("sentence"))
    found = load_validation({"labelled": [str(table)]}, print, labelled_side=64).measure(models[name], head)
    assert 100 * found["val_top1"] == pytest.approx(stated(name, "labelled photographs")["top-1"], abs=0.2)
