"""An untrained Gaussian decoder draws voxels in their patches' mean colours, and all of it can be trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atoken.assets.cameras import Camera, four_views, hammersley_views, orbit
from atoken.assets.gaussian_decoder import GaussianDecoder, GaussianDecoderConfig, voxel_positions
from atoken.assets.gaussians import Gaussians
from atoken.assets.render import RenderSettings, render_views
from atoken.assets.splat import render
from atoken.training.errors import TrainingError
from atoken.training.start.gaussians import hammersley, sigma, start_gaussians
from harness.data.catalog import open_assets
from harness.tokenizers.voxel_colour import OPACITY, SIGMA, balls, mean_colours

NANO = GaussianDecoderConfig(width=128, blocks=4, heads=4, mlp=512, gaussians=8)
SHAPES = [NANO, replace(NANO, gaussians=32, blocks=2), replace(NANO, width=96, blocks=1), replace(NANO, width=192)]


def some_voxels(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.unique(torch.randint(0, 64, (count, 3), generator=generator), dim=0)


def flat(colours: torch.Tensor) -> torch.Tensor:
    """Patches of one colour each, from sRGB in 0..1 to the decoder's scale."""
    return (colours * 2 - 1).repeat(1, 256)


@torch.no_grad()
def gaussians_of(decoder: GaussianDecoder, features: torch.Tensor, voxels: torch.Tensor) -> Gaussians:
    return decoder.gaussians(decoder(features, voxels, [len(voxels)]), voxels)


@pytest.mark.parametrize("config", SHAPES)
@pytest.mark.parametrize("kind", ["flat", "black and white", "noise"])
def test_every_gaussian_has_its_voxels_mean_colour(config: GaussianDecoderConfig, kind: str) -> None:
    decoder = start_gaussians(config, seed=0)
    voxels = some_voxels(1500)
    generator = torch.Generator().manual_seed(1)
    colours = torch.rand(len(voxels), 3, generator=generator)
    features = flat(colours.round() if kind == "black and white" else colours)
    if kind == "noise":
        features = torch.rand(len(voxels), 768, generator=generator) * 2 - 1
    made = gaussians_of(decoder, features, voxels)
    wanted = (features.reshape(len(voxels), 256, 3).mean(1) + 1) / 2
    error = made.colours.reshape(len(voxels), config.gaussians, 3) - wanted.unsqueeze(1)
    # Two of 255 levels, wherever the voxel is.
    assert error.abs().max() < 2 / 255


@pytest.mark.parametrize("config", SHAPES)
def test_gaussians_fill_their_voxel(config: GaussianDecoderConfig) -> None:
    voxels = some_voxels(50)
    made = gaussians_of(start_gaussians(config, seed=0), torch.zeros(len(voxels), 768), voxels)
    places = (made.means + 0.5).reshape(len(voxels), config.gaussians, 3) * 64 - voxels.unsqueeze(1) - 0.5
    torch.testing.assert_close(places.mean(1), torch.zeros(len(voxels), 3), atol=1e-3, rtol=0)
    assert 0.25 < places.abs().max() < 0.5
    # No two in one place, or both would always be moved alike.
    assert torch.cdist(places[0], places[0]).add(torch.eye(config.gaussians)).min() > 0.05
    torch.testing.assert_close(made.scales * 64, torch.full_like(made.scales, sigma(config.gaussians)))
    torch.testing.assert_close(made.opacities, torch.full_like(made.opacities, 0.5))
    torch.testing.assert_close(made.rotations, torch.tensor([1.0, 0, 0, 0]).expand_as(made.rotations))


def test_the_perturbation_is_the_releases() -> None:
    """FACTS section 9: i / n, i mirrored in base 2, in base 3; the inverse of what positions go through."""
    points = hammersley(32)
    assert points[:4].tolist() == [
        [0, 0, 0],
        [1 / 32, 1 / 2, pytest.approx(1 / 3)],
        [2 / 32, 1 / 4, pytest.approx(2 / 3)],
        [3 / 32, 3 / 4, pytest.approx(1 / 9)],
    ]
    held = start_gaussians(replace(NANO, gaussians=32), seed=0).offset_perturbation
    torch.testing.assert_close(held, torch.atanh((2 * points - 1) / 1.5).float())


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 64))
def test_hammersley_points_are_even(count: int) -> None:
    points = hammersley(count).numpy()
    assert points.min() >= 0
    assert points.max() < 1
    assert len(np.unique(points, axis=0)) == count
    # Each half of the first axis holds half of them, give or take one.
    assert abs((points[:, 0] < 0.5).sum() - count / 2) <= 1


# -- Pictures --------------------------------------------------------------------------------------


def psnr(picture: torch.Tensor, wanted: np.ndarray) -> float:
    levels = picture[..., :3].clamp(0, 1).mul(255).round().numpy()
    return float(10 * np.log10(255**2 / np.mean((levels - wanted.astype(float)) ** 2)))


