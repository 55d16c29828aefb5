"""rFID, KID and IS against torch-fidelity's own command on the same images saved as PNG."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from metric_inputs import disturbed, images, pairs_of
from PIL import Image
from torch_fidelity import calculate_metrics
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from harness.errors import BenchError
from harness.metrics.base import Cell
from harness.metrics.inception import LOGITS, RECONSTRUCTION, REFERENCE, Inception
from harness.protocol import MetricSpec
from harness.weights import INCEPTION, Found, WeightStore

CPU = torch.device("cpu")
SPECS = (
    MetricSpec(metric="rfid", name="rFID"),
    MetricSpec(metric="rfid-mean", name="rFID (mean term)"),
    MetricSpec(metric="rfid-covariance", name="rFID (covariance term)"),
    MetricSpec(metric="kid", name="KID", options={"subsets": 5, "subset_size": 6}),
    MetricSpec(metric="inception-score", name="IS", options={"splits": 2}),
)
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    # Threads that wait for each other on a busy machine make these small forwards ten times slower.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def metric(cache: Path) -> Inception:
    return Inception(SPECS, resamples=100, trunk=WeightStore([cache]).find(INCEPTION), device=CPU)


@pytest.fixture(scope="module")
def batches() -> tuple[torch.Tensor, torch.Tensor]:
    reference = images(8, 40, 56)
    return reference, disturbed(reference, 40)


@pytest.fixture(scope="module")
def features(metric: Inception, batches: tuple[torch.Tensor, torch.Tensor]) -> Arrays:
    return metric.update(pairs_of(*batches))[1]


def cells(metric: Inception, features: Arrays, seed: int = 0) -> dict[str, Cell]:
    return {cell.name.removesuffix(" (unofficial weights)"): cell for cell in metric.cells({}, features, seed=seed)}


def test_equals_torch_fidelity_on_the_images_saved_as_png(
    metric: Inception, features: Arrays, batches: tuple[torch.Tensor, torch.Tensor], cache: Path, tmp_path: Path
) -> None:
    for name, batch in zip(("reference", "reconstruction"), batches, strict=True):
        (tmp_path / name).mkdir()
        for index, image in enumerate(batch):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / name / f"{index:02}.png")
    expected = calculate_metrics(
        input1=str(tmp_path / "reconstruction"),
        input2=str(tmp_path / "reference"),
        fid=True,
        kid=True,
        isc=True,
        kid_subsets=5,
        kid_subset_size=6,
        isc_splits=2,
        feature_extractor_weights_path=str(cache / INCEPTION.name),
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    found = cells(metric, features)
    assert found["rFID"].value == pytest.approx(expected["frechet_inception_distance"], rel=1e-4)
    # The same set a second way: singular values and eigenvalues agree to the latter's rounding.
    assert found["rFID"].parameters["by_singular_values"] == pytest.approx(found["rFID"].value, rel=1e-2)
    assert found["KID"].value == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-4)
    assert found["IS"].value == pytest.approx(expected["inception_score_mean"], rel=1e-4)
    assert found["KID"].parameters["std_over_subsets"] == pytest.approx(
        expected["kernel_inception_distance_std"], rel=1e-4
    )


def test_few_and_mild_reconstructions_have_torch_fidelitys_distance(metric: Inception, features: Arrays) -> None:
    """Where its rounding is largest: the figure is still the one that its command prints."""
    noise = np.random.default_rng(0).normal(size=features[REFERENCE].shape).astype(np.float32)
    mild = features[REFERENCE] + 1e-3 * features[REFERENCE].std() * noise
    statistics = [fid_features_to_statistics(torch.from_numpy(array)) for array in (mild, features[REFERENCE])]
    expected = fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]
    found = cells(metric, {**features, RECONSTRUCTION: mild})
    assert found["rFID"].value == pytest.approx(expected, rel=1e-4)


def test_terms_sum_to_the_distance_and_the_mean_term_is_the_means(metric: Inception, features: Arrays) -> None:
    found = cells(metric, features)
    total, mean, covariance = (found[name].value for name in list(found)[:3])
    assert total is not None
    assert mean is not None
    assert covariance is not None
    assert mean + covariance == pytest.approx(total, rel=1e-12)
    shift = features[REFERENCE].mean(0, dtype=np.float64) - features[RECONSTRUCTION].mean(0, dtype=np.float64)
    assert mean == pytest.approx(shift @ shift, rel=1e-12)
    assert covariance > 0


def test_identity_is_zero(metric: Inception, features: Arrays) -> None:
    same = {**features, RECONSTRUCTION: features[REFERENCE]}
    found = cells(metric, same)
    assert found["rFID"].value == 0
    assert found["rFID (covariance term)"].value == 0
    assert found["rFID (mean term)"].value == 0


def test_two_updates_are_one(metric: Inception, features: Arrays, batches: tuple[torch.Tensor, torch.Tensor]) -> None:
    parts = [metric.update(pairs_of(batches[0][i : i + 1], batches[1][i : i + 1]))[1] for i in range(2)]
    for name in (REFERENCE, RECONSTRUCTION, LOGITS):
        joined = np.concatenate([part[name] for part in parts])
        assert joined.dtype == np.float32
        np.testing.assert_allclose(joined, features[name][:2], rtol=1e-4, atol=1e-5)


def test_every_cell_has_an_interval_around_it_that_the_seed_fixes(metric: Inception, features: Arrays) -> None:
    found = cells(metric, features)
    again, other = cells(metric, features), cells(metric, features, seed=1)
    for name, cell in found.items():
        assert cell.value is not None
        assert cell.interval is not None
        assert cell.interval[0] <= cell.value <= cell.interval[1], name
        assert cell.interval == again[name].interval
        assert cell.interval != other[name].interval


def test_too_few_samples_are_a_reason_not_a_number(metric: Inception, features: Arrays) -> None:
    one = cells(metric, {name: array[:1] for name, array in features.items()})
    assert all(cell.value is None and cell.n == 1 for cell in one.values())
    assert "two images" in (one["rFID"].absent or "")
    assert "fewer than the 2 splits" in (one["IS"].absent or "")
    five = cells(metric, {name: array[:5] for name, array in features.items()})
    assert five["KID"].absent == "5 images are fewer than a subset of 6 (option subset_size)"
    assert five["rFID"].value is not None
    assert "biased upwards" in five["rFID"].parameters["note"]


def test_cells_say_that_the_weights_are_not_the_published_ones(metric: Inception, features: Arrays) -> None:
    for cell in metric.cells({}, features, seed=0):
        assert cell.name.endswith(" (unofficial weights)")
        assert cell.parameters["official"] is False
        assert cell.parameters["weights"] == metric.weights


def test_any_size_of_image_passes(metric: Inception) -> None:
    for shape in ((1, 33), (310, 4)):
        image = images(1, *shape)
        assert np.isfinite(metric._features(image)[0]).all()


def test_only_what_is_asked_for_is_kept(cache: Path) -> None:
    trunk = WeightStore([cache]).find(INCEPTION)
    a = images(1, 32, 32)
    for spec, kept in ((SPECS[0], {REFERENCE, RECONSTRUCTION}), (SPECS[4], {LOGITS})):
        alone = Inception([spec], resamples=0, trunk=trunk, device=CPU)
        assert alone.network.features_list == (["2048"] if spec.metric == "rfid" else ["logits_unbiased"])
        alone.network.forward = lambda batch: (torch.zeros(len(batch), 3),)  # type: ignore[method-assign]
        assert alone.update(pairs_of(a, a))[1].keys() == kept


def test_wrong_options_and_files_are_refused(cache: Path, tmp_path: Path) -> None:
    trunk = WeightStore([cache]).find(INCEPTION)
    spec = MetricSpec(metric="kid", name="KID", options={"subset_size": "many"})
    with pytest.raises(BenchError, match="KID: subset_size is 'many'"):
        Inception([spec], resamples=0, trunk=trunk, device=CPU)
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "x.pth")
    with pytest.raises(BenchError, match=r"x\.pth: not the weights it is called after"):
        Inception(SPECS, resamples=0, trunk=Found(tmp_path / "x.pth", "0", official=False), device=CPU)
