"""PSNR, SSIM, LPIPS, rate and codebooks of videos against their libraries and the published script's definitions."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_inputs import cell_of, measured, moving
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_inputs import disturbed, images, pairs_of
from scipy.stats import entropy
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from harness.errors import BenchError
from harness.metrics.clip_base import ClipMetric
from harness.metrics.codebook import ClipCodebook
from harness.metrics.lpips import ClipLpips
from harness.metrics.psnr import ClipPsnr
from harness.metrics.rate import ClipBitsPerPixel, ClipTokens
from harness.metrics.seams import Seam
from harness.metrics.ssim import ClipSsim, Ssim
from harness.protocol import MetricSpec
from harness.weights import ALEXNET, VGG16, WeightStore

CPU = torch.device("cpu")


def channels_last(clip: Tensor) -> np.ndarray:
    return clip.permute(0, 2, 3, 1).numpy()


def tokenbench_psnr(a: np.ndarray, b: np.ndarray) -> float:
    """As the script defines it: float32 levels, one mean over the video, float32's epsilon beside the root."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    error = np.mean(np.square(a - b))
    return float(20 * np.log10(255.0 / (np.sqrt(error) + np.finfo(np.float32).eps)))


def uneven() -> tuple[Tensor, Tensor]:
    """A clip whose frames differ in quality."""
    clip = moving(6, 32, 48)
    return clip, torch.stack([disturbed(frame, 2 + 5 * t, seed=t) for t, frame in enumerate(clip)])


def test_psnr_of_a_clip_is_tokenbenchs() -> None:
    a, b = uneven()
    for pair in ((a, b), (a, 255 - a), (a[:1], b[:1]), (a, a)):
        value = measured(ClipPsnr(name="PSNR", resamples=0, mse="clip"), *pair).columns["PSNR"]
        # Where nothing but the epsilon is left, float32 rounds the script's own dB by 8e-6.
        assert value == pytest.approx(tokenbench_psnr(*(channels_last(x) for x in pair)), abs=2e-5)


def test_psnr_of_frames_is_scikit_images_mean() -> None:
    a, b = uneven()
    expected = [peak_signal_noise_ratio(x.numpy(), y.numpy(), data_range=255) for x, y in zip(a, b, strict=True)]
    result = measured(ClipPsnr(name="PSNR", resamples=0), a, b)
    np.testing.assert_allclose(result.frames["PSNR"], expected, rtol=1e-12)
    assert result.columns["PSNR"] == pytest.approx(np.mean(expected), rel=1e-12)


def test_one_mse_is_ruled_by_the_worst_frames() -> None:
    a, b = uneven()
    of = {mse: measured(ClipPsnr(name="P", resamples=0, mse=mse), a, b) for mse in ("clip", "frame")}
    np.testing.assert_array_equal(of["clip"].frames["P"], of["frame"].frames["P"])
    assert of["clip"].frames["P"].min() < of["clip"].columns["P"] < of["frame"].columns["P"] - 1


def test_identical_clips_and_frames_are_told() -> None:
    a, b = uneven()
    half = torch.cat([a[:3], b[3:]])
    pooled = ClipPsnr(name="PSNR", resamples=50, mse="clip")
    cell = cell_of(pooled, [measured(pooled, a, x) for x in (a, half, b)])
    assert cell.value is not None
    assert math.isfinite(cell.value)
    assert cell.parameters["epsilon"] == pytest.approx(1.19e-7, rel=0.01)
    assert cell.parameters["identical"] == "9 frames in 2 of 3 clips; no error at all is 186.60 dB by the epsilon"
    frames = ClipPsnr(name="PSNR", resamples=50)
    clips = [measured(frames, a, x) for x in (half, b)]
    np.testing.assert_array_equal(np.isinf(clips[0].frames["PSNR"]), [True] * 3 + [False] * 3)
    cell = cell_of(frames, clips)
    assert (cell.value, cell.parameters["identical"]) == (math.inf, "3 frames in 1 of 2 clips")
    cell = cell_of(frames, clips[1:])
    assert cell.value is not None
    assert "identical" not in cell.parameters


