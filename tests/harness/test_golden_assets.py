"""The audit of a golden 3D object sees each fault that its arithmetic could have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from atoken import patches
from atoken.assets import gaussian_decoder
from atoken.assets.gaussian_decoder import GaussianDecoderConfig, Windows
from harness import golden_assets
from harness.golden import run_golden

Mutation = Callable[[pytest.MonkeyPatch], None]
AFTER = {"gs_pre_out_layer", "gs_raw_features_dc", "gs_raw_opacity", "gs_opacity"}


@pytest.fixture
def folder(shared: Path, tmp_path: Path) -> Path:
    (tmp_path / "h.safetensors").write_bytes((shared / "reference/golden/h_3d.safetensors").read_bytes())
    return tmp_path


def failing(folder: Path) -> set[str]:
    return {row.output for row in run_golden(folder) if row.verdict == "FAIL"}


def _config(**changes: float) -> Mutation:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        usual = golden_assets._config_of
        patch.setattr(golden_assets, "_config_of", lambda stated: replace(usual(stated), **changes))

    return mutate


def _no_shift(patch: pytest.MonkeyPatch) -> None:
    usual = Windows.of
    patch.setattr(Windows, "of", staticmethod(lambda voxels, items, window, shift: usual(voxels, items, window, 0)))


def _axes(patch: pytest.MonkeyPatch) -> None:
    usual = gaussian_decoder.voxel_positions
    patch.setattr(gaussian_decoder, "voxel_positions", lambda voxels, width: usual(voxels.flip(1), width))


def _zeros_before_scaling(patch: pytest.MonkeyPatch) -> None:
    usual = patches.fill_asset

    def fill(rows: torch.Tensor, asset: object) -> None:
        usual(rows, asset)
        rows[:, 768:] = -1

    patch.setattr(patches, "fill_asset", fill)


@pytest.mark.parametrize(
    ("mutate", "outputs"),
    [
        (lambda patch: patch.setattr(gaussian_decoder, "SOFTCAP", 1e6), AFTER),
        (_no_shift, AFTER),
        (_axes, AFTER),
        (_config(window=16), AFTER),
        (_config(reach=1.6), {"gs_xyz", "gs_raw_xyz"}),
        (_config(rotation_rate=0.11), {"gs_rotation", "gs_raw_rotation"}),
        (_config(scaling_bias=0.0045), {"gs_scaling"}),
        (_config(smallest_scale=2e-3), {"gs_scaling"}),
        (_config(opacity_bias=0.11), {"gs_opacity"}),
        (_zeros_before_scaling, {"x_no_proj", "mean", "rec_feats_768", *AFTER}),
    ],
    ids=["softcap", "shift", "axes", "window", "reach", "rotation", "bias", "3D filter", "opacity", "padding"],
)
def test_a_wrong_formula_fails(
    mutate: Mutation, outputs: set[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    failed = failing(folder)
    assert outputs <= failed
    if "mean" not in outputs:
        assert not failed & {"mean", "rec_feats_768", "image_feat"}


def test_what_this_library_does_not_do_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = golden_assets._config_of
    monkeypatch.setattr(golden_assets, "_config_of", lambda stated: usual({**stated, "attn_mode": "full"}))
    (row,) = run_golden(folder)
    assert "attn_mode = 'full'; this library knows 'swin' only" in row.note


def test_the_default_config_is_the_releases(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[GaussianDecoderConfig] = []
    usual = golden_assets._config_of
    monkeypatch.setattr(golden_assets, "_config_of", lambda stated: seen.append(usual(stated)) or seen[0])
    assert failing(folder) == set()
    # All but the size is the released decoder's.
    small = {"width": 96, "blocks": 2, "heads": 4, "mlp": 192}
    assert seen[0] == GaussianDecoderConfig(**small)
