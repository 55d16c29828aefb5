"""Runs on videos as the runner writes them: real small clips with real pictures and PSNR, invented other figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fake_runs import IMAGE_RECON, cell, picture, psnr

from harness.clip_gallery import write_clip
from harness.experiment import Experiment, Fills

VIDEO_RECON = Experiment(
    name="video-recon",
    title="Video reconstruction",
    modality="video",
    status="built",
    fills=(
        Fills(
            table="table06",
            group={"davis": "DAVIS", "tokenbench": "TokenBench"},
            columns={"PSNR": "PSNR↑", "SSIM": "SSIM↑", "LPIPS": "LPIPS↓", "rFVD": "rFVD↓"},
        ),
        Fills(table="table03", group={"tokenbench": "Video"}, columns={"PSNR": "PSNR↑", "rFVD": "rFVD↓"}),
    ),
    datasets=("samples", "davis", "tokenbench", "folder"),
    protocols=("paper-davis", "native"),
    tokenizers=("identity", "h264@0.09375", "dct3d:48", "atoken"),
    needs="DAVIS 2016",
)
EXPERIMENTS = {"image-recon": IMAGE_RECON, "video-recon": VIDEO_RECON}

TILE = 8
RATE = Fraction(12)
_CARDS: dict[str, dict[str, Any]] = {
    "identity": {"token_type": "none"},
    "h264@0.09375": {"title": "H.264, 0.09375 bit per pixel", "token_type": "codec"},
    "dct3d:48": {
        **{"title": "DCT, 48 of 3072", "token_type": "transform"},
        **{"compression": [4, 16, 16], "latent_size": 48, "tile": [4, None, None]},
    },
    "atoken": {
        **{"name": "atoken-nano", "title": "atoken-nano", "token_type": "VAE"},
        **{"compression": [4, 16, 16], "latent_size": 48, "tile": [TILE, None, None]},
    },
    "atoken:so-c.pt": {
        **{"name": "atoken-so-c", "title": "AToken-So/C", "token_type": "VAE", "tile": [TILE, None, None]},
        **{"compression": [4, 16, 16], "latent_size": 48, "paper_row": "AToken-So/C / Stage 3"},
    },
}
_TITLES = {"samples": "Sample clips", "davis": "DAVIS 2016", "tokenbench": "TokenBench"}


def clip(seed: int, frames: int, height: int, width: int) -> np.ndarray:
    """uint8 ``[frames, height, width, 3]``: a picture that is panned over."""
    large = picture(seed, max(height, width) + 2 * frames)
    return np.stack([large[t : t + height, 2 * t : 2 * t + width] for t in range(frames)])


def reconstruct(spec: str, frames: np.ndarray) -> np.ndarray:
    """What the fake tokenizer makes of a clip: noise that starts anew in each tile."""
    if spec == "identity":
        return frames
    level = {"h264@0.09375": 6, "dct3d:48": 18}.get(spec, 11)
    noise = np.empty(frames.shape)
    for start in range(0, len(frames), TILE):
        part = noise[start : start + TILE]
        part[:] = np.random.default_rng(start).normal(0, level, frames.shape[1:])
        part *= 1 + 0.06 * np.arange(len(part))[:, None, None, None]
    return np.clip(frames + noise, 0, 255).astype(np.uint8)


def make_clip_run(
    runs: Path,
    spec: str,
    *,
    dataset: str = "samples",
    protocol: str = "paper-davis",
    expected: int | None = None,
    clips: Mapping[str, np.ndarray] | None = None,
    shown: int | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run's folder and return it.

    Args:
        shown: frames of each clip that its video shows; None for all.
        changes: replaces fields of the card.
    """
    if clips is None:
        clips = {f"clips/{name}.mp4": clip(place, 26, 36, 64) for place, name in enumerate(("bikes", "goat", "surf"))}
    card: dict[str, Any] = {"title": spec, "paper_row": None, "weights_sha256": {}, "settings": {}}
    card |= {"name": spec.replace(":", "-"), "modalities": ["video"], "source": "made for a test"}
    card |= {"compression": None, "latent_size": None, "tile": [None, None, None], **_CARDS[spec], **(changes or {})}
    families = {"PSNR": "psnr", "SSIM": "ssim", "LPIPS": "lpips", "rFVD": "rfvd", "seam": "seam"}
    content: dict[str, Any] = {"schema": 1, "name": protocol, "prepare": "rgb|center_crop_multiple(16)"}
    content |= {"eight_bit": "half-even", "clip": {"first_frames": 300, "first_seconds": 10, "frames": "common"}}
    content |= {"metrics": [{"name": name, "metric": family} for name, family in families.items()]}
    sha = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    folder = runs / "video-recon" / f"{card['name'].replace('@', '-')}--{dataset}--{protocol}--{sha[:8]}"
    folder.mkdir(parents=True)

    made = {name: reconstruct(spec, frames) for name, frames in clips.items()}
    curves = {name: _curves(frames, made[name]) for name, frames in clips.items()}
    scores = np.array([psnr(frames, made[name]) for name, frames in clips.items()])
    samples = _samples(clips, scores, seams=card["tile"][0] is not None)
    pq.write_table(pa.table(samples), folder / "samples.parquet")
    pq.write_table(_frames(curves), folder / "frames.parquet")
    gallery = []
    names = list(clips)
    for rank, place in zip(("worst", "median", "best"), np.argsort(scores, kind="stable"), strict=False):
        frames, back = clips[names[place]][:shown], made[names[place]][:shown]
        entry = {"id": names[place], "rank": rank, "metric": "PSNR", "value": _plain(scores[place])}
        entry |= write_clip(folder / "gallery", f"{place:06d}", zip(frames, back, strict=True), rate=RATE)
        gallery.append({**entry, "tile": card["tile"]})
    record = _record(spec, card, protocol, sha, content, dataset, expected, names, scores, gallery) | dict(
        changes or {}
    )
    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def _plain(value: float) -> float | str:
    return "Infinity" if np.isinf(value) else float(value)


