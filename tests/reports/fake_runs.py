"""Run folders as the runner writes them, made in a moment: real pictures and PSNR, invented other figures."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from harness.experiment import Experiment, Fills

IMAGE_RECON = Experiment(
    name="image-recon",
    title="Image reconstruction",
    status="built",
    fills=(
        Fills(
            table="table04",
            group={"imagenet-val": "ImageNet", "coco-val2017": "COCO"},
            columns={"PSNR": "PSNR↑", "SSIM": "SSIM↑", "LPIPS": "LPIPS↓", "rFID": "rFID↓"},
        ),
        Fills(table="table03", group={"imagenet-val": "Image"}, columns={"PSNR": "PSNR↑", "rFID": "rFID↓"}),
    ),
    datasets=("samples", "imagenet-val", "coco-val2017"),
    protocols=("paper", "lightningdit", "adm", "native"),
    tokenizers=("identity", "jpeg:75", "dct:48", "pca:48", "atoken"),
    needs="ImageNet-1k val",
)
VIDEO_RECON = Experiment(
    name="video-recon",
    title="Video reconstruction",
    fills=(Fills(table="table06", group={"davis": "DAVIS"}, columns={"PSNR": "PSNR↑"}),),
    needs="DAVIS 2016",
)
EXPERIMENTS = {"image-recon": IMAGE_RECON, "video-recon": VIDEO_RECON}

_CARDS: dict[str, dict[str, Any]] = {
    "identity": {"title": "identity", "token_type": "none"},
    "jpeg:75": {"title": "JPEG, quality 75", "token_type": "codec"},
    "jpeg:10": {"title": "JPEG, quality 10", "token_type": "codec"},
    "dct:48": {"title": "DCT, 48 of 768", "token_type": "transform", "compression": [1, 16, 16], "latent_size": 48},
    "atoken": {
        "name": "atoken-nano",
        "title": "atoken-nano",
        "token_type": "VAE",
        "compression": [4, 16, 16],
        "latent_size": 48,
        "weights_sha256": {"model.safetensors": "ab" * 32},
    },
    "atoken:so-c.pt": {
        "name": "atoken-so-c",
        "title": "AToken-So/C",
        "token_type": "VAE",
        "compression": [4, 16, 16],
        "latent_size": 48,
        "paper_row": "AToken-So/C / Stage 3",
        "weights_sha256": {"so-c.pt": "cd" * 32},
    },
    "omni:vq": {"title": "OmniTokenizer", "token_type": "VQ", "paper_row": "OmniTokenizer"},
}
_TITLES = {
    "samples": "Sample photographs",
    "imagenet-val": "ImageNet-1k val",
    "coco-val2017": "COCO val2017",
    "folder": "Folder of mine",
}
PREPARE = {
    "paper": "rgb|resize_short(256,bicubic)|center_crop(256)",
    "lightningdit": "rgb|tensor|resize_short(256,bilinear)|center_crop(256)",
    "adm": "rgb|center_crop_arr(256)",
    "native": "rgb",
}


def picture(seed: int, side: int) -> np.ndarray:
    """uint8 ``[side, side, 3]``: smooth colour, an edge and some texture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    angle = rng.uniform(0, np.pi)
    base = np.stack([np.sin(3 * (x * np.cos(angle) + y * np.sin(angle)) + phase) for phase in rng.uniform(0, 6, 3)], -1)
    disc = ((x - rng.uniform(0.3, 0.7)) ** 2 + (y - rng.uniform(0.3, 0.7)) ** 2 < 0.05)[..., None]
    noise = rng.normal(0, 0.04 + 0.1 * (seed % 3 == 0), (side, side, 3))
    return np.clip(127 + 90 * base * np.where(disc, -1, 1) + 255 * noise, 0, 255).astype(np.uint8)


