"""Pictures of Gaussians: closed forms, a slow reference in the test's own words, and laws that always hold."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from atoken.assets import splat_lists, splat_numba, splat_torch
from atoken.assets.cameras import Camera, four_views, look_at
from atoken.assets.gaussians import SH_DEGREE_0, Gaussians
from atoken.assets.splat import over, render, render_views, renderer_for
from atoken.assets.splat_projection import View, project, project_arrays
from atoken.errors import InputError

Draw = Callable[[Gaussians, Camera, int, int], Tensor]


def in_torch(gaussians: Gaussians, camera: Camera, height: int, width: int) -> Tensor:
    return render(gaussians, camera, height, width, renderer="torch").detach()


both = pytest.mark.parametrize("draw", [render, in_torch], ids=["compiled", "torch"])
SOUTH = look_at((0, -2, 0))
"""Looks along +y: +x is right in the picture, +z is up."""


def made(
    means: list[list[float]],
    scales: float | list[list[float]] = 0.02,
    opacities: float | list[float] = 0.9,
    colours: list[list[float]] | None = None,
    rotations: list[list[float]] | None = None,
) -> Gaussians:
    count = len(means)
    colour = torch.tensor(colours or [[1.0, 1.0, 1.0]] * count)
    return Gaussians.of(
        means=torch.tensor(means, dtype=torch.float32),
        features_dc=(colour - 0.5) / SH_DEGREE_0,
        scales=torch.tensor(scales).expand(count, 3) if isinstance(scales, float) else torch.tensor(scales),
        rotations=torch.tensor(rotations or [[1.0, 0, 0, 0]] * count),
        opacities=torch.tensor(opacities).expand(count),
    )


def scattered(count: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Gaussians:
    random = torch.Generator().manual_seed(seed)
    return Gaussians.of(
        means=torch.rand(count, 3, generator=random) - 0.5,
        features_dc=torch.randn(count, 3, generator=random),
        scales=(torch.randn(count, 3, generator=random) - 3.5).exp(),
        rotations=torch.randn(count, 4, generator=random),
        opacities=torch.rand(count, generator=random) * 0.98 + 0.01,
    ).to(dtype=dtype)


def reference(gaussians: Gaussians, camera: Camera, height: int, width: int) -> np.ndarray:
    """One Gaussian after another over the whole picture, float64, by the matrices of the EWA papers."""
    g = gaussians.to(dtype=torch.float64)
    turn = camera.world_to_camera[:3, :3]
    places = g.means.numpy() @ turn.T + camera.world_to_camera[:3, 3]
    focal = np.diag(camera.intrinsics)[:2] * (width, height)
    rows, columns = np.mgrid[:height, :width]
    light, picture = np.ones((height, width)), np.zeros((height, width, 4))
    done = np.zeros((height, width), bool)
    for i in np.argsort(places[:, 2], kind="stable"):
        x, y, z = places[i]
        if z <= 0.2:
            continue
        w, *v = g.rotations[i].numpy()
        cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
        own = np.eye(3) + 2 * w * cross + 2 * cross @ cross  # Rodrigues' formula
        covariance = own @ np.diag(g.scales[i].numpy() ** 2) @ own.T
        slope = np.clip([x / z, y / z], -0.65 / np.diag(camera.intrinsics)[:2], 0.65 / np.diag(camera.intrinsics)[:2])
        jacobian = np.array([[focal[0] / z, 0, -focal[0] * slope[0] / z], [0, focal[1] / z, -focal[1] * slope[1] / z]])
        flat = jacobian @ turn @ covariance @ turn.T @ jacobian.T
        filtered = flat + 0.1 * np.eye(2)
        if np.linalg.det(flat) <= 1e-6:
            continue
        strength = g.opacities[i].item() * math.sqrt(np.linalg.det(flat) / np.linalg.det(filtered))
        centre = focal * (x / z, y / z) + np.array([width, height]) / 2 - 0.5
        radius = math.ceil(3 * math.sqrt(np.linalg.eigvalsh(filtered)[1]))
        dx, dy = centre[0] - columns, centre[1] - rows
        inverse = np.linalg.inv(filtered)
        power = -0.5 * (inverse[0, 0] * dx**2 + 2 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy**2)
        alpha = np.minimum(strength * np.exp(power), 0.99)
        # Whole tiles of 16 pixels that the square of 3 sigma touches.
        for offset, at in ((centre[0], columns), (centre[1], rows)):
            first, last = math.floor(max(offset - radius, 0) / 16), math.floor(max(offset + radius + 15, 0) / 16)
            alpha = np.where((at // 16 >= first) & (at // 16 < last), alpha, 0)
        alpha = np.where(alpha < 1 / 255, 0, alpha)
        done |= light * (1 - alpha) < 1e-4
        alpha = np.where(done, 0, alpha)
        weight = (light * alpha)[..., None]
        picture += weight * np.append(np.maximum(g.features_dc[i].numpy() * 0.28209479177387814 + 0.5, 0), 1)
        light *= 1 - alpha
    return picture


@both
def test_one_gaussian_is_a_bell_where_it_should_be(draw: Draw) -> None:
    # 33 pixels: the middle of pixel 16 is the middle of the picture. f = 33 / (2 tan 20 deg) pixels, distance 2.
    picture = draw(made([[0, 0, 0]], 0.1, 0.8, [[0.9, 0.5, 0.1]]), SOUTH, 33, 33)
    variance = (33 * 0.5 / math.tan(math.radians(20)) / 2 * 0.1) ** 2
    rows, columns = np.mgrid[:33, :33] - 16
    alpha = 0.8 * variance / (variance + 0.1) * np.exp(-(rows**2 + columns**2) / 2 / (variance + 0.1))
    alpha[alpha < 1 / 255] = 0
    assert 150 < (alpha > 0).sum() < 33 * 33
    np.testing.assert_allclose(picture[..., 3], alpha, atol=2e-6)
    np.testing.assert_allclose(picture[..., :3], alpha[..., None] * [0.9, 0.5, 0.1], atol=2e-6)


@both
def test_the_nearer_of_two_hides_the_other(draw: Draw) -> None:
    # In the set's order the far one comes first.
    two = made([[0, 0.3, 0], [0, -0.3, 0]], 0.1, [0.6, 0.7], [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    picture = draw(two, SOUTH, 33, 33)[16, 16]
    focal = 33 * 0.5 / math.tan(math.radians(20))
    far, near = ((focal * 0.1 / z) ** 2 for z in (2.3, 1.7))
    behind, ahead = 0.6 * far / (far + 0.1), 0.7 * near / (near + 0.1)
    wanted = [ahead, 0, behind * (1 - ahead), 1 - (1 - ahead) * (1 - behind)]
    np.testing.assert_allclose(picture, wanted, atol=2e-6)


@both
def test_right_side_up_and_not_mirrored(draw: Draw) -> None:
    colours = {(1, 0, 0): (0.3, 0, 0), (0, 1, 0): (0, 0, 0.3), (0, 0, 1): (-0.3, 0, 0), (1, 1, 0): (0, 0, -0.3)}
    picture = draw(
        made([list(map(float, at)) for at in colours.values()], colours=[list(map(float, c)) for c in colours]),
        SOUTH,
        64,
        64,
    )
    for colour, (x, _, z) in colours.items():
        focal = 64 * 0.5 / math.tan(math.radians(20))
        row, column = 31.5 - focal * z / 2, 31.5 + focal * x / 2
        seen = picture[round(row), round(column), :3]
        np.testing.assert_array_equal((seen > 0.3).int(), colour)


@both
@pytest.mark.parametrize(("height", "width"), [(40, 40), (17, 50)])
def test_equal_to_the_reference(draw: Draw, height: int, width: int) -> None:
    for seed, camera in enumerate([*four_views()[:2], look_at((0.7, -0.5, 0.4), fov=1.2)]):
        scene = scattered(120, seed)
        picture = draw(scene, camera, height, width)
        np.testing.assert_allclose(picture, reference(scene, camera, height, width), atol=2e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 300), st.floats(0.6, 3), st.sampled_from([(16, 16), (33, 47), (1, 1)]))
def test_compiled_and_torch_draw_the_same(seed: int, count: int, distance: float, size: tuple[int, int]) -> None:
    scene = scattered(count, seed)
    camera = look_at((0.3 * distance, -0.8 * distance, 0.5 * distance))
    compiled, slow = render(scene, camera, *size), in_torch(scene, camera, *size)
    assert compiled.shape == (*size, 4)
    torch.testing.assert_close(compiled, slow, rtol=0, atol=1e-5)
    assert (compiled[..., 3] >= 0).all()
    assert (compiled[..., 3] <= 1).all()


def test_compiled_and_torch_draw_the_same_of_many() -> None:
    scene = scattered(20_000)
    torch.testing.assert_close(render(scene, SOUTH, 96, 96), in_torch(scene, SOUTH, 96, 96), rtol=0, atol=1e-5)


def test_numpy_and_torch_project_to_the_same_bits() -> None:
    view = View(four_views()[1], 50, 70, 0.2, math.inf, 0.1)
    a, b = project_arrays(scattered(20_000), view), project(scattered(20_000), view)
    for name in ("centres", "conics", "opacities", "colours", "tiles"):
        assert np.array_equal(getattr(a, name), getattr(b, name).numpy()), name


@both
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_order_in_the_set_changes_no_bit(draw: Draw, seed: int) -> None:
    scene = scattered(60, seed)
    # A third share their depth, and some of these all but their colour.
    scene.means[:20] = torch.tensor([0.0, 0.1, 0.0])
    scene.log_scales[:10] = -3.0
    order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(draw(scene, SOUTH, 32, 32), draw(scene[order], SOUTH, 32, 32))


def test_threads_change_no_bit() -> None:
    before = torch.get_num_threads()
    pictures = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            pictures.append(render(scattered(500), SOUTH, 80, 80))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*pictures)


@pytest.mark.parametrize("part", ["means", "features_dc", "log_scales", "quaternions", "opacity_logits"])
def test_gradients_by_finite_differences(part: str) -> None:
    scene = scattered(5, 3, torch.float64)
    # Well inside the cuts, which have no derivative: bright enough, opaque nowhere, colours above 0.
    scene.log_scales[:] = scene.log_scales.clamp(-2.5, -1.5)
    scene.opacity_logits[:] = scene.opacity_logits.clamp(-1, 1)
    scene.features_dc[:] = scene.features_dc.abs()
    weights = torch.rand(9, 12, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss(values: Tensor) -> Tensor:
        return (render(replace(scene, **{part: values}), SOUTH, 9, 12) * weights).sum()

    assert torch.autograd.gradcheck(loss, getattr(scene, part).clone().requires_grad_(), eps=1e-7, atol=1e-5)


def plain(gaussians: Gaussians, camera: Camera, height: int, width: int) -> Tensor:
    """Every Gaussian at every pixel of its tiles, in the plainest torch; autograd does the rest."""
    seen = project(gaussians, View(camera, height, width, 0.2, math.inf, 0.1))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([columns, rows], dim=-1).reshape(1, -1, 2)
    dx, dy = (seen.centres[:, None] - pixels).unbind(-1)
    a, b, c = seen.conics[:, None].unbind(-1)
    alpha = (seen.opacities[:, None] * (-0.5 * (a * dx**2 + c * dy**2) - b * dx * dy).exp()).clamp_max(0.99)
    inside = (pixels // 16 >= seen.tiles[:, None, :2]) & (pixels // 16 < seen.tiles[:, None, 2:])
    alpha = torch.where((alpha >= 1 / 255) & inside.all(-1), alpha, 0)
    light = torch.cat([torch.ones(1, alpha.shape[1]), (1 - alpha).cumprod(0)])
    weights = torch.where(light[1:] >= 1e-4, alpha * light[:-1], 0)
    return torch.cat([weights.T @ seen.colours, weights.sum(0)[:, None]], 1).reshape(height, width, 4)


@pytest.mark.parametrize("depth", [3, 256])
def test_gradients_are_those_of_the_plain_formula(monkeypatch: pytest.MonkeyPatch, depth: int) -> None:
    # With what finite differences must avoid: borders of tiles, alphas held at 0.99, pixels that are done.
    monkeypatch.setattr(splat_torch, "_CHUNKS", {"cpu": (64 * depth * 5, depth)})
    scene = scattered(400, dtype=torch.float64)
    scene.opacity_logits[::3] = 9.0
    weights = torch.randn(37, 50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = []
    for draw in (render, plain):
        parts = [getattr(scene, name).clone().requires_grad_() for name in scene.__slots__]
        picture = draw(Gaussians(*parts), four_views()[1], 37, 50)
        (picture * weights).sum().backward()
        found.append([picture.detach(), *(part.grad for part in parts)])
    opaque = found[0][0][..., 3]
    assert (opaque > 0.99).any()
    assert (opaque < 0.5).any()
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 500), st.sampled_from([(16, 16), (33, 47), (1, 1)]), st.booleans())
@example(2, 1, (1, 1), False)  # the one Gaussian lies beside the picture
@example(99999, 95, (33, 47), True)  # either is 1e-4 away from float64, of gradients up to 3.3
def test_compiled_and_torch_have_the_same_gradients(seed: int, count: int, size: tuple[int, int], dense: bool) -> None:
    scene = scattered(count, seed)
    if dense:  # alphas held at 0.99, pixels that are done
        scene.opacity_logits[::2] = 9.0
        scene.log_scales.add_(1)
    weights = torch.randn(*size, 4, generator=torch.Generator().manual_seed(seed))
    found = []
    for renderer in ("compiled", "torch"):
        parts = [getattr(scene, name).clone().requires_grad_() for name in scene.__slots__]
        picture = render(Gaussians(*parts), four_views()[seed % 4], *size, renderer=renderer)
        (picture * weights).sum().backward()
        found.append([picture.detach(), *(part.grad for part in parts)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * max(1.0, float(theirs.abs().max())))


def test_threads_change_no_bit_of_a_gradient() -> None:
    before, grads = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            scene = scattered(500)
            scene.means.requires_grad_()
            render(scene, SOUTH, 80, 80, renderer="compiled").square().sum().backward()
            grads.append(scene.means.grad)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*grads)


@pytest.mark.parametrize("renderer", ["compiled", "torch"])
def test_order_in_the_set_changes_no_bit_of_a_gradient(renderer: Any) -> None:
    scene, order = scattered(300), torch.randperm(300, generator=torch.Generator().manual_seed(0))
    grads = []
    for given_ in (scene, scene[order]):
        colours = given_.features_dc.clone().requires_grad_()
        render(replace(given_, features_dc=colours), SOUTH, 40, 30, renderer=renderer).square().sum().backward()
        grads.append(colours.grad)
    assert torch.equal(grads[0][order], grads[1])


@pytest.mark.parametrize("pairs", [1, 100, 10**6])
def test_bands_change_no_bit(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    # A chunk for each block, so that blocks have the same neighbours however the picture is cut.
    monkeypatch.setattr(splat_torch, "_CHUNKS", {"cpu": (64, 64)})
    pictures = []
    for bound in (2**24, pairs):
        monkeypatch.setattr(splat_lists, "_PAIRS", bound)
        pictures.append(in_torch(scattered(200), SOUTH, 70, 41))
    assert torch.equal(*pictures)


def test_several_cameras_at_once_are_the_same_as_one_by_one() -> None:
    cameras = [*four_views(), look_at((0.7, -0.5, 0.4), fov=1.2)]
    scene = scattered(500)
    for renderer in ("compiled", "torch"):
        together = render_views(scene, cameras, 37, 50, renderer=renderer)
        alone = torch.stack([render(scene, camera, 37, 50, renderer=renderer) for camera in cameras])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    assert len({picture.numpy().tobytes() for picture in together}) == 5


def test_gradients_of_several_cameras_add_up() -> None:
    grads = []
    for cameras in ([[four_views()[0], four_views()[1]]], [[four_views()[0]], [four_views()[1]]]):
        for dtype in (torch.float64, torch.float32):
            scene = scattered(100, dtype=dtype)
            scene.means.requires_grad_()
            for some in cameras:
                render_views(scene, some, 32, 32).square().sum().backward()
            assert scene.means.grad is not None
            grads.append(scene.means.grad.double())
    torch.testing.assert_close(grads[0], grads[2], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(grads[1], grads[3], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-2, atol=1e-2)


def test_many_blocks_go_through_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """What trains on CUDA launches a kernel for each of these, but for views."""
    monkeypatch.setattr(splat_torch, "_CHUNKS", {"cpu": splat_torch._CHUNKS["cuda"]})

    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.calls += 1
            return function(*args, **kwargs or {})

    calls = []
    for side in (64, 256):
        with Count() as count:
            in_torch(scattered(2000), SOUTH, side, side)
        calls.append(count.calls)
    # Tile by tile it was 90 operations for a tile: 16 and 256 tiles.
    assert calls[1] < 1.5 * calls[0]
    assert calls[1] < 1000


def test_training_finds_a_picture() -> None:
    wanted = render(scattered(40, 1), SOUTH, 32, 32)
    scene = scattered(40, 2)
    parts = [getattr(scene, name).clone().requires_grad_() for name in scene.__slots__]
    optimiser = torch.optim.Adam(parts, 0.03)
    losses = []
    for _ in range(25):
        loss = (render(Gaussians(*parts), SOUTH, 32, 32) - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.25 * losses[0]


@pytest.mark.parametrize("renderer", ["compiled", "torch"])
def test_memory_of_gradients_does_not_grow_with_the_picture(renderer: Any) -> None:
    scene = scattered(3000)
    scene.means.requires_grad_()

    def saved(side: int) -> int:
        seen: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            render(scene, SOUTH, side, side, renderer=renderer)
        return sum(seen.values())

    # All weights of a 64x64 picture, kept once, are 3000 * 64 * 64 * 4 bytes = 49 MB.
    assert saved(64) < 5e6


@both
def test_behind_the_camera_and_before_the_near_plane(draw: Draw) -> None:
    nothing = made([[0, -2.5, 0], [0, -1.85, 0], [0, -2, 0]], 0.05)
    assert not draw(nothing, SOUTH, 20, 20).any()
    assert draw(made([[0, -1.75, 0]], 0.05), SOUTH, 20, 20).any()


def test_planes_are_as_told() -> None:
    two = made([[0, -0.5, 0], [0, 0.5, 0]], 0.1, 0.5, [[1.0, 0, 0], [0, 0, 1.0]])
    near = render(two, SOUTH, 9, 9, far=1.6)[4, 4]
    far = render(two, SOUTH, 9, 9, near=1.5)[4, 4]
    assert near[0] > 0.3
    assert near[2] == 0
    assert far[2] > 0.3
    assert far[0] == 0


@both
def test_none_make_an_empty_picture(draw: Draw) -> None:
    picture = draw(scattered(0), SOUTH, 5, 7)
    assert picture.shape == (5, 7, 4)
    assert not picture.any()


@both
@pytest.mark.parametrize("scale", [3.0, 1e4, 1e8])
def test_huge_gaussians_fill_the_picture(draw: Draw, scale: float) -> None:
    picture = draw(made([[0.1, 0, 0.1]], scale, 0.5), SOUTH, 20, 40)
    np.testing.assert_allclose(picture, 0.5, atol=5e-2 if scale == 3 else 1e-6)


def test_gaussians_too_large_for_the_dtype_are_refused() -> None:
    for far in (False, True):
        scene = made([[0, 0, 0]], 1e15)
        scene.means.requires_grad_(far)
        with pytest.raises(InputError, match="too large to be projected"):
            render(scene, SOUTH, 20, 20)


@both
def test_a_speck_is_not_drawn_and_a_dense_heap_is_opaque(draw: Draw) -> None:
    assert not draw(made([[0, 0, 0]], 1e-5, 0.99), SOUTH, 33, 33).any()
    heap = draw(made([[0, 0.001 * i, 0] for i in range(60)], 0.2, 0.9), SOUTH, 9, 9)
    # Light never falls below 1e-4, and one of 0.9 that would take it there is not drawn any more.
    assert 1 - 1e-3 <= heap[4, 4, 3] < 1 - 1e-4
    assert draw(made([[0, 0, 0]], 1.0, 0.9999), SOUTH, 9, 9)[4, 4, 3] == pytest.approx(0.99)


def test_a_wider_kernel_dims_and_widens() -> None:
    sharp, soft = (render(made([[0, 0, 0]], 0.02), SOUTH, 33, 33, kernel=kernel)[..., 3] for kernel in (0.0, 2.0))
    assert soft[16, 16] < sharp[16, 16]
    assert (soft > 0).sum() > (sharp > 0).sum()
    # In the plane both spread the same amount of alpha: opacity times area, but for the cut tails.
    assert sharp[16, 16] == pytest.approx(0.9, abs=1e-4)


def test_fast_path_needs_no_gradient() -> None:
    scene = scattered(50)
    scene.features_dc.requires_grad_()
    assert render(scene, SOUTH, 16, 16).requires_grad
    with torch.no_grad():
        fast = render(scene, SOUTH, 16, 16)
    assert not fast.requires_grad
    torch.testing.assert_close(fast, splat_numba.blend(project_arrays(scene, View(SOUTH, 16, 16, 0.2, 9, 0.1)), 16, 16))


@pytest.mark.parametrize("part", ["means", "features_dc", "log_scales", "quaternions", "opacity_logits"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("gradients", [False, True])
def test_nan_is_named(part: str, value: float, gradients: bool) -> None:
    scene = scattered(9)
    getattr(scene, part).view(9, -1)[4, 0] = value
    scene.features_dc.requires_grad_(gradients)
    with pytest.raises(InputError, match=rf"{part} is NaN or infinite in 1 of 9 \(the first is number 4\)"):
        render(scene, SOUTH, 16, 16)


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"height": 0}, "at least one pixel, not 0x8"),
        ({"near": 0.0}, "0 < near < far"),
        ({"near": 2.0, "far": 1.0}, "got 2.0 and 1.0"),
        ({"near": math.nan}, "0 < near < far"),
        ({"far": math.nan}, "0 < near < far"),
        ({"kernel": -0.1}, "kernel must be 0 or a positive"),
        ({"kernel": math.nan}, "kernel must be 0 or a positive"),
        ({"camera": Camera(np.eye(4), np.array([[1, 0.1, 0.5], [0, 1, 0.5], [0, 0, 1]]))}, "splats need intrinsics"),
        ({"camera": Camera(np.eye(4), np.diag([-1.0, 1, 1]))}, "splats need intrinsics"),
    ],
)
def test_bad_arguments_are_told(given_: dict[str, object], said: str) -> None:
    arguments: dict[str, object] = {"camera": SOUTH, "height": 8, "width": 8}
    with pytest.raises(InputError, match=said):
        render(scattered(1), **arguments | given_)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("renderer", "gradients", "said"),
    [
        ("compiled", True, 'the Gaussians are torch.float64 and want gradients; use renderer="torch"'),
        ("gsplat", False, "gsplat draws on CUDA alone, and the Gaussians are on cpu"),
        ("opengl", False, "drawn by auto, compiled, torch, gsplat, not 'opengl'"),
    ],
)
def test_a_renderer_that_cannot_draw_is_told(renderer: Any, gradients: bool, said: str) -> None:
    scene = scattered(3, dtype=torch.float64)
    scene.means.requires_grad_(gradients)
    with pytest.raises(InputError, match=said):
        render(scene, SOUTH, 8, 8, renderer=renderer)


def test_auto_takes_torch_for_gradients_in_float64_alone() -> None:
    for dtype in (torch.float32, torch.float64):
        scene = scattered(3, dtype=dtype)
        assert renderer_for(scene) == "compiled"
        scene.means.requires_grad_()
        assert renderer_for(scene) == ("compiled" if dtype == torch.float32 else "torch")
    with torch.no_grad():
        assert renderer_for(scene) == "compiled"
    assert renderer_for(scattered(3), "torch") == "torch"


def test_no_camera_is_told() -> None:
    with pytest.raises(InputError, match="at least one camera"):
        render_views(scattered(1), [], 8, 8)


def test_half_precision_is_refused() -> None:
    with pytest.raises(InputError, match=r"float32 or float64, not torch\.bfloat16"):
        render(scattered(3, dtype=torch.bfloat16), SOUTH, 8, 8)


def test_compiled_code_runs_where_it_cannot_be_kept() -> None:
    # numba looks for a place to keep code beside the source file, and this function has none.
    place: dict[str, Callable[[np.ndarray], None]] = {}
    exec("def double(values):\n    values *= 2", place)
    values = np.ones(3, np.float32)
    splat_numba.compiled(place["double"])(values)
    assert values.tolist() == [2, 2, 2]


def test_over_a_background() -> None:
    picture = torch.tensor([[[0.2, 0.1, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0]]])
    np.testing.assert_allclose(over(picture, (1, 0.5, 0)), [[[0.7, 0.35, 0.0], [1, 0.5, 0]]], rtol=1e-6)
    with pytest.raises(InputError, match="red, green and blue"):
        over(picture, (1, 1, 1, 1))
