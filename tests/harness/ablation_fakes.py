"""An ablation small enough to train within a second: a preset of 60 thousand parameters and steps of two pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from atoken.config import ATokenConfig, TransformerConfig
from harness.ablation import Ablation, Measure, Variant

HALF = TransformerConfig(width=48, blocks=2, heads=2, mlp=48)
TINY = ATokenConfig(name="tiny-ablation", encoder=HALF, decoder=HALF, latent_channels=12)

RECIPE = """\
extends: ablation-image
model: tiny-ablation
start: random
stages:
  image-foundation: {steps: 4, latents: 12, tasks: {image_recon: {samples: 2, resolution: [32, 32]}}}
log_every: 1
validate_every: 2
checkpoint_every: 2
"""

TWO_STAGES = """\
extends: ablation-curriculum
model: tiny-ablation
start: random
stages:
  image-foundation: {steps: 2, latents: 12, tasks: {image_recon: {samples: 2, resolution: [32, 32]}}}
  video-dynamics:
    steps: 2
    latents: 12
    tasks:
      image_recon: {samples: 2, resolution: [32, 32]}
      video_recon: {samples: 1, resolution: [32, 32], frames: [4, 4]}
  geometry: null
  discrete-tokens: null
log_every: 1
"""


def ablation(recipe: Path, *variants: Variant, videos: bool = False, takes_run: bool = False) -> Ablation:
    """Of the variants `a` and `b`, which differ in L1's weight, unless others are given."""
    measures = [Measure(experiment="image-recon", protocol="paper")]
    if videos:
        measures.append(Measure(experiment="video-recon", protocol="preview"))
    return Ablation(
        name="ablation-test",
        title="A test",
        status="built",
        figure="Figure 0",
        asks="Does it run?",
        recipe=str(recipe),
        variants=variants
        or (
            Variant(name="a", title="A"),
            Variant(name="b", title="B", changes=("losses.l1=2",)),
        ),
        measures=tuple(measures),
        takes_run=takes_run,
    )


def photographs(folder: Path, count: int = 4) -> Path:
    """Noise to train on."""
    folder.mkdir()
    for seed in range(count):
        pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    return folder
