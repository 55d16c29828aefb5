"""rFVD against torchmetrics' distance (which TokenBench's script uses) and scipy's; its features, its few videos."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from i3d_files import random_state, small_program, vouched
from metric_inputs import disturbed, images
from torch import Tensor
from torchmetrics.image.fid import _compute_fid

from harness.data.base import ClipShape
from harness.errors import BenchError
from harness.metrics.base import Cell
from harness.metrics.bootstrap import mean_interval, percentiles, resamples
from harness.metrics.clip_base import ClipMeasured, ClipTotals
from harness.metrics.frechet import frechet
from harness.metrics.i3d import crop
from harness.metrics.rfvd import Rfvd
from harness.protocol import MetricSpec
from harness.weights import Found

CPU = torch.device("cpu")
FAMILIES = ("rfvd", "rfvd-mean", "rfvd-covariance")
UNOFFICIAL = " (unofficial weights)"
Features = dict[str, np.ndarray]


def specs(*families: str, **options: object) -> list[MetricSpec]:
    return [MetricSpec(metric=family, name=family, options=options) for family in families or FAMILIES]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return small_program(tmp_path_factory.mktemp("program") / "i3d_torchscript.pt")


@pytest.fixture(scope="module")
def metric(program: Found) -> Rfvd:
    return Rfvd(specs(), resamples=1000, detector=program, device=CPU)


def measure(metric: Rfvd, reference: Tensor, reconstruction: Tensor, block: int = 1000) -> ClipMeasured:
    """The metric's row for two uint8 clips ``[T, 3, H, W]``, passed in blocks."""
    shape = ClipShape(height=reference.shape[2], width=reference.shape[3], rate=Fraction(24))
    meter = metric.start(shape)
    for part in zip(torch.split(reference, block), torch.split(reconstruction, block), strict=True):
        meter.update(*part)
    frames = len(reference)
    return meter.finish(ClipTotals(shape=shape, frames=frames, tokens=1, coded_frames=frames))


def drawn(metric: Rfvd, n: int, *, seed: int = 0, noise: float = 0.3) -> Features:
    """Features of videos and of their reconstructions: a few directions carry most, as with logits."""
    random = np.random.default_rng(seed)
    scale = 3 * np.arange(1, 401) ** -0.5
    x = random.normal(size=(n, 400)) * scale
    y = x + noise * random.normal(size=(n, 400)) * scale + 0.02
    return {metric.reference: x.astype(np.float32), metric.reconstruction: y.astype(np.float32)}


def cells(metric: Rfvd, features: Features, seed: int = 0) -> dict[str, Cell]:
    return {cell.name.removesuffix(UNOFFICIAL): cell for cell in metric.cells({}, features, seed=seed)}


def both(metric: Rfvd, features: Features) -> tuple[np.ndarray, np.ndarray]:
    return features[metric.reference].astype(np.float64), features[metric.reconstruction].astype(np.float64)


@pytest.mark.parametrize("n", [2, 12, 50, 450])
def test_distance_is_torchmetrics(metric: Rfvd, n: int) -> None:
    features = drawn(metric, n)
    x, y = (torch.from_numpy(part) for part in both(metric, features))
    expected = float(_compute_fid(x.mean(0), torch.cov(x.T), y.mean(0), torch.cov(y.T)))
    # Its eigenvalues of a singular product carry rounding: 3e-6 of the traces for two videos, 1e-7 for fifty.
    rounding = 1e-5 / n * float(x.var(0).sum())
    assert cells(metric, features)["rfvd"].value == pytest.approx(expected, rel=1e-6, abs=rounding)


def test_distance_is_that_of_scipys_matrix_root(metric: Rfvd) -> None:
    features = drawn(metric, 450)
    x, y = both(metric, features)
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    covariance = np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    mean = ((x.mean(0) - y.mean(0)) ** 2).sum()
    found = cells(metric, features)
    assert found["rfvd-mean"].value == pytest.approx(mean, rel=1e-6)
    assert found["rfvd-covariance"].value == pytest.approx(covariance, rel=1e-6)
    assert found["rfvd"].value == pytest.approx(mean + covariance, rel=1e-6)


