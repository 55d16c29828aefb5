"""A model, pictures and a recipe small enough to train within a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from atoken import config
from atoken.config import ATokenConfig, TransformerConfig
from atoken.training.recipe import Recipe
from atoken.training.recipe_files import parse
from tests.atoken.training.pictures import picture

HALF = TransformerConfig(width=48, blocks=2, heads=2, mlp=48)
TINY = ATokenConfig(name="tiny-test", encoder=HALF, decoder=HALF, latent_channels=12)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> ATokenConfig:
    """A registered preset of 60 thousand parameters."""
    monkeypatch.setitem(config.PRESETS, TINY.name, TINY)
    return TINY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six photographs as PNG files."""
    place = tmp_path / "photos"
    place.mkdir()
    for seed in range(6):
        Image.fromarray(picture(seed)).save(place / f"p{seed}.png")
    return place


IMAGES: dict[str, Any] = {
    "model": TINY.name,
    "start": "pca",
    "seed": 0,
    "precision": "float32",
    "text": "none",
    "pack_tokens": 64,
    "optimizer": {
        "lr": 1e-3, "final_lr": 1e-5, "warmup_steps": 2, "cooldown": 0.5, "encoder_lr_ratio": 1.0, "io_lr_ratio": 0.25,
        "ema": 0.9,
    },
    "losses": {
        "lpips": 0, "gram": 0, "clip": 0, "l1": 1.0, "log_mse": 1.0, "reconstruction": 1.0, "distillation": False,
    },
    "stages": {
        "images": {
            "steps": 12,
            "latents": 12,
            "frames": 1,
            "tasks": {"image_recon": {"share": 1, "samples": 4, "resolution": [64, 64], "view": "crop"}},
        }
    },
    "log_every": 1,
    "validate_every": 100,
    "checkpoint_every": 5,
    "patience": 3,
}  # fmt: skip


@pytest.fixture
def make_recipe(tiny: ATokenConfig) -> Callable[..., Recipe]:
    """A recipe of one stage on images, twelve steps, every one logged; keys may be changed."""

    def make(steps: int = 12, **changes: Any) -> Recipe:
        stage = IMAGES["stages"]["images"] | {"steps": steps}
        return parse({"name": "tiny"} | IMAGES | {"stages": {"images": stage}} | changes, where="test")

    return make


@pytest.fixture
def recipe(make_recipe: Callable[..., Recipe]) -> Recipe:
    """As `make_recipe` makes it."""
    return make_recipe()


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
