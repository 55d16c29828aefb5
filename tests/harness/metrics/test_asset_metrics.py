"""Metrics of 3D assets against torchmetrics, scikit-image and the definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)
from torchmetrics.functional.image import (
    peak_signal_noise_ratio as torch_psnr,
)

from harness.errors import BenchError
from harness.metrics.asset_base import AssetMeasured, AssetMetric, AssetTotals, ViewPair, laid_on, premultiplied
from harness.metrics.asset_column import Count, OnGround
from harness.metrics.asset_psnr import AssetPsnr, ForegroundFraction
from harness.metrics.families import FAMILIES
from harness.metrics.ms_ssim import SMALLEST, MsSsim, ms_ssim, to_multiple
from harness.metrics.registry import build_asset_metrics
from harness.metrics.ssim import ClipSsim
from harness.protocol import MetricSpec
from harness.weights import WeightStore
from reports import numbers
from tests.harness import fakes

TOTALS = AssetTotals(tokens=30, voxels=20, gaussians=None)
CPU = torch.device("cpu")


def view(seed: int, side: int = 48, *, radius: float = 0.3) -> np.ndarray:
    """A textured disc with a soft border: straight uint8 RGBA."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    alpha = np.clip((radius - np.hypot(x, y)) * side + 0.5, 0, 1)
    colours = 127 + 90 * np.sin(12 * x[..., None] * rng.random(3) + 9 * y[..., None] + 6 * rng.random(3))
    colours += rng.normal(0, 8, colours.shape)
    picture = np.concatenate([colours, 255 * alpha[..., None]], axis=2)
    picture[alpha == 0] = 0
    return np.clip(picture.round(), 0, 255).astype(np.uint8)


def pairs(count: int = 3, side: int = 48, radius: float = 0.3) -> list[ViewPair]:
    made = []
    for seed in range(count):
        original = premultiplied(view(seed, side, radius=radius), CPU)
        noise = torch.from_numpy(np.random.default_rng(100 + seed).normal(0, 0.04 * (1 + seed), (side, side, 4)))
        made.append(ViewPair(original, (original + noise.float() * (original[..., 3:] > 0)), "half-even"))
    return made


def measure(metric: AssetMetric, made: list[ViewPair]) -> AssetMeasured:
    meter = metric.start()
    for pair in made:
        meter.update(pair)
    return meter.finish(TOTALS)


def pixels(pair: ViewPair, ground: str) -> list[np.ndarray]:
    return [image[0].permute(1, 2, 0).numpy() for image in pair.on(ground)]


def test_views_lie_on_their_ground() -> None:
    straight = view(0)
    alpha = straight[..., 3:].astype(float) / 255
    for ground, level in (("black", 0), ("white", 255)):
        expected = np.rint(straight[..., :3] * alpha + level * (1 - alpha))
        laid = laid_on(premultiplied(straight, CPU), ground, "half-even")[0].permute(1, 2, 0).numpy()
        assert np.abs(laid - expected).max() <= 1  # ties of float32
        solid = alpha[..., 0] == 1
        np.testing.assert_array_equal(laid[solid], straight[..., :3][solid])
        assert (laid[alpha[..., 0] == 0] == level).all()


@pytest.mark.parametrize("ground", ["black", "white"])
def test_psnr_of_views_is_the_mean_of_their_decibel(ground: str) -> None:
    made = pairs()
    found = measure(AssetPsnr(name="PSNR", resamples=10, background=ground), made)
    expected = [peak_signal_noise_ratio(*pixels(pair, ground), data_range=255) for pair in made]
    np.testing.assert_allclose(found.views["PSNR"], expected, rtol=1e-12)
    assert found.columns["PSNR"] == pytest.approx(np.mean(expected), rel=1e-12)


def test_psnr_of_an_asset_is_torchmetrics_over_the_views_of_a_call() -> None:
    made = pairs()
    found = measure(AssetPsnr(name="PSNR", resamples=10, mse="asset"), made)
    before, after = (torch.cat([pair.on("black")[k] for pair in made]).double() / 255 for k in (0, 1))
    assert found.columns["PSNR"] == pytest.approx(float(torch_psnr(after, before, data_range=1.0)), rel=1e-6)
    assert found.columns["PSNR"] < found.views["PSNR"].mean()