def test_identity_is_zero(metric: Rfvd) -> None:
    clips = [images(10, 32, 48, seed=seed) for seed in range(3)]
    rows = [measure(metric, clip, clip) for clip in clips]
    assert all(row.columns == {"rfvd feature distance": 0.0} for row in rows)
    found = cells(metric, {name: np.stack([row.features[name] for row in rows]) for name in rows[0].features})
    assert [cell.value for cell in found.values()] == [0, 0, 0]
    assert [cell.interval for cell in found.values()] == [(0, 0)] * 3


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 100))
def test_feature_depends_on_the_frames_not_on_their_blocks(metric: Rfvd, blocks: list[int], seed: int) -> None:
    total = max(9, sum(blocks))
    reference = images(total, 24, 33, seed=seed)
    reconstruction = disturbed(reference)
    whole = measure(metric, reference, reconstruction)
    meter = metric.start(ClipShape(height=24, width=33, rate=Fraction(24)))
    start = 0
    for size in [*blocks, total]:
        part = slice(start, min(start + size, total))
        if part.start < total:
            meter.update(reference[part], reconstruction[part])
        start += size
    shape = ClipShape(height=24, width=33, rate=Fraction(24))
    cut = meter.finish(ClipTotals(shape=shape, frames=total, tokens=1, coded_frames=total))
    for name, feature in whole.features.items():
        np.testing.assert_array_equal(cut.features[name], feature)
    assert cut.columns == whole.columns


def test_frames_beyond_the_most_are_not_looked_at(program: Found) -> None:
    metric = Rfvd(specs(max_frames=10), resamples=0, detector=program, device=CPU)
    reference = images(17, 24, 32)
    reconstruction = disturbed(reference)
    whole = measure(metric, reference, reconstruction, block=4).features
    first = measure(metric, reference[:10], reconstruction[:10]).features
    fewer = measure(metric, reference[:9], reconstruction[:9]).features
    for name in whole:
        np.testing.assert_array_equal(whole[name], first[name])
        assert not np.array_equal(whole[name], fewer[name])


def test_a_video_below_nine_frames_has_no_feature_and_is_counted(metric: Rfvd) -> None:
    rows = [measure(metric, clip, disturbed(clip)) for clip in (images(n, 24, 32, seed=n) for n in (1, 10, 8, 9, 12))]
    missing = [bool(np.isnan(row.columns["rfvd feature distance"])) for row in rows]
    assert missing == [True, False, True, False, False]
    features = {name: np.stack([row.features[name] for row in rows]) for name in rows[0].features}
    found = cells(metric, features)["rfvd"]
    kept = cells(metric, {name: array[[1, 3, 4]] for name, array in features.items()})["rfvd"]
    assert (found.value, found.n) == (kept.value, 3)
    assert found.parameters["undefined"] == "2 of 5: I3D has no feature of fewer than 9 frames"
    assert "undefined" not in kept.parameters
    alone = cells(metric, {name: array[[0, 1, 2]] for name, array in features.items()})["rfvd"]
    assert (alone.value, alone.n, alone.interval) == (None, 1, None)
    assert alone.absent == (
        "needs two videos or more: one has no covariance (2 of 3: I3D has no feature of fewer than 9 frames)"
    )


def test_column_is_the_distance_of_a_videos_features(metric: Rfvd) -> None:
    clip = images(9, 24, 32)
    row = measure(metric, clip, disturbed(clip))
    x, y = row.features.values()
    assert metric.columns == tuple(row.columns) == ("rfvd feature distance",)
    assert row.columns["rfvd feature distance"] == pytest.approx(float(((x - y) ** 2).sum() ** 0.5), rel=1e-5)


