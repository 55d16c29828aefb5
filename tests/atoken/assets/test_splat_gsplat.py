"""Splatting beside gsplat: its projection in torch, which runs without CUDA, and the whole picture where CUDA is."""

import importlib
import inspect
import math
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atoken.assets import splat_gsplat
from atoken.assets.cameras import Camera, four_views, look_at
from atoken.assets.gaussians import Gaussians
from atoken.assets.splat import render
from atoken.assets.splat_projection import View, project
from atoken.errors import InputError

CAMERAS = [*four_views()[:2], look_at((0.7, -0.5, 0.4), fov=1.2)]


@pytest.fixture(scope="module")
def theirs() -> Any:
    """gsplat's functions in torch."""
    pytest.importorskip("gsplat", minversion="1.5", reason="gsplat, which draws on CUDA, is not installed")
    return importlib.import_module("gsplat.cuda._torch_impl")


def scattered(count: int, dtype: torch.dtype = torch.float32) -> Gaussians:
    random = torch.Generator().manual_seed(0)
    return Gaussians.of(
        means=torch.rand(count, 3, generator=random) - 0.5,
        features_dc=torch.randn(count, 3, generator=random),
        scales=(torch.randn(count, 3, generator=random) - 3.5).exp(),
        rotations=torch.randn(count, 4, generator=random),
        opacities=torch.rand(count, generator=random) * 0.48 + 0.5,
    ).to(dtype=dtype)


def pixels(camera: Camera, height: int, width: int) -> np.ndarray:
    return camera.intrinsics * [[width], [height], [1]]


@pytest.mark.parametrize("camera", CAMERAS, ids=["yaw 0", "yaw 90", "close"])
@pytest.mark.parametrize(("height", "width"), [(256, 256), (120, 200)])
def test_projection_is_that_of_gsplat(theirs: Any, camera: Camera, height: int, width: int) -> None:
    scene = scattered(500, torch.float64)
    covariances, _ = theirs._quat_scale_to_covar_preci(scene.quaternions, scene.scales, True, False)
    radii, centres, depths, conics, dimming = theirs._fully_fused_projection(
        scene.means,
        covariances,
        torch.from_numpy(camera.world_to_camera.copy())[None],
        torch.from_numpy(pixels(camera, height, width))[None],
        width,
        height,
        eps2d=0.1,
        near_plane=0.2,
        calc_compensations=True,
    )
    # What both draw, matched by their order in depth.
    ours = project(scene, View(camera, height, width, 0.2, math.inf, 0.1))
    shown = (radii[0] > 0).all(dim=-1) & (scene.opacities * dimming[0] >= 1 / 255)
    order = shown.nonzero().squeeze(1)
    order = order[depths[0][order].argsort()]
    # gsplat leaves out by its own extent, and we by tiles: each of the other's that lies within the picture is there.
    places = {tuple(round(v, 6) for v in row): i for i, row in enumerate(ours.centres.tolist())}
    found = [places.get(tuple(round(v, 6) for v in row)) for row in (centres[0][order] - 0.5).tolist()]
    both = [i for i in found if i is not None]
    assert len(both) > 0.95 * max(len(order), len(ours.opacities))
    assert both == sorted(both)
    kept = order[torch.tensor([i is not None for i in found])]
    torch.testing.assert_close(ours.centres[both], centres[0][kept] - 0.5, rtol=0, atol=1e-8)
    torch.testing.assert_close(ours.conics[both], conics[0][kept], rtol=1e-6, atol=1e-9)
    # mip-splatting adds 1e-6 to the ratio of determinants and to its denominator.
    torch.testing.assert_close(ours.opacities[both], (scene.opacities * dimming[0])[kept], rtol=0, atol=2e-4)


def test_gsplat_is_called_as_it_wants(theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = inspect.signature(importlib.import_module("gsplat").rasterization)
    calls: list[dict[str, Any]] = []

    def rasterization(**given: Any) -> tuple[Tensor, Tensor, dict[str, Any]]:
        calls.append(wanted.bind(**given).arguments)
        return torch.full((1, 4, 6, 3), 0.25), torch.full((1, 4, 6, 1), 0.5), {}

    monkeypatch.setitem(sys.modules, "gsplat", SimpleNamespace(rasterization=rasterization))
    scene = scattered(5)
    picture = splat_gsplat.render(scene, View(CAMERAS[0], 4, 6, 0.2, math.inf, 0.1))
    assert torch.equal(picture, torch.tensor([0.25, 0.25, 0.25, 0.5]).expand(4, 6, 4))
    (call,) = calls
    assert call["rasterize_mode"] == "antialiased"
    assert (call["width"], call["height"], call["eps2d"], call["near_plane"]) == (6, 4, 0.1, 0.2)
    assert call["far_plane"] < math.inf
    assert torch.equal(call["scales"], scene.scales)
    assert torch.equal(call["opacities"], scene.opacities)
    np.testing.assert_allclose(call["Ks"], pixels(CAMERAS[0], 4, 6)[None], rtol=1e-6)
    np.testing.assert_allclose(call["viewmats"], CAMERAS[0].world_to_camera[None], atol=1e-6)
    assert {value.dtype for value in call.values() if isinstance(value, Tensor)} == {torch.float32}


def test_without_gsplat_the_mend_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gsplat", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"cannot be imported \(.*gsplat.*\): pip install gsplat, or move them"):
        splat_gsplat.render(scattered(1), View(CAMERAS[0], 4, 6, 0.2, math.inf, 0.1))


@pytest.mark.cuda
@pytest.mark.parametrize("camera", CAMERAS, ids=["yaw 0", "yaw 90", "close"])
def test_pictures_on_cuda_are_those_of_the_processor(camera: Camera) -> None:
    pytest.importorskip("gsplat")
    # Below 0.98 opaque, so that the caps on alpha (0.999 there, 0.99 here) do not differ.
    scene = scattered(3000)
    here, there = render(scene, camera, 128, 160), render(scene.to("cuda"), camera, 128, 160).cpu()
    # A Gaussian's border beyond 3 sigma is at most 0.0111 of alpha, which one cuts by tiles and the other does not.
    assert (here - there).abs().mean() < 1e-3
    assert (here - there).abs().max() < 0.05


@pytest.mark.cuda
def test_gradients_on_cuda_are_those_of_the_processor() -> None:
    pytest.importorskip("gsplat")
    grads = []
    for device in ("cpu", "cuda"):
        scene = scattered(50).to(device)
        means = scene.means.requires_grad_()
        render(scene, CAMERAS[0], 48, 48).square().sum().backward()
        assert means.grad is not None
        grads.append(means.grad.cpu())
    assert torch.nn.functional.cosine_similarity(*(grad.flatten() for grad in grads), dim=0) > 0.99