@pytest.mark.parametrize("images", [None, [0, 255]])
def test_ssim_is_scikit_images_mean_over_frames_then_clips(images: list[float] | None) -> None:
    metric = ClipSsim(name="SSIM", resamples=50, flavour="skimage", images=images)
    pairs = [uneven(), (moving(3, 20, 90, seed=4), disturbed(moving(3, 20, 90, seed=4)))]
    clips = [measured(metric, *pair) for pair in pairs]
    for (a, b), clip in zip(pairs, clips, strict=True):
        expected = [
            structural_similarity(x, y, channel_axis=-1, data_range=255)
            for x, y in zip(channels_last(a), channels_last(b), strict=True)
        ]
        np.testing.assert_allclose(clip.frames["SSIM"], expected, atol=1e-6)
        assert clip.columns["SSIM"] == pytest.approx(np.mean(expected), abs=1e-6)
    cell = cell_of(metric, clips)
    assert cell.value == pytest.approx(np.mean([clip.columns["SSIM"] for clip in clips]))
    assert cell.interval is not None
    assert cell.n == 2


@pytest.mark.parametrize("flavour", ["gaussian", "skimage"])
def test_a_frames_ssim_is_that_of_an_image(flavour: str) -> None:
    a, b = uneven()
    image = Ssim(name="SSIM", resamples=0, flavour=flavour).update(pairs_of(a, b))[0]["SSIM"]
    frames = measured(ClipSsim(name="SSIM", resamples=0, flavour=flavour), a, b).frames["SSIM"]
    np.testing.assert_array_equal(frames, image)


def lpips_of(cache: Path, net: str) -> ClipLpips:
    trunk = WeightStore([cache]).find({"vgg": VGG16, "alex": ALEXNET}[net])
    return ClipLpips(name="LPIPS", resamples=10, trunk=trunk, device=CPU, net=net)


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_lpips_is_the_packages_frame_by_frame(
    net: str, torch_home: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lpips

    monkeypatch.setenv("TORCH_HOME", str(torch_home))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = lpips.LPIPS(net=net, verbose=False)
    a, b = (clip[:3] for clip in uneven())
    metric = lpips_of(cache, net)
    result = measured(metric, a, b)
    with torch.no_grad():
        expected = [
            package(*(2 * (frame[None].double() / 255 - 0.5).float() for frame in pair)).item()
            for pair in zip(a, b, strict=True)
        ]
    np.testing.assert_allclose(result.frames["LPIPS"], expected, atol=1e-6)
    assert len(set(expected)) == 3
    assert result.columns["LPIPS"] == pytest.approx(np.mean(expected), abs=1e-6)
    np.testing.assert_array_equal(measured(metric, a, b, cuts=[1]).frames["LPIPS"], result.frames["LPIPS"])
    cell = cell_of(metric, [result, result])
    assert (cell.name, cell.parameters["net"], cell.parameters["input"]) == ("LPIPS (unofficial weights)", net, "8bit")


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_how_a_clip_is_cut_into_blocks_moves_no_bit(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 9), st.integers(7, 20), st.integers(7, 20)))
    cuts = data.draw(st.lists(st.integers(1, shape[0]), max_size=4))
    reference = images(*shape, seed=data.draw(st.integers(0, 99)))
    reconstruction = disturbed(reference, 9)
    reconstruction[0] = reference[0]
    metrics: list[ClipMetric] = [
        ClipPsnr(name="frame", resamples=0),
        ClipPsnr(name="clip", resamples=0, mse="clip"),
        ClipSsim(name="gaussian", resamples=0),
        ClipSsim(name="skimage", resamples=0, flavour="skimage"),
        Seam(name="time", resamples=0),
        Seam(name="space", resamples=0, axis="space"),
    ]
    for metric in metrics:
        known = {"tile": (3, 4, 5), "borders": (range(4, shape[1], 4), range(5, shape[2], 5))}
        whole = measured(metric, reference, reconstruction, **known)
        cut = measured(metric, reference, reconstruction, cuts=cuts, **known)
        assert whole.columns.keys() == set(metric.columns)
        assert whole.frames.keys() == set(metric.frame_columns)
        for name, value in whole.columns.items():
            np.testing.assert_array_equal(cut.columns[name], value)
        for name, values in whole.frames.items():
            assert (values.dtype, values.shape) == (np.float64, (shape[0],))
            np.testing.assert_array_equal(cut.frames[name], values)