def test_the_foreground_is_what_the_original_covers() -> None:
    made = pairs()
    found = measure(AssetPsnr(name="PSNR", resamples=10, foreground=True), made)
    for pair, value in zip(made, found.views["PSNR"], strict=True):
        before, after = (image.astype(float) for image in pixels(pair, "black"))
        inside = pair.foreground.numpy()
        assert 0 < inside.mean() < 0.5
        assert value == pytest.approx(10 * np.log10(255**2 / ((before - after)[inside] ** 2).mean()))
    fraction = measure(ForegroundFraction(name="share", resamples=10), made)
    assert fraction.columns["share"] == pytest.approx(np.mean([pair.foreground.double().mean() for pair in made]))
    whole = measure(AssetPsnr(name="PSNR", resamples=10), made)
    assert (found.views["PSNR"] < whole.views["PSNR"]).all()


@given(st.floats(0.25, 0.45), st.floats(0.3, 0.7))
@settings(deadline=None, max_examples=25)
def test_black_ground_raises_psnr_of_small_assets_and_not_the_foregrounds(large: float, shrink: float) -> None:
    """The law that PROTOCOLS warns of: one error per covered pixel, less of a picture covered."""
    values: dict[bool, list[float]] = {False: [], True: []}
    for radius in (large, large * shrink):
        original = premultiplied(view(0, 64, radius=radius), CPU)
        off = original.clone()
        off[..., :3] *= 0.8
        pair = ViewPair(original, off, "half-even")
        for foreground, found in values.items():
            metric = AssetPsnr(name="x", resamples=10, foreground=foreground)
            found.append(measure(metric, [pair]).columns["x"])
    assert values[False][1] > values[False][0]
    assert abs(values[True][1] - values[True][0]) < values[False][1] - values[False][0]


def test_a_view_that_shows_nothing_is_left_out_of_the_foreground_alone() -> None:
    empty = torch.zeros(48, 48, 4)
    made = [*pairs(2), ViewPair(empty, empty, "half-even")]
    metric = AssetPsnr(name="PSNR", resamples=10, foreground=True)
    found = measure(metric, made)
    assert np.isnan(found.views["PSNR"]).tolist() == [False, False, True]
    assert found.columns["PSNR"] == measure(metric, pairs(2)).columns["PSNR"]
    nothing = measure(metric, made[2:])
    assert np.isnan(nothing.columns["PSNR"])
    (cell,) = metric.cells({"PSNR": np.array([nothing.columns["PSNR"]])}, {}, seed=0)
    assert (cell.value, cell.absent) == (None, "no view shows the asset")


def test_identical_views_are_infinite_and_counted() -> None:
    original = premultiplied(view(0), CPU)
    metric = AssetPsnr(name="PSNR", resamples=10)
    value = measure(metric, [ViewPair(original, original.clone(), "half-even")]).columns["PSNR"]
    (cell,) = metric.cells({"PSNR": np.array([value, 20.0])}, {}, seed=0)
    assert cell.value == float("inf")
    assert cell.parameters["identical"] == "a view identical: 1 of 2 assets"


def test_ssim_of_views() -> None:
    made = pairs()
    gaussian = measure(OnGround(ClipSsim(name="SSIM", resamples=10), "white"), made)
    for pair, value in zip(made, gaussian.views["SSIM"], strict=True):
        before, after = (image.double() / 127.5 - 1 for image in pair.on("white"))
        assert value == pytest.approx(
            float(structural_similarity_index_measure(after, before, data_range=2.0)), abs=1e-5
        )
    box = measure(OnGround(ClipSsim(name="SSIM", resamples=10, flavour="skimage")), made)
    uniform = [structural_similarity(*pixels(pair, "black"), data_range=255, channel_axis=2) for pair in made]
    np.testing.assert_allclose(box.views["SSIM"], uniform, atol=1e-6)
    assert box.columns["SSIM"] == pytest.approx(np.mean(uniform), abs=1e-6)


def test_parameters_say_ground_and_average() -> None:
    metric = OnGround(ClipSsim(name="SSIM", resamples=10), "white")
    (cell,) = metric.cells({"SSIM": np.array([0.5])}, {}, seed=0)
    assert cell.parameters["background"] == "white"
    assert cell.parameters["average"] == "mean over an asset's views, then over assets"
    assert cell.higher_is_better


