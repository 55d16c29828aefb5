"""PSNR and SSIM against scikit-image and torchmetrics, and the laws that any of them must keep."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from metric_inputs import disturbed, images, pairs_of
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from harness.errors import BenchError
from harness.metrics.psnr import Psnr, psnr
from harness.metrics.ssim import FLAVOURS, Ssim, ssim

RANGES = [((-1.0, 1.0), 2.0), ((0.0, 1.0), 1.0), ((0.0, 1.0), 2.0)]


def mapped(image: Tensor, interval: tuple[float, float]) -> Tensor:
    return image.double() / 255 * (interval[1] - interval[0]) + interval[0]


def gaussian(a: Tensor, b: Tensor, interval: tuple[float, float], data_range: float) -> float:
    """torchmetrics in float64: its float32 is itself wrong by more than 1e-5 where images are flat."""
    x, y = mapped(a, interval)[None], mapped(b, interval)[None]
    return float(structural_similarity_index_measure(y, x, data_range=data_range))


def skimage(a: Tensor, b: Tensor, interval: tuple[float, float], data_range: float) -> float:
    x, y = (mapped(image, interval).permute(1, 2, 0).numpy() for image in (a, b))
    return float(structural_similarity(x, y, channel_axis=-1, data_range=data_range))


REFERENCES = {"gaussian": gaussian, "skimage": skimage}


def hard_pairs() -> list[tuple[Tensor, Tensor]]:
    """Where float32 arithmetic that is not careful goes wrong: flat, bright, inverted, and the smallest sizes."""
    white = torch.full((3, 33, 40), 255, dtype=torch.uint8)
    squares = (torch.arange(64) // 16 % 2 * 255).to(torch.uint8)
    board = (squares[:, None] ^ squares[None, :]).expand(3, 64, 64).contiguous()
    random = torch.Generator().manual_seed(5)
    near_white = torch.randint(240, 256, white.shape, dtype=torch.uint8, generator=random)
    pairs = [(white, white - 5), (white, torch.zeros_like(white)), (white, near_white), (board, 255 - board)]
    for size in ((7, 7), (7, 90), (48, 37)):
        batch = images(1, *size)
        pairs.append((batch[0], disturbed(batch)[0]))
    noise = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8, generator=random)
    return [*pairs, (noise[0], noise[1])]


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize(("interval", "data_range"), RANGES)
def test_ssim_equals_its_reference(flavour: str, interval: tuple[float, float], data_range: float) -> None:
    for a, b in hard_pairs():
        ours = ssim(a[None], b[None], flavour, images=interval, data_range=data_range)[0]
        assert ours == pytest.approx(REFERENCES[flavour](a, b, interval, data_range), abs=2e-6)


def test_ssim_of_float_images_equals_torchmetrics_with_its_clamp() -> None:
    random = torch.Generator().manual_seed(2)
    reference = torch.rand(2, 3, 40, 30, generator=random) * 2 - 1
    reconstruction = reference + torch.randn(reference.shape, generator=random) * 0.2
    pairs = pairs_of(images(2, 40, 30), images(2, 40, 30))
    pairs = type(pairs)(
        reference=reference,
        reconstruction=reconstruction,
        reference_u8=pairs.reference_u8,
        reconstruction_u8=pairs.reconstruction_u8,
        tokens=[1, 1],
    )
    columns, _ = Ssim(name="SSIM", resamples=0, input="clamped").update(pairs)
    expected = structural_similarity_index_measure(
        reconstruction.double(), reference.double(), data_range=(-1.0, 1.0), reduction="none"
    )
    np.testing.assert_allclose(columns["SSIM"], expected.numpy(), atol=2e-6)


def test_inflated_range_is_a_choice_and_named() -> None:
    pairs = pairs_of(images(2, 32, 32), disturbed(images(2, 32, 32), 30))
    honest = Ssim(name="SSIM", resamples=0, flavour="skimage")
    inflated = Ssim(name="SSIM", resamples=0, flavour="skimage", data_range=2.0)
    values = [metric.cells(metric.update(pairs)[0], {}, seed=0)[0] for metric in (honest, inflated)]
    assert values[0].parameters["data_range"] == 1
    assert "note" not in values[0].parameters
    assert "not the images' own 1" in values[1].parameters["note"]
    assert values[0].value is not None
    assert values[1].value is not None
    assert values[1].value > values[0].value


def test_psnr_equals_scikit_image() -> None:
    for a, b in hard_pairs():
        expected = peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=255)
        assert psnr(a[None], b[None])[0] == pytest.approx(expected, rel=1e-12)


pixels = arrays.arrays(np.uint8, st.tuples(st.integers(2, 3), st.just(3), st.integers(7, 14), st.integers(7, 14)))


@settings(max_examples=25, deadline=None)
@given(pixels, st.integers(0, 2**31))
def test_symmetry_identity_and_independence_of_batch_mates(array: np.ndarray, seed: int) -> None:
    a = torch.from_numpy(array)
    b = disturbed(a, 25, seed)
    measures = {
        "psnr": psnr,
        **{
            flavour: lambda x, y, flavour=flavour: ssim(x, y, flavour, images=(-1.0, 1.0), data_range=2.0)
            for flavour in FLAVOURS
        },
    }
    for name, measure in measures.items():
        values = measure(a, b)
        np.testing.assert_array_equal(measure(b, a), values)
        np.testing.assert_array_equal(measure(a.flip(0), b.flip(0)), values[::-1])
        np.testing.assert_array_equal(
            np.concatenate([measure(a[i : i + 1], b[i : i + 1]) for i in range(len(a))]), values
        )
        np.testing.assert_array_equal(measure(a, a), math.inf if name == "psnr" else 1.0)
        assert (values <= (math.inf if name == "psnr" else 1)).all()


def test_more_noise_is_worse() -> None:
    a = images(1, 48, 48)
    for measure in (psnr, lambda x, y: ssim(x, y, "gaussian", images=(-1.0, 1.0), data_range=2.0)):
        values = [measure(a, disturbed(a, strength))[0] for strength in (2, 8, 32)]
        assert values == sorted(values, reverse=True)
        assert values[0] > values[2]


def test_identical_images_give_infinity_without_not_a_number() -> None:
    metric = Psnr(name="PSNR", resamples=200)
    a = images(4, 16, 16)
    all_equal = metric.cells(metric.update(pairs_of(a, a))[0], {}, seed=0)[0]
    assert (all_equal.value, all_equal.interval) == (math.inf, (math.inf, math.inf))
    b = disturbed(a)
    b[0] = a[0]
    one_equal = metric.cells(metric.update(pairs_of(a, b))[0], {}, seed=0)[0]
    assert one_equal.value == math.inf
    assert one_equal.parameters["identical"] == "1 of 4 images"
    assert one_equal.interval is not None
    assert 10 < one_equal.interval[0] < one_equal.interval[1] == math.inf


@pytest.mark.parametrize(("flavour", "smallest"), [("gaussian", 6), ("skimage", 7)])
def test_images_below_the_window_are_left_out_and_counted(flavour: str, smallest: int) -> None:
    metric = Ssim(name="SSIM", resamples=50, flavour=flavour)
    assert np.isnan(metric.update(pairs_of(images(1, smallest - 1, 30), images(1, smallest - 1, 30)))[0]["SSIM"]).all()
    value = metric.update(pairs_of(images(1, smallest, smallest), images(1, smallest, smallest, seed=3)))[0]["SSIM"][0]
    assert np.isfinite(value)
    mixed = metric.cells({"SSIM": np.array([np.nan, 0.5, 0.7])}, {}, seed=0)[0]
    assert (mixed.value, mixed.n, mixed.absent) == (pytest.approx(0.6), 2, None)
    assert mixed.parameters["undefined"] == f"1 of 3: image smaller than {smallest}x{smallest}"
    none = metric.cells({"SSIM": np.array([np.nan])}, {}, seed=0)[0]
    assert (none.value, none.n, none.interval) == (None, 0, None)
    assert none.absent == f"image smaller than {smallest}x{smallest}"


@pytest.mark.parametrize(
    "options",
    [
        {"flavour": "box"},
        {"images": [1, 0]},
        {"data_range": 0},
        {"input": "float"},
        {"flavour": "skimage", "input": "clamped"},
    ],
)
def test_options_that_do_not_exist_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(BenchError, match="SSIM"):
        Ssim(name="SSIM", resamples=0, **options)  # type: ignore[arg-type]
