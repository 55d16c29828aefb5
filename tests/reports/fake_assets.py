"""Runs on 3D assets as the runner writes them: real small turntables and Gaussians, invented figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from fake_clips import VIDEO_RECON
from fake_runs import IMAGE_RECON, cell

from atoken.assets.cameras import Camera
from atoken.assets.gaussians import SH_DEGREE_0, Gaussians
from harness.asset_gallery import turntable, write_asset
from harness.experiment import Experiment, Fills

ASSET_RECON = Experiment(
    name="asset-recon",
    title="3D asset reconstruction",
    modality="asset",
    status="built",
    fills=(
        Fills(table="table08", group={"toys4k": ""}, columns={"PSNR": "PSNR↑", "SSIM": "SSIM↑", "LPIPS": "LPIPS↓"}),
        Fills(table="table03", group={"toys4k": "3D"}, columns={"PSNR": "PSNR↑", "LPIPS": "LPIPS↓"}),
    ),
    datasets=("samples", "toys4k", "folder"),
    protocols=("paper", "trellis", "release"),
    tokenizers=("identity", "voxel-colour", "atoken"),
    needs="Toys4k meshes, a checkpoint with its Gaussian decoder, LPIPS trunk weights",
)
EXPERIMENTS = {"image-recon": IMAGE_RECON, "video-recon": VIDEO_RECON, "asset-recon": ASSET_RECON}

GAUSSIANS = "needs 3d_decode_gs.pt: no trained Gaussian decoder is at hand"
VIEWS = 5
_CARDS: dict[str, dict[str, Any]] = {
    "identity": {"token_type": "none"},
    "voxel-colour": {"title": "Voxel colour, 64³", "token_type": "transform"},
    "atoken": {"name": "atoken-nano", "title": "atoken-nano", "token_type": "VAE", "latent_size": 48},
    "atoken:so-c.pt": {
        **{"name": "atoken-so-c", "title": "AToken-So/C", "token_type": "VAE"},
        **{"latent_size": 48, "paper_row": "AToken-So/C / Stage 3"},
    },
}
_TITLES = {"samples": "Sample assets", "toys4k": "Toys4k"}


def blobs() -> Gaussians:
    """Red on +x, green on +y (behind, seen from the front), blue on +z."""
    rng = np.random.default_rng(0)
    means = [rng.normal(0, 0.05, (300, 3)) + 0.38 * axis for axis in np.eye(3)]
    colours = np.repeat(np.eye(3), 300, axis=0)
    return Gaussians.of(
        means=torch.from_numpy(np.concatenate(means)).float(),
        features_dc=torch.from_numpy((colours - 0.5) / SH_DEGREE_0).float(),
        scales=torch.full((900, 3), 0.015),
        rotations=torch.tensor([[1.0, 0, 0, 0]]).repeat(900, 1),
        opacities=torch.full((900,), 0.95),
    )


def look(camera: Camera, colour: Sequence[float], side: int) -> np.ndarray:
    """Premultiplied view of a plain ball on a pin: shaded, so that a turn is seen."""
    y, x = (np.mgrid[0:side, 0:side] + 0.5) / side * 2 - 1
    right, down = camera.world_to_camera[:2, :3]
    height = np.sqrt(np.clip(0.36 - x**2 - y**2, 0, None))
    normal = x[..., None] * right + y[..., None] * down - height[..., None] * camera.world_to_camera[2, :3]
    inside = (height > 0)[..., None]
    light = 0.55 + 0.45 * np.sign(np.sin(6 * np.arctan2(normal[..., 1:2], normal[..., :1])))
    pin = ((np.abs(x) < 0.04) & (y > 0.5) & (y < 0.9))[..., None]
    rgb = np.where(inside, light * np.asarray(colour), np.where(pin, 0.3, 0.0))
    return np.concatenate([rgb, (inside | pin).astype(float)], axis=2).astype(np.float32)


def reconstruct(spec: str, view: np.ndarray, place: int) -> np.ndarray:
    """What the fake tokenizer makes of a view."""
    if spec == "identity":
        return view
    noise = np.random.default_rng(place).normal(0, 0.03 + 0.03 * (place == 2), view.shape[:2])[..., None]
    return np.concatenate([view[..., :3] + noise * view[..., 3:], view[..., 3:]], axis=2).astype(np.float32)


def make_asset_run(
    runs: Path,
    spec: str,
    *,
    dataset: str = "samples",
    protocol: str = "paper",
    expected: int | None = None,
    ids: Sequence[str] = ("chair/chair_01.glb", "lamp/lamp_02.glb", "table/table_03.glb"),
    shown: bool = True,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run's folder and return it.

    Args:
        shown: whether it can decode; else its cells of pictures are absent and its gallery is empty.
        changes: replaces top-level fields of the record.
    """
    card: dict[str, Any] = {"title": spec, "paper_row": None, "weights_sha256": {}, "settings": {}}
    card |= {"name": spec.replace(":", "-"), "modalities": ["asset"], "source": "made for a test"}
    card |= {"compression": None, "latent_size": None, "tile": [None, None, None], **_CARDS[spec]}
    names = {"PSNR": "asset-psnr", "SSIM": "asset-ssim", "LPIPS": "asset-lpips", "foreground": "foreground"}
    content: dict[str, Any] = {"schema": 1, "name": protocol, "prepare": "unit_cube|unlit", "eight_bit": "half-even"}
    content |= {"metrics": [{"name": name, "metric": family} for name, family in names.items()]}
    content |= {"asset": {"views": "thirty", "size": 512}}
    sha = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    folder = runs / "asset-recon" / f"{card['name']}--{dataset}--{protocol}--{sha[:8]}"
    folder.mkdir(parents=True)

    n, ideal = len(ids), spec == "identity"
    rng = np.random.default_rng(len(spec))
    psnr = np.full((n, VIEWS), np.inf) if ideal else 24 + rng.normal(0, 1, (n, VIEWS)) + np.arange(n)[:, None]
    ssim = np.ones((n, VIEWS)) if ideal else 0.9 + rng.random((n, VIEWS)) / 20
    scores = psnr.mean(axis=1)
    columns: dict[str, Any] = {"id": list(ids), "label": [None] * n, "sha256": [f"{i:064x}" for i in range(n)]}
    columns |= dict.fromkeys(("height", "width", "height_in", "width_in"), [512] * n)
    columns |= {"encode_ms": [900.0] * n, "decode_ms": [1200.0] * n, "tokens": [4321.0] * n, "frames": [VIEWS] * n}
    if shown:
        columns |= {"PSNR": scores, "SSIM": ssim.mean(axis=1), "LPIPS": 0.1 - 0.01 * np.arange(n)}
        columns |= {"foreground": [0.31] * n, "gaussians": [np.nan if ideal else 4321.0] * n}
        frames = {"id": np.repeat(ids, VIEWS), "frame": np.tile(np.arange(VIEWS), n)}
        frames |= {"PSNR": psnr.ravel(), "SSIM": ssim.ravel(), "foreground": rng.random(n * VIEWS) / 10 + 0.3}
        pq.write_table(pa.table(frames), folder / "frames.parquet")
    pq.write_table(pa.table(columns), folder / "samples.parquet")

    gallery = []
    ranks = zip(("worst", "median", "best"), np.argsort(scores, kind="stable"), strict=False)
    for rank, place in ranks if shown else ():
        colour = np.roll([0.9, 0.35, 0.1], place)
        made = [look(camera, colour, 96) for camera in turntable()]
        pairs = [(view, reconstruct(spec, view, number)) for number, view in enumerate(made)]
        splat = None if ideal else blobs()
        entry = {"id": ids[place], "rank": rank, "metric": "PSNR", "value": _plain(scores[place])}
        voxels = None if ideal else 4321
        gallery.append(
            entry | write_asset(folder / "gallery", f"{place:06d}", pairs, tokens=4321, voxels=voxels, splat=splat)
        )
    record = _record(spec, card, protocol, sha, content, dataset, expected, n, scores, gallery, shown)
    (folder / "record.json").write_text(json.dumps(record | dict(changes or {})), encoding="utf-8")
    return folder