def big(seed: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    side = max(height, width)
    pair = ViewPair(premultiplied(view(seed, side), CPU), torch.zeros(side, side, 4), "half-even")
    before = pair.on("black")[0][..., :height, :width]
    noise = torch.from_numpy(np.random.default_rng(seed).normal(0, 25, before.shape))
    return before, (before + noise).round().clamp(0, 255).byte()


@pytest.mark.parametrize("size", [(176, 176), (200, 181), (256, 320)])
def test_ms_ssim_is_that_of_torchmetrics(size: tuple[int, int]) -> None:
    before, after = (torch.cat(images) for images in zip(*(big(seed, *size) for seed in (0, 1)), strict=True))
    found = ms_ssim(before, after)
    for index, value in enumerate(found):
        one, other = (images[index : index + 1].double() / 255 for images in (before, after))
        expected = multiscale_structural_similarity_index_measure(other, one, data_range=1.0, normalize="relu")
        assert value == pytest.approx(float(expected), abs=1e-7)
    assert 0.2 < found.min() < found.max() < 0.99


def test_ms_ssim_of_equal_and_of_opposite_pictures() -> None:
    before, _ = big(3, 176, 176)
    assert ms_ssim(before, before) == pytest.approx(1.0, abs=1e-12)
    assert ms_ssim(before, 255 - before) == 0.0  # contrast below 0 counts as 0
    flat = torch.zeros_like(before)
    assert ms_ssim(flat, flat) == pytest.approx(1.0, abs=1e-12)


def test_ms_ssim_has_no_value_where_torchmetrics_refuses() -> None:
    before, after = big(0, SMALLEST - 1, 200)
    assert np.isnan(ms_ssim(before, after)).all()
    with pytest.raises(ValueError, match="must be larger than 160"):
        multiscale_structural_similarity_index_measure(after / 255, before / 255, data_range=1.0)
    metric = MsSsim(name="MS-SSIM", resamples=10)
    found = measure(metric, pairs())
    (cell,) = metric.cells({"MS-SSIM": np.array([found.columns["MS-SSIM"]])}, {}, seed=0)
    assert cell.absent == "views smaller than 176x176"


def test_odd_sides_are_brought_to_a_multiple_of_8() -> None:
    image = torch.arange(3 * 181 * 200, dtype=torch.int64).remainder(251).byte().view(1, 3, 181, 200)
    assert to_multiple(image).shape == (1, 3, 176, 200)
    assert to_multiple(image).dtype == torch.uint8
    torch.testing.assert_close(to_multiple(image[..., :176, :]), image[..., :176, :])
    pair = pairs(1, 181)[0]
    before, after = (to_multiple(images) for images in pair.on("black"))
    value = measure(MsSsim(name="x", resamples=10), [pair]).columns["x"]
    assert value == pytest.approx(ms_ssim(before, after)[0])


def test_counts() -> None:
    tokens = Count(name="tokens per asset", resamples=10, of="tokens")
    assert measure(tokens, []).columns == {"tokens per asset": 30.0}
    gaussians = Count(name="Gaussians", resamples=10, of="gaussians")
    column = np.array([measure(gaussians, []).columns["Gaussians"]])
    (cell,) = gaussians.cells({"Gaussians": column}, {}, seed=0)
    assert (cell.value, cell.absent, cell.applies) == (None, "the tokenizer makes no gaussians", False)
    # Reports show counts without decimals by their unit.
    for of in ("tokens", "voxels", "gaussians"):
        (cell,) = Count(name="n", resamples=10, of=of).cells({"n": np.array([3.0, 4.0])}, {}, seed=0)  # type: ignore[arg-type]
        assert cell.unit == FAMILIES["asset"][of].unit == of
        assert numbers.decimals_for([3.5], cell.unit) == 0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (MetricSpec(metric="psnr", name="x", options={"mse": "call"}), "x: mse is 'call'; there are: view, asset"),
        (MetricSpec(metric="psnr", name="x", options={"background": "grey"}), "background 'grey'; there are: black, w"),
        (MetricSpec(metric="ssim", name="x", options={"background": "grey"}), "x: background 'grey'"),
        (MetricSpec(metric="ms-ssim", name="x", options={"background": "grey"}), "x: background 'grey'"),
        (MetricSpec(metric="psnr", name="x", options={"foreground": "yes"}), "foreground is 'yes', not true or false"),
        (MetricSpec(metric="psnr", name="x", options={"epsilon": 1}), "psnr has no option epsilon"),
        (MetricSpec(metric="rfvd", name="x"), "the metric family 'rfvd' is of videos, not of assets"),
    ],
)
def test_what_does_not_exist_is_refused(spec: MetricSpec, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        build_asset_metrics(fakes.protocol(metrics=(spec,)), WeightStore(()), CPU)