def test_cell_tells_what_it_can_bear(metric: Rfvd, program: Found) -> None:
    few, many = cells(metric, drawn(metric, 50))["rfvd"], cells(metric, drawn(metric, 450))["rfvd"]
    assert (few.n, few.parameters["covariance_rank"], many.parameters["covariance_rank"]) == (50, 49, 400)
    assert "biased upwards" in few.parameters["note"]
    assert "note" not in many.parameters
    assert few.parameters["weights"] == {program.path.name: program.sha256}
    assert few.parameters["official"] is False
    assert metric.cells({}, drawn(metric, 3), seed=0)[0].name == "rfvd" + UNOFFICIAL
    official = Found(program.path, program.sha256, official=True)
    cell = Rfvd(specs("rfvd"), resamples=0, detector=official, device=CPU).cells({}, drawn(metric, 3), seed=0)[0]
    assert (cell.name, cell.interval, "official" in cell.parameters) == ("rfvd", None, False)


def test_interval_holds_the_mean_over_sets_where_resampled_distances_do_not(metric: Rfvd) -> None:
    """The reason for resampling influences. Deterministic: 24 of 24 and none of 24 when this was written."""
    n = 50
    sets = [drawn(metric, n, seed=seed) for seed in range(24)]
    middle = np.mean([frechet(*both(metric, features)).distance for features in sets])
    held = naive = 0
    for features in sets:
        cell = cells(metric, features)["rfvd"]
        assert cell.value is not None
        assert cell.interval is not None
        assert cell.interval[0] <= cell.value <= cell.interval[1]
        held += cell.interval[0] <= middle <= cell.interval[1]
        x, y = both(metric, features)
        resampled = [frechet(x[rows], y[rows]).distance for rows in next(resamples(n, 40, 0))]
        low, high = percentiles(np.asarray(resampled), 0.95)
        naive += low <= middle <= high
    assert held >= 21
    assert naive <= 6


def test_seed_fixes_the_interval_and_terms_have_their_own(metric: Rfvd) -> None:
    features = drawn(metric, 20)
    found, again, other = cells(metric, features), cells(metric, features), cells(metric, features, seed=1)
    assert [cell.interval for cell in found.values()] == [cell.interval for cell in again.values()]
    assert [cell.interval for cell in found.values()] != [cell.interval for cell in other.values()]
    spread = mean_interval(frechet(*both(metric, features)).mean_influence, count=1000, seed=0)
    assert spread is not None
    value = found["rfvd-mean"].value
    assert value is not None
    assert found["rfvd-mean"].interval == pytest.approx((max(0, value + spread[0]), value + spread[1]))


def test_state_dict_is_a_detector_of_its_own(tmp_path: Path, program: Found) -> None:
    path = tmp_path / "i3d_pretrained_400.pt"
    torch.save(random_state(), path)
    metric = Rfvd(specs("rfvd", detector="state-dict"), resamples=0, detector=vouched(path), device=CPU)
    clip = images(9, 30, 44)
    row = measure(metric, clip, disturbed(clip), block=4)
    np.testing.assert_array_equal(row.features[metric.reference], metric.detect(crop(clip)))
    assert row.columns["rfvd feature distance"] > 0
    other = Rfvd(specs("rfvd"), resamples=0, detector=program, device=CPU)
    # Features of the two never meet under one name, neither in a shard nor in a merge.
    assert {other.reference, other.reconstruction}.isdisjoint(row.features)
    cell = metric.cells({}, {name: np.stack([value, value + 1]) for name, value in row.features.items()}, seed=0)[0]
    assert cell.parameters["detector"] == "state-dict"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"detector": "tensorflow"}, "rfvd: detector 'tensorflow'; there are: styleganv, state-dict"),
        ({"max_frames": 8}, "rfvd: max_frames is 8, not a whole number from 9 on"),
        ({"max_frames": True}, "rfvd: max_frames is True"),
        ({"max_frames": "all"}, "rfvd: max_frames is 'all'"),
    ],
)
def test_wrong_options_are_refused(program: Found, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(BenchError, match=reason):
        Rfvd(specs("rfvd", **options), resamples=0, detector=program, device=CPU)


def test_one_metric_has_one_detector_and_length(program: Found) -> None:
    mixed = [*specs("rfvd"), *specs("rfvd-mean", max_frames=16)]
    with pytest.raises(BenchError, match="rfvd-mean and rfvd differ in detector or max_frames"):
        Rfvd(mixed, resamples=0, detector=program, device=CPU)
