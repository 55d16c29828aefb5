"""What the page of a training says: its curves over all stages, its pictures, its recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.training import Training
from reports.training_charts import Chart, Input, chart

__all__ = ["Curves", "context", "curves_of", "facts"]

Runs = Sequence[tuple[str, int, Training]]
"""Trainings that share their charts: (name of the curve, slot of its colour, training)."""

Curves = dict[str, list[Chart]]
"""Charts by the heading that they stand below, in order."""

VALIDATION, LOSSES, PACE = "On held-out data", "Loss terms", "Pace"
JUDGEMENT = "The discriminator"

_VALIDATION = {
    "val_images_psnr": ("PSNR of images", "dB"),
    "val_clips_psnr": ("PSNR of clips", "dB"),
    "val_assets_psnr": ("PSNR of assets", "dB"),
    "val_top1": ("Zero-shot top-1", ""),
}
_PACE = {
    "lr": ("Learning rate", ""),
    "grad_norm": ("Length of the gradient, before it is clipped", ""),
    "tokens_per_s": ("Tokens per second", ""),
    "steps_per_s": ("Steps per second", ""),
    "data_share": ("Share of the time that waits for data", ""),
    "tflops_per_gpu": ("TFLOP per second and device", ""),
    "memory_gib": ("Peak memory of the device", "GiB"),
}
_TERMS = {
    "loss": "weighted sum",
    "l1": "L1",
    "lpips": "LPIPS",
    "gram": "Gram",
    "clip": "CLIP",
    "kl": "KL",
    "log_mse": "log of the squared error",
    "pictures_log_mse": "log of the pictures' squared error",
    "voxels": "L1 of voxels",
    "semantic": "semantic",
    "adversarial": "adversarial, balanced",
    "gan_weight": "adaptive weight of the adversarial term",
}
_TASKS = {
    "image_text": "images and texts",
    "image_recon": "images",
    "video_text": "videos and texts",
    "video_recon": "videos",
    "asset_text": "assets and texts",
    "asset_recon": "assets",
}
LOGITS = ("image_recon/disc_real", "image_recon/disc_fake")
JUDGED = ("image_recon/disc_loss", "image_recon/gen_loss")


def curves_of(runs: Runs) -> Curves:
    """All charts of trainings, one over another; of a single one its curves alone."""
    keys = list(dict.fromkeys(key for _, _, training in runs for key in training.logged()))
    longest = max((training for _, _, training in runs), key=lambda one: one.spans[-1].start + one.spans[-1].steps)
    single = len(runs) == 1

    def draw(title: str, unit: str, key: str) -> Chart | None:
        inputs = [Input(name=name, slot=slot, points=one.points(key)) for name, slot, one in runs]
        return chart(title, inputs, longest.spans, unit=unit)

    clips = [key for key in keys if key.startswith("val_clip_")]
    validation = [draw(*_VALIDATION[key], key) for key in _VALIDATION if key in keys]
    validation += [draw(f"PSNR of {key.removeprefix('val_clip_').removesuffix('_psnr')}", "dB", key) for key in clips]
    pairs = [_pair(runs, longest, LOGITS, "Logits: real and rebuilt images", ("real", "rebuilt"))]
    pairs.append(_pair(runs, longest, JUDGED, "Losses: discriminator and tokenizer", ("discriminator", "tokenizer")))
    terms = [key for key in keys if "/" in key and key not in (*LOGITS, *JUDGED)]
    losses = [draw(_term(key), "", key) for key in sorted(terms, key=lambda key: _order(key, terms))]
    pace = [
        draw(*_PACE[key], key)
        for key in _PACE
        if key in keys and (single or key in ("lr", "grad_norm", "tokens_per_s"))
    ]
    groups = {VALIDATION: validation, JUDGEMENT: pairs, LOSSES: losses, PACE: pace}
    made = {name: [one for one in charts if one is not None] for name, charts in groups.items()}
    return {name: charts for name, charts in made.items() if charts}


def _pair(runs: Runs, longest: Training, keys: tuple[str, str], title: str, names: tuple[str, str]) -> Chart | None:
    """Two quantities of each training in one chart, the second dashed."""
    inputs = [
        Input(name=f"{run}: {name}", slot=slot, points=points, dashed=dashed)
        for run, slot, training in runs
        for key, name, dashed in zip(keys, names, (False, True), strict=True)
        if (points := training.points(key))
    ]
    return chart(title, inputs, longest.spans)


def _term(key: str) -> str:
    task, _, term = key.partition("/")
    return f"{_TASKS.get(task, task)}: {_TERMS.get(term, term)}"


def _order(key: str, terms: Sequence[str]) -> tuple[int, int]:
    """Tasks in the paper's order, of each the weighted sum first."""
    task, _, term = key.partition("/")
    tasks = list(_TASKS)
    return tasks.index(task) if task in tasks else len(tasks), -1 if term == "loss" else terms.index(key)


def facts(training: Training) -> list[dict[str, Any]]:
    """The recipe as titled lists: what it fixes for all stages, then each stage."""
    recipe = {key: value for key, value in training.recipe.items() if key != "stages"}
    plain = {key: value for key, value in recipe.items() if not isinstance(value, Mapping)}
    groups: list[tuple[str, Mapping[str, Any]]] = [("Recipe", plain)]
    groups += [
        (key.replace("_", " ").capitalize(), value) for key, value in recipe.items() if isinstance(value, Mapping)
    ]
    for number, (name, stage) in enumerate(training.recipe["stages"].items(), start=1):
        groups.append(
            (f"Stage {number}: {name}", {**{k: v for k, v in stage.items() if k != "tasks"}, **stage["tasks"]})
        )
    return [{"title": title, "rows": list(group.items())} for title, group in groups if group]


def mishaps(training: Training) -> list[str]:
    """What went wrong on the way, in words; empty where nothing did."""
    skipped, replaced = training.counts("skipped"), training.counts("replaced")
    said = []
    if skipped:
        said.append(f"{_some(skipped, 'step')} had no finite gradient and changed nothing")
    if replaced:
        said.append(f"{_some(replaced, 'sample')} could not be used and had another in its place")
    return said


def _some(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count > 1 else ''}"


def context(training: Training, pictures: Sequence[tuple[str, int, str | None]]) -> dict[str, Any]:
    """Everything that the template needs besides the training.

    Args:
        pictures: (stage's name, step, href) of its samples.
    """
    return {
        "training": training,
        "curves": curves_of([(training.name, 0, training)]),
        "pictures": pictures,
        "mishaps": mishaps(training),
        "facts": facts(training),
    }