def test_a_coloured_ball_from_all_sides() -> None:
    """Against the same voxels as one round Gaussian each: no hole, the right colours on the right side."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(64)] * 3, indexing="ij"), -1).reshape(-1, 3)
    distance = (grid - 31.5).norm(dim=1)
    voxels = grid[(distance < 24) & (distance > 22)]
    colours = voxels / 63.0
    ours = gaussians_of(start_gaussians(NANO, seed=0), flat(colours), voxels)
    theirs = balls(voxels.numpy(), colours.numpy(), SIGMA, OPACITY)
    for azimuth in (0.3, 2.0, 4.4):
        camera = orbit(azimuth, 0.4)
        drawn, wanted = (render(each, camera, 128, 128) for each in (ours, theirs))
        inside = wanted[..., 3] > 0.99
        assert drawn[..., 3][inside].min() > 0.97
        difference = (drawn - wanted)[..., :3][inside].abs()
        assert difference.mean() < 0.005
        assert difference.max() < 0.1


def test_a_real_model_is_drawn_as_well_as_by_voxel_colour() -> None:
    dataset = open_assets("samples")
    index = next(i for i, sample in enumerate(dataset.samples) if sample.id == "exterior/mofx_mailbox")
    mesh: Any = dataset.open(index).mesh
    small = RenderSettings(height=128, width=128)
    voxels, colours = mean_colours(render_views(mesh, hammersley_views(12, mostly_above=True), small))
    held_out = render_views(mesh, four_views(), small)
    ours = gaussians_of(start_gaussians(NANO, seed=0), flat(torch.from_numpy(colours)), torch.from_numpy(voxels))
    theirs = balls(voxels, colours, SIGMA, OPACITY)

    def mean(gaussians: Gaussians) -> float:
        cameras: list[Camera] = list(held_out.cameras)
        pictures = [render(gaussians, camera, 128, 128) for camera in cameras]
        return float(np.mean([psnr(*pair) for pair in zip(pictures, held_out.on(0.0), strict=True)]))

    assert mean(ours) > mean(theirs) - 0.1


# -- Training --------------------------------------------------------------------------------------


def test_gradients_reach_every_weight_within_two_steps() -> None:
    decoder = start_gaussians(NANO, seed=0).train()
    voxels = some_voxels(4000)[:400] // 4 + 20
    voxels = torch.unique(voxels, dim=0)
    generator = torch.Generator().manual_seed(2)
    features = torch.rand(len(voxels), 768, generator=generator) * 2 - 1
    wanted = torch.rand(len(voxels) * NANO.gaussians, 3, generator=generator)

    def gradients() -> tuple[float, dict[str, torch.Tensor]]:
        made = decoder.gaussians(decoder(features, voxels, [len(voxels)]), voxels)
        # All that pictures depend on: colours, places, sizes, turns, opacities.
        loss = (made.features_dc - wanted).square().mean() + (made.means * 64 - wanted).square().mean()
        loss = loss + (made.log_scales - wanted).square().mean()
        loss = loss + (made.opacity_logits - wanted[:, 0]).square().mean()
        loss = loss + (made.quaternions[:, 1:] - wanted).square().mean()
        loss = loss + (made.quaternions[:, 0] - wanted[:, 0]).square().mean()
        names, weights = zip(*decoder.named_parameters(), strict=True)
        return loss.item(), dict(zip(names, torch.autograd.grad(loss, weights), strict=True))

    before, first = gradients()
    silent = [name for name, gradient in first.items() if not gradient.any()]
    # What leads to a block's output, which is zero at first; the first block's MLP writes the constants.
    assert all(name.startswith("blocks.") for name in silent)
    with torch.no_grad():
        for name, weight in decoder.named_parameters():
            weight.sub_(1e-3 * first[name] / first[name].norm().clamp_min(1e-12))
    after, second = gradients()
    assert after < before
    assert [name for name, gradient in second.items() if not gradient.any()] == []
    # Every output that is a bias alone at first has weights that learn at once.
    assert bool((first["out_layer.weight"].abs().amax(1) > 0).all())


def test_the_seed_moves_what_is_random_and_no_picture() -> None:
    one, same, other = (start_gaussians(NANO, seed=seed) for seed in (0, 0, 1))
    for (name, ours), theirs in zip(one.state_dict().items(), same.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert not torch.equal(one.blocks[1].attn.to_qkv.weight, other.blocks[1].attn.to_qkv.weight)
    voxels = some_voxels(100)
    features = torch.rand(len(voxels), 768) * 2 - 1
    ours, theirs = (gaussians_of(decoder, features, voxels) for decoder in (one, other))
    torch.testing.assert_close(ours.features_dc, theirs.features_dc, atol=1e-4, rtol=0)


def test_the_norms_hardly_feel_place_or_patch() -> None:
    """Else a colour would depend on where its voxel is: what the last norm divides by is within a per cent."""
    decoder = start_gaussians(NANO, seed=0)
    voxels = some_voxels(2000)
    streams: list[torch.Tensor] = []
    decoder.blocks[-1].register_forward_hook(lambda *parts: streams.append(parts[2]))
    with torch.no_grad():
        for colour in (-1.0, 0.0, 1.0):
            decoder(torch.full((len(voxels), 768), colour), voxels, [len(voxels)])
    lengths = torch.cat(streams).std(dim=1)
    assert lengths.max() / lengths.min() < 1.01
    # Without the constants the mean over channels alone would move it by a tenth.
    bare = voxel_positions(voxels, NANO.width).std(dim=1)
    assert bare.max() / bare.min() > 1.1


def test_it_is_saved_and_loaded_as_any_other(tmp_path: Any) -> None:
    decoder = start_gaussians(NANO, seed=0).eval()
    decoder.save_pretrained(tmp_path)
    back = GaussianDecoder.from_pretrained(tmp_path)
    assert back.config == NANO
    voxels = some_voxels(40)
    features = torch.rand(len(voxels), 768) * 2 - 1
    with torch.no_grad():
        assert torch.equal(back(features, voxels, [len(voxels)]), decoder(features, voxels, [len(voxels)]))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"width": 24}, "24 wide has no room for colours"),
        ({"channels": 700}, "not with 700 channels"),
        ({"blocks": 0}, "0 blocks"),
        ({"reach": 1.0}, "a reach of 1"),
    ],
)
def test_what_cannot_start(change: dict[str, Any], line: str) -> None:
    with pytest.raises(TrainingError, match=line):
        start_gaussians(replace(NANO, **change), seed=0)
