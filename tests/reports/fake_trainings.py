"""Folders of trainings and ablations as the trainer and the harness write them, with invented curves."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from fake_clips import EXPERIMENTS as WITH_CLIPS
from fake_clips import make_clip_run
from fake_runs import make_run, picture
from PIL import Image

from harness import ablation_record
from harness.ablation import Ablation, Variant

GAN = Ablation(
    name="ablation-gan-vs-gram",
    title="Training with a discriminator against the Gram loss",
    status="built",
    figure="Figure 4",
    asks="Does the discriminator overpower the tokenizer?",
    recipe="ablation-image",
    variants=(
        Variant(name="l1", title="L1"),
        Variant(name="l1-gan", title="L1 + GAN", changes=("losses.adversarial=0.5",)),
        Variant(name="gram", title="L1 + LPIPS + Gram", changes=("losses.gram=1e3",), vgg=True),
    ),
    measures=(),
)
EXPERIMENTS = {**WITH_CLIPS, GAN.name: GAN}

IMAGES = (("image-foundation", 200, ("image_recon",)),)
STAGES = (
    ("image-foundation", 100, ("image_recon",)),
    ("video-dynamics", 150, ("image_recon", "video_recon")),
    ("geometry", 50, ("image_recon", "video_recon", "asset_recon")),
)
_VAL = {"image_recon": ("images", 24.0), "video_recon": ("clips", 21.0), "asset_recon": ("assets", 18.0)}


def make_training(
    folder: Path,
    *,
    stages: Sequence[tuple[str, int, tuple[str, ...]]] = STAGES,
    terms: Sequence[str] = ("l1", "kl"),
    losses: Mapping[str, float] | None = None,
    pull: float = 0.0,
    judged: bool = False,
    done: int | None = None,
    extra: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write log, recipe and pictures; returns the folder.

    Args:
        pull: decibels that its validation is above the others'.
        judged: with a discriminator whose logits run apart.
        done: steps over all stages that were reached; all if None.
        extra: further lines of the log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng, lines, start = np.random.default_rng(0), [], 0
    for number, (_, steps, tasks) in enumerate(stages, start=1):
        for step in range(5, steps + 1, 5):
            at = start + step
            if done is not None and at > done:
                break
            task = tasks[step // 5 % len(tasks)]
            line: dict[str, Any] = {"stage": number, "step": step, "task": task}
            fall = math.exp(-at / 80)
            values = {"l1": 0.05 + 0.1 * fall, "kl": 90 + 40 * fall, "lpips": 0.2 + 0.3 * fall, "gram": 0.002 + fall}
            values["loss"] = sum(values[term] for term in terms)
            for term in (*terms, "loss"):
                line[f"{task}/{term}"] = values[term] * float(rng.lognormal(0, 0.15))
            if judged:
                apart = 0.2 + at / 40
                line |= {"image_recon/disc_real": apart, "image_recon/disc_fake": -apart + float(rng.normal(0, 0.1))}
                line |= {"image_recon/disc_loss": 1 - 0.9 * at / 200, "image_recon/gen_loss": apart}
                line |= {"image_recon/adversarial": 0.3, "image_recon/gan_weight": 1e-3 * 10 ** (at / 100)}
            line |= {"lr": 3e-4 * math.cos(1.5 * step / steps), "grad_norm": float(rng.lognormal(0, 0.6))}
            line |= {
                "skipped": 0,
                "replaced": 0,
                "steps_per_s": 2.5,
                "tokens_per_s": 12_000 + float(rng.normal(0, 900)),
            }
            line |= {"tflops_per_gpu": 0.02, "data_share": 0.03}
            lines.append(line)
            if step % 25 == 0:
                told = {_VAL[t][0]: _VAL[t][1] + pull + 4 * (1 - math.exp(-at / 60)) for t in tasks}
                figures = {f"val_{kind}_psnr": value for kind, value in told.items()}
                if "clips" in told:
                    figures["val_clip_bikes_psnr"] = told["clips"] - 1
                lines.append({"stage": number, "step": step, **figures})
        samples = folder / f"stage-{number}" / "samples"
        samples.mkdir(parents=True)
        row = np.concatenate([picture(number, 32), picture(number, 32) // 2, picture(number + 1, 32) // 4], axis=1)
        for step in (steps // 2, steps):
            Image.fromarray(row).save(samples / f"step-{step:08d}.png")
        start += steps
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (*lines, *extra)))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe(stages, losses or {}), sort_keys=False))
    return folder


def recipe(stages: Sequence[tuple[str, int, tuple[str, ...]]], losses: Mapping[str, float]) -> dict[str, Any]:
    """As the trainer writes it, in part."""
    weights = {"l1": 1.0, "lpips": 0.0, "gram": 0.0, "gram_form": "G1", "adversarial": 0.0, **losses}
    told = {
        name: {"steps": steps, "latents": 48, "frames": 4, "tasks": {task: {"samples": 8} for task in tasks}}
        for name, steps, tasks in stages
    }
    return {
        "name": "ablation",
        "model": "nano",
        "seed": 0,
        "optimizer": {"lr": 3e-4},
        "losses": weights,
        "stages": told,
    }


def entry(variant: Variant, **values: Any) -> dict[str, Any]:
    """A variant's part of the record."""
    stages = values.pop("given", IMAGES)
    told = {"name": variant.name, "title": variant.title, "changes": list(variant.changes), "absent": None}
    told |= {"folder": variant.name, "recipe": recipe(stages, {}), "recipe_sha256": "ab" * 32, "log_sha256": None}
    told |= {"vgg": None}
    return {**told, "stages": [], **values}