@pytest.mark.parametrize(("flavour", "smallest"), [("gaussian", 6), ("skimage", 7)])
def test_frames_below_the_window_have_no_ssim(flavour: str, smallest: int) -> None:
    metric = ClipSsim(name="SSIM", resamples=10, flavour=flavour)
    small = moving(3, smallest - 1, 30)
    fits = moving(3, smallest, smallest)
    clips = [measured(metric, clip, disturbed(clip)) for clip in (small, fits)]
    assert np.isnan(clips[0].frames["SSIM"]).all()
    assert np.isfinite(clips[1].frames["SSIM"]).all()
    cell = cell_of(metric, clips)
    assert (cell.n, cell.parameters["undefined"]) == (1, f"1 of 2: frames smaller than {smallest}x{smallest}")
    assert cell_of(metric, clips[:1]).absent == f"frames smaller than {smallest}x{smallest}"


def test_frames_below_the_trunk_have_no_lpips(cache: Path) -> None:
    metric = lpips_of(cache, "alex")
    clip = moving(2, 30, 40)
    assert cell_of(metric, [measured(metric, clip, clip)]).absent == "frames smaller than 31x31"


def test_rate_is_over_the_frames_that_the_code_stands_for() -> None:
    a, b = uneven()
    bits, tokens = ClipBitsPerPixel(name="bpp", resamples=10), ClipTokens(name="tokens", resamples=10)
    known = {"bits": 32 * 48 * 8 * 0.25, "tokens": 12, "coded_frames": 8}
    cell = cell_of(bits, [measured(bits, a, b, **known)])
    assert (cell.value, cell.unit, cell.applies) == (0.25, "bit/pixel", True)
    patches = {"compression": (4, 16, 16)}
    counted = [measured(tokens, a, b, **known, **patches), measured(tokens, a, b, tokens=20, **patches)]
    assert cell_of(tokens, counted).value == 16
    codec = cell_of(tokens, [measured(tokens, a, b, **known)])
    assert (codec.value, codec.applies) == (None, False)
    continuous = cell_of(bits, [measured(bits, a, b)])
    assert (continuous.value, continuous.applies) == (None, False)
    assert "continuous" in (continuous.absent or "")


def test_codebooks_are_counted_over_clips_of_any_length() -> None:
    random = np.random.default_rng(0)
    books = [random.integers(0, 7, size=(n, 2)) for n in (5, 40, 3)]
    usage, spread = (MetricSpec(metric=f"codebook-{what}", name=what) for what in ("usage", "entropy"))
    metric = ClipCodebook([usage, spread], codebook_size=16)
    clip = moving(2, 8, 8)
    codes = [torch.from_numpy(book) for book in books]
    clips = [measured(metric, clip, clip, codes=parts) for parts in ([codes[0], codes[1]], [codes[2]])]
    cells = metric.cells({}, {"code_counts": np.stack([c.features["code_counts"] for c in clips])}, seed=0)
    counts = [np.bincount(column, minlength=16) for column in np.concatenate(books).T]
    assert cells[0].value == pytest.approx(np.mean([(c > 0).mean() for c in counts]))
    assert cells[1].value == pytest.approx(np.mean([entropy(c, base=2) for c in counts]))
    assert (cells[0].n, cells[0].parameters["codes"], cells[1].unit) == (2, 96, "bit")
    assert [cell.absent for cell in metric.cells({}, {}, seed=0)] == ["no sample was measured"] * 2
    with pytest.raises(BenchError, match="code 16 is none of the 16 entries"):
        measured(metric, clip, clip, codes=[torch.tensor([[16, 0]])])
    with pytest.raises(BenchError, match="gives no codes"):
        measured(metric, clip, clip)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ClipPsnr(name="P", resamples=0, mse="video"), "P: mse is 'video'; there are: frame, clip"),
        (lambda: ClipPsnr(name="P", resamples=0, epsilon=-1), "P: epsilon is -1, not a number from 0 on"),
        (lambda: ClipSsim(name="S", resamples=0, flavour="box"), "S: SSIM flavour 'box'"),
        (lambda: Seam(name="s", resamples=0, axis="t"), "s: seams of axis 't'; there are: time, space"),
        (lambda: Seam(name="s", resamples=0, inside="tile"), "s: inside is 'tile'; there are: all, tokens"),
    ],
)
def test_options_that_do_not_exist_are_refused(build: object, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        build()  # type: ignore[operator]


def test_lpips_of_floats_is_refused(cache: Path) -> None:
    trunk = WeightStore([cache]).find(ALEXNET)
    with pytest.raises(BenchError, match="LPIPS of input 'float'; of videos there is: 8bit"):
        ClipLpips(name="L", resamples=0, trunk=trunk, device=CPU, net="alex", input="float")