def reconstruct(spec: str, image: np.ndarray) -> np.ndarray:
    """What the fake tokenizer makes of an image."""
    if spec == "identity":
        return image
    if spec.startswith("jpeg"):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=int(spec.split(":")[1]))
        return np.asarray(Image.open(stream))
    side = image.shape[0]
    small = Image.fromarray(image).resize((side // (3 if spec == "dct:48" else 2),) * 2, Image.Resampling.LANCZOS)
    return np.asarray(small.resize((side, side), Image.Resampling.LANCZOS))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Over one pair of 8-bit images; infinite where they are equal."""
    mse = float(np.mean((a.astype(float) - b.astype(float)) ** 2))
    return float("inf") if mse == 0 else 10 * np.log10(255**2 / mse)


def cell(name: str, value: float | None, n: int, up: bool, **more: Any) -> dict[str, Any]:
    """One cell as the runner writes it."""
    spread = None if value is None or np.isinf(value) else [value * 0.985, value * 1.016]
    base = {"name": name, "value": value, "interval": spread, "level": 0.95, "n": n, "higher_is_better": up}
    return {**base, "unit": "", "absent": None, "parameters": {}, **more}


def make_run(
    runs: Path,
    spec: str,
    *,
    dataset: str = "samples",
    protocol: str = "paper",
    n: int = 12,
    expected: int | None = None,
    side: int = 32,
    shift: float = 0.0,
    changes: Mapping[str, Any] | None = None,
    card: Mapping[str, Any] | None = None,
    images: list[np.ndarray] | None = None,
) -> Path:
    """Write a run's folder and return it. ``changes`` replaces top-level fields of the record."""
    images = images or [picture(seed, side) for seed in range(n)]
    ids = [f"photo/{index:03d}.jpg" for index in range(len(images))]
    made = [reconstruct(spec, image) for image in images]
    scores = np.array([psnr(a, b) for a, b in zip(images, made, strict=True)]) + shift
    card_here = {"name": spec.replace(":", "-"), "paper_row": None, "weights_sha256": {}, "settings": {}}
    card_here |= {"modalities": ["image"], "compression": None, "latent_size": None, "source": "made for a test"}
    card_here |= {"title": spec, "token_type": "AE", **_CARDS.get(spec, {}), **(card or {})}
    content = {"schema": 1, "name": protocol, "prepare": PREPARE.get(protocol, "rgb"), "eight_bit": "half-up"}
    sha = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    folder = runs / "image-recon" / f"{card_here['name']}--{dataset}--{protocol}--{sha[:8]}"
    if folder.exists():
        folder = folder.with_name(f"{folder.name}{len(list(folder.parent.iterdir()))}")
    (folder / "gallery").mkdir(parents=True)
    ideal = spec == "identity"
    value = float(np.mean(scores))
    order = np.argsort(scores, kind="stable")
    gallery = []
    for rank, place in (("worst", order[0]), ("median", order[len(order) // 2]), ("best", order[-1])):
        a, b = images[place], made[place]
        error = np.clip(8 * np.abs(a.astype(int) - b.astype(int)), 0, 255).astype(np.uint8)
        entry = {"id": ids[place], "rank": rank, "metric": "PSNR", "value": float(scores[place])}
        for kind, array in (("original", a), ("reconstruction", b), ("error", error)):
            entry[kind] = f"gallery/{rank}-{kind}.png"
            Image.fromarray(array).save(folder / entry[kind])
        gallery.append(entry)
    columns = {"id": ids, "label": [None] * n, "sha256": ["0" * 64] * n, "height": [side] * n, "width": [side] * n}
    columns |= {"encode_ms": [1.0] * n, "decode_ms": [2.0] * n, "tokens": [4] * n, "PSNR": scores}
    columns |= {"SSIM": 1 - 0.2 * np.random.default_rng(0).random(n)}
    pq.write_table(pa.table({name: column[:n] for name, column in columns.items()}), folder / "samples.parquet")
    missing = "needs pt_inception-2015-12-05.pth; put it into a folder and pass --weights FOLDER"
    record: dict[str, Any] = {
        "schema": 1,
        "experiment": "image-recon",
        "tokenizer": {"spec": spec, "card": card_here},
        "protocol": {"name": protocol, "version": 1, "sha256": sha, "content": content},
        "dataset": {
            "name": dataset,
            "title": _TITLES.get(dataset, dataset),
            "count": n if expected is None else expected,
            "expected": expected,
            "ids_sha256": hashlib.sha256(dataset.encode()).hexdigest(),
            "content_sha256": hashlib.sha256(f"{dataset}{n}".encode()).hexdigest(),
            "credits": "made for a test",
        },
        "samples": {"expected": expected, "selected": n, "used": n, "failed": []},
        "cells": [
            cell("PSNR", value, n, True, unit="dB"),
            cell("SSIM", 1.0 if ideal else 0.8 + value / 1000, n, True, parameters={"flavour": "gaussian"}),
            cell("LPIPS", 0.0 if ideal else 0.123456, n, False),
            cell("rFID", None, n, False, absent=missing),
            cell("SSIM (scikit-image)", 1.0 if ideal else 0.81, n, True),
            cell(
                "bits per pixel", None, n, False, unit="bit/pixel", absent="the code of a continuous latent has no rate"
            ),
        ],
        "weights": {"vgg16-397923af.pth": "12" * 32},
        "settings": {"device": "cpu", "dtype": "float32", "threads": 2, "token_budget": 4096, "shards": 1, "seed": 0},
        "environment": {
            "python": "3.11.9",
            "platform": "Linux-x86_64",
            "device_name": "a processor",
            "packages": {"torch": "2.14.1", "numpy": "2.4.0"},
        },
        "code": {"commit": "0123456789abcdef", "dirty": False, "version": "0.1.0"},
        "time": {
            "started": "2026-11-23T01:00:00+00:00",
            "finished": "2026-11-23T01:01:00+00:00",
            "wall_s": 60.0,
            "encode_ms": 1.25,
            "decode_ms": 2.5,
            "tokens_per_s": 12345.6,
        },
        "memory": {"peak_rss_bytes": 812_000_000, "peak_device_bytes": None},
        "shards": [{"index": 0, "file": "shards/00000-of-00001.0123456789ab.safetensors", "sha256": "34" * 32, "n": n}],
        "gallery": gallery,
    }
    record |= dict(changes or {})
    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")
    return folder
