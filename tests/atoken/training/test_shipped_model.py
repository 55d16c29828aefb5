"""The packaged model is what its card says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open

import atoken
from atoken.config import preset
from atoken.media import read_image
from atoken.tokenizer import AToken
from atoken.training.data import load_photos, patches
from atoken.training.start.basis import fit_basis
from atoken.training.validation import mean_psnr
from tests.atoken.training.pictures import pca_psnr

HOME = Path(atoken.__file__).parent / "models" / "atoken-nano"
EVERY = 8
"""Photographs of the validation set that are left out for one that is measured."""


def front_matter() -> dict[str, Any]:
    text = (HOME / "README.md").read_text()
    _, head, _ = text.split("---\n", 2)
    data: dict[str, Any] = yaml.safe_load(head)
    return data


@pytest.fixture(scope="module")
def model() -> AToken:
    return AToken.from_pretrained("atoken-nano")


def test_the_file_is_small_half_precision_and_of_the_preset(model: AToken) -> None:
    path = HOME / "model.safetensors"
    assert path.stat().st_size <= 12e6
    with safe_open(path, "pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118
    assert model.config == preset("nano-image")


def test_a_sample_of_the_posterior_is_close_to_its_mean(model: AToken) -> None:
    from skimage import data

    image = data.astronaut()[:256, 100:356]
    latents = model.encode([image])
    mean, sample = (model.decode(z, output="float")[0] for z in (latents, latents.sample(0)))
    difference = float(((mean - sample) ** 2).mean())
    error = float(((mean - (image / 127.5 - 1)) ** 2).mean())
    assert 0 < difference < 0.02 * error


def test_any_size_comes_back_at_that_size(model: AToken) -> None:
    from skimage import data

    cat = data.chelsea()[:133, :203]
    (rebuilt,) = model.decode(model.encode([Image.fromarray(cat)]))
    assert rebuilt.shape == cat.shape
    assert abs(rebuilt.astype(float) - cat).mean() < 12


def test_the_card_states_the_measured_figures(model: AToken, shared: Path) -> None:
    """A subset through the same code; the card's figures are of all 200."""
    paths = sorted((shared / "data/photos/val").glob("*.jpg"))[::EVERY]
    basis = fit_basis(patches([photo]) for photo in load_photos(shared / "data/photos/train").pixels)
    pixels = [read_image(path) for path in paths]
    ours, pca = mean_psnr(model, pixels), pca_psnr(basis, pixels, 48)
    assert ours > pca + 0.8
    results = front_matter()["model-index"]
    stated = {m["name"]: m["value"] for m in results[0]["results"][0]["metrics"]}
    # The gain over the PCA varies little between photographs, PSNR itself a lot.
    assert ours - pca == pytest.approx(stated["PSNR (mean latent)"] - stated["PSNR of pca:48"], abs=0.15)