def stage(folder: Path, number: int, records: Mapping[str, Path | str]) -> dict[str, Any]:
    """A stage's part: records by experiment, or the reason why there is none."""
    measured = [
        {
            "experiment": name,
            "record": os.path.relpath(where / "record.json", folder) if isinstance(where, Path) else None,
            "absent": where if isinstance(where, str) else None,
        }
        for name, where in records.items()
    ]
    return {"number": number, "name": "", "steps": 1, "discrete": False, "measured": measured, "absent": None}


def write_record(folder: Path, ablation: Ablation, entries: Sequence[Mapping[str, Any]]) -> None:
    """`ablation.json`."""
    ablation_record.save(
        folder,
        {
            "ablation": ablation.name,
            "title": ablation.title,
            "figure": ablation.figure,
            "asks": ablation.asks,
            "data": {},
            "notes": {"images": "trained on every second sample photograph, measured on the others"},
            "settings": {"device": "cpu", "limit": None},
            "variants": list(entries),
            "environment": {},
            "code": {"commit": "0123456789abcdef", "dirty": False, "version": "0.1.0"},
            "finished": "2026-11-27T03:00:00+00:00",
        },
    )


def card(name: str) -> dict[str, Any]:
    """Of a trained model."""
    told = {"name": f"atoken-nano-{name}", "title": f"AToken nano ({name})", "weights_sha256": {"model": name}}
    return {**told, "token_type": "VAE", "compression": [4, 16, 16], "latent_size": 48}


def make_gan(runs: Path) -> Path:
    """The discriminator's ablation: two variants trained, one absent for want of a trunk."""
    folder = runs / GAN.name / "steps-200--0123abcd"
    make_training(folder / "l1", stages=IMAGES)
    make_training(folder / "l1-gan", stages=IMAGES, judged=True, terms=("l1", "kl"), pull=-2.0)
    records = [make_run(runs, "atoken", card=card(name), shift=shift) for name, shift in (("aa", 0.0), ("bb", -1.5))]
    entries = [
        entry(variant, stages=[stage(folder, 1, {"image-recon": record})])
        for variant, record in zip(GAN.variants, records, strict=False)
    ]
    write_record(folder, GAN, [*entries, entry(GAN.variants[2], absent="no vgg16-397923af.pth; give it")])
    return folder


def make_scaling(runs: Path) -> Path:
    """Two sizes through three stages, measured on images and clips."""
    ablation = Ablation(
        name="ablation-scaling",
        title="Two model sizes through the training stages",
        figure="Figure 7",
        asks="Does a small model lose images when it learns videos?",
        recipe="ablation-curriculum",
        variants=(Variant(name="pico", title="pico"), Variant(name="nano", title="nano")),
        measures=(),
    )
    folder = runs / ablation.name / "steps-100-150-50--4567cdef"
    entries = []
    for place, variant in enumerate(ablation.variants):
        make_training(folder / variant.name, stages=STAGES, pull=1.5 * place)
        stages = []
        for number in (1, 2, 3):
            shift = 0.4 * number * (1 if place else -1)
            found: dict[str, Path | str] = {
                "image-recon": make_run(runs, "atoken", card=card(f"{variant.name}{number}"), shift=shift)
            }
            if number > 1:
                name = f"{variant.name}{number}"
                found["video-recon"] = make_clip_run(runs, "atoken", changes=card(name) | {"tile": [16, None, None]})
            if number > 2:
                found["asset-recon"] = "needs a renderer"
            stages.append(stage(folder, number, found))
        entries.append(entry(variant, stages=stages, given=STAGES))
    write_record(folder, ablation, entries)
    return folder
