"""A model, photos and a recipe small enough to train within a second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from atoken import config
from atoken.config import ATokenConfig, TransformerConfig
from atoken.training.recipe import Recipe, load_recipe
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


@pytest.fixture
def recipe(tiny: ATokenConfig) -> Recipe:
    """Twelve steps; every one is logged."""
    return replace(
        load_recipe("nano"),
        preset=tiny.name,
        steps=12,
        warmup_steps=2,
        tokens_per_step=32,
        crop=32,
        cooldown_crop=64,
        log_every=1,
        validate_every=100,
        checkpoint_every=5,
        patience=3,
    )


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
