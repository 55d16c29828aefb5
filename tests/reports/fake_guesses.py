"""Run folders of a classification, as the runner writes them: real pictures, invented margins."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fake_runs import EXPERIMENTS, cell, make_run, picture
from PIL import Image

from harness.experiment import Experiment, Fills

IMAGE_CLASSIFY = Experiment(
    name="image-classify",
    title="Zero-shot image classification",
    subject="embedder",
    status="built",
    fills=(
        Fills(table="table05", group={"imagenet-val": "ImageNet-1k"}, columns={"top-1": "val"}),
        Fills(table="table03", group={"imagenet-val": "Image"}, columns={"top-1": "Acc.↑"}),
    ),
    datasets=("samples", "imagenet-val"),
    protocols=("siglip2-256", "siglip2-384"),
    defaults={"samples": "own-64"},
    needs="ImageNet-1k val",
)
WITH_CLASSES = {**EXPERIMENTS, "image-classify": IMAGE_CLASSIFY}
NAMES = ("tench", "<b>goldfish</b>", "great white shark", "tiger shark")


def make_guess_run(
    runs: Path,
    *,
    name: str = "atoken-nano",
    dataset: str = "samples",
    protocol: str = "own-64",
    side: int = 64,
    margins: tuple[float, ...] = (0.11, -0.21, 0.03, -0.02, 0.4, 0.2),
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run's folder and return it."""
    folder = make_run(runs, name, dataset=dataset, protocol=protocol, n=len(margins))
    record = json.loads((folder / "record.json").read_text())
    for file in (folder / "gallery").iterdir():
        file.unlink()
    n = len(margins)
    labels = [place % len(NAMES) for place in range(n)]
    guessed = [label if margin > 0 else (label + 1) % len(NAMES) for label, margin in zip(labels, margins, strict=True)]
    right = [100.0 * (margin > 0) for margin in margins]
    ids = [f"{NAMES[label]}/{place}.jpg" for place, label in enumerate(labels)]
    order = np.argsort(margins)
    gallery = []
    for rank, place in (("worst", order[0]), ("median", order[n // 2]), ("best", order[-1])):
        file = f"gallery/{place:06d}-original.png"
        Image.fromarray(picture(int(place), 32)).save(folder / file)
        entry = {"id": ids[place], "rank": rank, "metric": "margin", "value": margins[place], "original": file}
        said = {"label": NAMES[labels[place]], "predicted": NAMES[guessed[place]], "score": 0.25 + margins[place] / 10}
        gallery.append(entry | said)
    columns = {"id": ids, "label": labels, "sha256": ["0" * 64] * n, "height": [side] * n, "width": [side] * n}
    columns |= {"encode_ms": [1.0] * n, "decode_ms": [0.0] * n, "tokens": [16] * n, "top-1": right}
    columns |= {"margin": list(margins), "score": [0.3] * n, "predicted": [float(one) for one in guessed]}
    pq.write_table(pa.table(columns), folder / "samples.parquet")
    value = float(np.mean(right))
    bounds = [max(0.0, value - 20), min(100.0, value + 20)]
    record |= {
        "experiment": "image-classify",
        "modality": "image",
        "gallery": gallery,
        "cells": [
            cell("top-1", value, n, True, unit="%", interval=bounds, parameters={"k": 1, "ties": "against"}),
            cell("mean per-class accuracy", value, n, True, unit="%", interval=bounds),
        ],
        "understanding": {
            "classes": len(NAMES),
            "templates": 7,
            "templates_sha256": "ab" * 32,
            "texts_sha256": "cd" * 32,
            "text_tower": {"name": "sentence", "fingerprint": "ef" * 32},
        },
    }
    known = record["tokenizer"]["card"]
    plain = {key: known[key] for key in ("name", "title", "modalities", "paper_row", "weights_sha256", "settings")}
    record["tokenizer"]["card"] = {**plain, "source": "a test", "width": 384, "text": None, **(card or {})}
    record["protocol"]["content"]["embed"] = {"side": side, "templates": "own"}
    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")
    return folder
