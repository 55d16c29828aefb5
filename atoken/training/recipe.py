"""Everything that decides what a run computes, as data; no torch, so that --help stays quick."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from atoken.training.errors import TrainingError

__all__ = ["RECIPES", "Recipe", "load_recipe"]

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One stage of training on images.

    Attributes:
        preset: shape of the model, a name of `atoken.config.PRESETS`.
        seed: of weights, crops and latent noise; with the step number it decides every batch.
        steps: optimiser steps of the whole run.
        warmup_steps: steps in which the learning rate rises from 0.
        cooldown: last share of the steps, in which the learning rate falls by a half cosine.
        lr, final_lr: learning rate of the blocks' matrices on the plateau and at the end.
        io_lr_ratio: the learning rate of all else (input, output, norms, positions) relative to it;
            these start from the PCA and need little change.
        betas, weight_decay: of AdamW; the decay acts on the blocks' matrices only.
        clip: largest norm of the gradient.
        ema: decay of the weights' moving average, which is what is evaluated and shipped.
        tokens_per_step: tokens of a batch, all of equally large crops.
        crop, cooldown_crop: side of the square crops in pixels, on the plateau and in the cool-down.
        log_mse, kl: weights of the loss terms (`atoken.training.losses`).
        latent_std: standard deviation of the posterior at the start; latents have about unit variance.
        log_every, validate_every, checkpoint_every: in steps.
        patience: steps in a row with a loss that is not finite, after which the run stops.
    """

    preset: str
    seed: int
    steps: int
    warmup_steps: int
    cooldown: float
    lr: float
    final_lr: float
    io_lr_ratio: float
    betas: tuple[float, float]
    weight_decay: float
    clip: float
    ema: float
    tokens_per_step: int
    crop: int
    cooldown_crop: int
    log_mse: float
    kl: float
    latent_std: float
    log_every: int
    validate_every: int
    checkpoint_every: int
    patience: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        for name in ("steps", "tokens_per_step", "log_every", "validate_every", "checkpoint_every", "patience"):
            _demand(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("crop", "cooldown_crop"):
            value = getattr(self, name)
            _demand(value > 0 and value % 16 == 0, name, value, "a positive multiple of 16")
            _demand(self.tokens_per_step >= (value // 16) ** 2, name, value, "at most one batch's tokens")
        _demand(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "0 or more")
        _demand(0 < self.cooldown <= 1, "cooldown", self.cooldown, "in (0, 1]")
        _demand(0 < self.final_lr <= self.lr, "final_lr", self.final_lr, "positive and at most lr")
        _demand(0 <= self.ema < 1, "ema", self.ema, "in [0, 1)")
        _demand(self.clip > 0, "clip", self.clip, "positive")
        _demand(self.latent_std > 0, "latent_std", self.latent_std, "positive")

    @property
    def cooldown_start(self) -> int:
        """First step of the cool-down."""
        return self.steps - round(self.steps * self.cooldown)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self) | {"betas": list(self.betas)}


def _demand(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise TrainingError(f"recipe: {name} must be {wanted}, got {value!r}")


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A recipe of this package by name ("nano"), or a YAML file by path.

    Raises:
        TrainingError: no such recipe, not YAML, an unknown or missing key, or a bad value.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = RECIPES / f"{name_or_path}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
        raise TrainingError(f"{name_or_path}: no such recipe; give one of {known}, or a .yaml file")
    try:
        data = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise TrainingError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(data, dict):
        raise TrainingError(f"{path}: must hold keys and values")
    names = [f.name for f in fields(Recipe)]
    unknown = sorted(map(str, set(data) - set(names)))
    missing = [name for name in names if name not in data]
    if unknown or missing:
        what = f"unknown key {unknown[0]!r}" if unknown else f"missing key {missing[0]!r}"
        raise TrainingError(f"{path}: {what}; a recipe has {', '.join(names)}")
    try:
        return Recipe(**data)
    except TypeError as error:
        raise TrainingError(f"{path}: a value of the wrong kind ({error})") from None
    except TrainingError as error:
        raise TrainingError(f"{path}: {error}") from None
