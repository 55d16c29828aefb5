"""Splatting beside gsplat: its projection in torch, which runs without CUDA, and the whole picture where CUDA is."""

import importlib
import inspect
import math
import re
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atoken.assets import splat_gsplat
from atoken.assets.cameras import Camera, four_views, look_at
from atoken.assets.gaussians import Gaussians
from atoken.assets.splat import render, render_views, renderer_for
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


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What was found out about gsplat is found out again."""
    splat_gsplat._gsplat.cache_clear()
    yield
    splat_gsplat._gsplat.cache_clear()


def test_gsplat_is_called_as_it_wants(theirs: Any, forgotten: None, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = inspect.signature(importlib.import_module("gsplat").rasterization)
    calls: list[dict[str, Any]] = []

    def rasterization(**given: Any) -> tuple[Tensor, Tensor, dict[str, Any]]:
        calls.append(wanted.bind(**given).arguments)
        return torch.full((2, 4, 6, 3), 0.25), torch.full((2, 4, 6, 1), 0.5), {}

    monkeypatch.setitem(sys.modules, "gsplat", SimpleNamespace(rasterization=rasterization))
    monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", SimpleNamespace(_C=object()))
    scene, cameras = scattered(5), CAMERAS[1:]
    pictures = splat_gsplat.render(scene, [View(camera, 4, 6, 0.2, math.inf, 0.1) for camera in cameras])
    assert torch.equal(pictures, torch.tensor([0.25, 0.25, 0.25, 0.5]).expand(2, 4, 6, 4))
    (call,) = calls
    assert call["rasterize_mode"] == "antialiased"
    assert (call["width"], call["height"], call["eps2d"], call["near_plane"]) == (6, 4, 0.1, 0.2)
    assert call["far_plane"] < math.inf
    assert torch.equal(call["scales"], scene.scales)
    assert torch.equal(call["opacities"], scene.opacities)
    np.testing.assert_allclose(call["Ks"], [pixels(camera, 4, 6) for camera in cameras], rtol=1e-6)
    np.testing.assert_allclose(call["viewmats"], [camera.world_to_camera for camera in cameras], atol=1e-6)
    assert {value.dtype for value in call.values() if isinstance(value, Tensor)} == {torch.float32}


def test_why_gsplat_is_missing_is_told(forgotten: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gsplat", None)  # as if it were not installed
    assert re.match(r"gsplat cannot be imported \(.*gsplat", splat_gsplat.missing() or "")
    splat_gsplat._gsplat.cache_clear()
    monkeypatch.setitem(sys.modules, "gsplat", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", SimpleNamespace(_C=None))
    assert "neither compiled CUDA code nor a CUDA compiler" in (splat_gsplat.missing() or "")


class TestOnCuda:
    """Needs a GPU; gsplat only where it says so, so that the torch path is tested without it."""

    pytestmark = pytest.mark.cuda

    @pytest.fixture
    def without_gsplat(self, forgotten: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "gsplat", None)

    @pytest.fixture
    def with_gsplat(self) -> None:
        if reason := splat_gsplat.missing():
            pytest.skip(reason)

    @pytest.mark.parametrize("camera", CAMERAS, ids=["yaw 0", "yaw 90", "close"])
    def test_pictures_of_gsplat_are_those_of_the_processor(self, with_gsplat: None, camera: Camera) -> None:
        # Below 0.98 opaque, so that the caps on alpha (0.999 there, 0.99 here) do not differ.
        scene = scattered(3000)
        there = scene.to("cuda")
        assert renderer_for(there) == "gsplat"
        apart = render(there, camera, 128, 160).cpu() - render(scene, camera, 128, 160, renderer="torch")
        # A Gaussian's border beyond 3 sigma is at most 0.0111 of alpha, which one cuts by tiles and the other does not.
        assert apart.abs().mean() < 1e-3
        assert apart.abs().max() < 0.05

    def test_several_cameras_of_gsplat_are_the_same_as_one_by_one(self, with_gsplat: None) -> None:
        scene = scattered(500).to("cuda")
        together = render_views(scene, CAMERAS, 40, 56, renderer="gsplat")
        alone = torch.stack([render(scene, camera, 40, 56, renderer="gsplat") for camera in CAMERAS])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)

    def test_gsplat_draws_none_as_nothing(self, with_gsplat: None) -> None:
        assert not render(scattered(0).to("cuda"), CAMERAS[0], 8, 8, renderer="gsplat").any()

    def test_torch_draws_where_gsplat_is_not_installed(self, without_gsplat: None) -> None:
        scene = scattered(10).to("cuda")
        assert renderer_for(scene) == "torch"
        with pytest.raises(InputError, match=r"gsplat cannot be imported \(.*\); pip install gsplat, or use renderer"):
            render(scene, CAMERAS[0], 8, 8, renderer="gsplat")
        with pytest.raises(InputError, match="the Gaussians are on cuda:0"):
            render(scene, CAMERAS[0], 8, 8, renderer="compiled")

    @pytest.mark.parametrize("camera", CAMERAS, ids=["yaw 0", "yaw 90", "close"])
    def test_pictures_of_torch_are_those_of_the_processor(self, camera: Camera) -> None:
        # In float64: a Gaussian at the cut of alpha may be drawn by one rounding and not by another.
        scene = scattered(3000, torch.float64)
        here, there = (render(scene.to(device), camera, 128, 160, renderer="torch") for device in ("cpu", "cuda"))
        torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-9)
        single = render(scene.to("cuda", torch.float32), camera, 128, 160, renderer="torch").cpu()
        assert (single - here).abs().mean() < 1e-5
        assert (single - here).abs().max() < 0.01

    @pytest.mark.parametrize("renderer", ["torch", "gsplat"])
    def test_gradients_are_those_of_the_processor(self, renderer: Any, request: pytest.FixtureRequest) -> None:
        if renderer == "gsplat":
            request.getfixturevalue("with_gsplat")
        scene, weights = scattered(200), torch.rand(48, 48, 4, generator=torch.Generator().manual_seed(1))
        grads = []
        for device, drawn_by in (("cpu", "torch"), ("cuda", renderer)):
            parts = [getattr(scene, name).detach().to(device, copy=True).requires_grad_() for name in scene.__slots__]
            picture = render(Gaussians(*parts), CAMERAS[0], 48, 48, renderer=drawn_by)
            (picture * weights.to(device)).sum().backward()
            grads.append([part.grad.cpu().flatten() for part in parts])
        for name, here, there in zip(scene.__slots__, *grads, strict=True):
            assert torch.nn.functional.cosine_similarity(here, there, dim=0) > 0.99, name
            # gsplat does not cut the borders of tiles.
            assert 0.9 < there.norm() / here.norm() < 1.1, name

    def test_gradients_of_torch_are_the_same_bits_each_time_and_under_autocast(self) -> None:
        grads = []
        for autocast in (False, False, True):
            scene = scattered(2000).to("cuda")
            colours = scene.features_dc.requires_grad_()
            with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
                render(scene, CAMERAS[0], 96, 96, renderer="torch").square().sum().backward()
            grads.append(colours.grad)
        assert torch.equal(grads[0], grads[1])
        torch.testing.assert_close(grads[0], grads[2], rtol=1e-5, atol=1e-6)