def _plain(value: float) -> float | str:
    return "Infinity" if np.isinf(value) else float(value)


def _record(
    spec: str,
    card: dict[str, Any],
    protocol: str,
    sha: str,
    content: dict[str, Any],
    dataset: str,
    expected: int | None,
    n: int,
    scores: np.ndarray,
    gallery: list[dict[str, Any]],
    shown: bool,
) -> dict[str, Any]:
    ideal = spec == "identity"
    lost = {"absent": None if shown else GAUSSIANS}

    def value(of: float) -> float | None:
        return of if shown else None

    cells = [
        cell("PSNR", value(float(np.mean(scores))), n, True, unit="dB", **lost),
        cell("SSIM", value(1.0 if ideal else 0.93), n, True, **lost),
        cell("LPIPS", value(0.0 if ideal else 0.09), n, False, **lost),
        cell("foreground", value(0.31), n, True, **lost),
        cell("tokens", 4321.0, n, False, unit="tokens"),
    ]
    for entry in cells:
        entry["value"] = entry["value"] if entry["value"] is None else _plain(entry["value"])
    return {
        "schema": 1,
        "experiment": "asset-recon",
        "modality": "asset",
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
            **{"encode_ms": 900.0, "decode_ms": 1200.0, "tokens_per_s": 2000.0},
        },
        "memory": {"peak_rss_bytes": 812_000_000, "peak_device_bytes": None},
        "shards": [{"index": 0, "file": "shards/00000-of-00001.0123456789ab.safetensors", "sha256": "34" * 32, "n": n}],
        "gallery": gallery,
    }