def _curves(frames: np.ndarray, made: np.ndarray) -> dict[str, np.ndarray]:
    error = made.astype(float) - frames
    steps = ((error[1:] - error[:-1]) ** 2).mean(axis=(1, 2, 3))
    values = np.array([psnr(a, b) for a, b in zip(frames, made, strict=True)])
    with np.errstate(divide="ignore"):
        ssim = 1 - 1 / np.maximum(values, 1)
    return {"PSNR": values, "SSIM": ssim, "seam": np.concatenate(([np.nan], steps))}


def _samples(clips: Mapping[str, np.ndarray], scores: np.ndarray, *, seams: bool) -> dict[str, Any]:
    n, sizes = len(clips), [frames.shape for frames in clips.values()]
    columns: dict[str, Any] = {"id": list(clips), "label": [None] * n, "sha256": [f"{i:064x}" for i in range(n)]}
    columns |= {"height": [size[1] for size in sizes], "width": [size[2] for size in sizes]}
    columns |= {"height_in": [size[1] + 4 for size in sizes], "width_in": [size[2] for size in sizes]}
    columns |= {"encode_ms": [1500.0] * n, "decode_ms": [2500.0] * n, "tokens": [84] * n}
    columns |= {"frames": [size[0] for size in sizes], "PSNR": scores, "SSIM": 1 - 0.1 * np.arange(n)}
    columns |= {"LPIPS": 0.1 + 0.01 * np.arange(n), "bits per pixel": [0.09375] * n}
    return columns | {"seam": [4.25 if seams else np.nan] * n, "seam borders": [3.0 if seams else np.nan] * n}


def _frames(curves: Mapping[str, Mapping[str, np.ndarray]]) -> pa.Table:
    ids = [name for name, columns in curves.items() for _ in columns["PSNR"]]
    numbers = np.concatenate([np.arange(len(columns["PSNR"])) for columns in curves.values()])
    columns = {key: np.concatenate([part[key] for part in curves.values()]) for key in ("PSNR", "SSIM", "seam")}
    return pa.table({"id": ids, "frame": numbers, **columns})


def _record(
    spec: str,
    card: dict[str, Any],
    protocol: str,
    sha: str,
    content: dict[str, Any],
    dataset: str,
    expected: int | None,
    ids: list[str],
    scores: np.ndarray,
    gallery: list[dict[str, Any]],
) -> dict[str, Any]:
    n, ideal = len(ids), spec == "identity"
    seam = {"value": 4.25, "absent": None} if card["tile"][0] else {"value": None, "absent": "nothing is cut"}
    value = float(np.mean(scores))
    cells = [
        cell("PSNR", value, n, True, unit="dB"),
        cell("SSIM", 1.0 if ideal else 0.9, n, True),
        cell("LPIPS", 0.0 if ideal else 0.11, n, False),
        cell("rFVD", None, n, False, absent="needs i3d_torchscript.pt; put it into a folder and pass --weights FOLDER"),
        cell("seam", n=n, up=False, unit="dB", **seam),
        cell("bits per pixel", 0.09375, n, False, unit="bit/pixel"),
    ]
    for entry in cells:
        entry["value"] = entry["value"] if entry["value"] is None else _plain(entry["value"])
    return {
        "schema": 1,
        "experiment": "video-recon",
        "modality": "video",
        "tokenizer": {"spec": spec, "card": card},
        "protocol": {"name": protocol, "version": 1, "sha256": sha, "content": content},
        "dataset": {
            **{"name": dataset, "title": _TITLES[dataset], "count": expected or n, "expected": expected},
            **{"ids_sha256": hashlib.sha256(dataset.encode()).hexdigest(), "credits": "made for a test"},
            "content_sha256": hashlib.sha256(f"{dataset}{n}".encode()).hexdigest(),
        },
        "samples": {"expected": expected, "selected": n, "used": n, "failed": []},
        "cells": cells,
        "weights": {},
        "settings": {"device": "cpu", "dtype": "float32", "threads": 2, "token_budget": 4096, "shards": 1, "seed": 0},
        "environment": {"python": "3.11.9", "platform": "Linux-x86_64", "packages": {"torch": "2.14.1"}},
        "code": {"commit": "0123456789abcdef", "dirty": False, "version": "0.1.0"},
        "time": {
            **{"started": "2026-11-23T01:00:00+00:00", "finished": "2026-11-23T01:01:00+00:00", "wall_s": 60.0},
            **{"encode_ms": 1500.0, "decode_ms": 2500.0, "tokens_per_s": 21.0},
        },
        "memory": {"peak_rss_bytes": 812_000_000, "peak_device_bytes": None},
        "shards": [{"index": 0, "file": "shards/00000-of-00001.0123456789ab.safetensors", "sha256": "34" * 32, "n": n}],
        "gallery": gallery,
    }
