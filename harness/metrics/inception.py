"""Metrics of Inception features through torch-fidelity: rFID and its two terms, KID, Inception Score.

One `Metric` serves all of them, so that each image passes the network once. The features are kept per
image and aggregated in the dataset's order: the figures do not depend on batches or processes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.errors import BenchError
from harness.metrics.base import Cell, Features, Metric, Pairs
from harness.metrics.bootstrap import mean_interval
from harness.metrics.frechet import Frechet, frechet
from harness.metrics.intervals import inception_score_interval, kid_interval
from harness.metrics.loading import load_state
from harness.metrics.precision import exact_float32
from harness.protocol import MetricSpec
from harness.weights import UNOFFICIAL, Found

EXTRACTOR = "inception-v3-compat"
REFERENCE, RECONSTRUCTION = "inception_2048_reference", "inception_2048_reconstruction"
LOGITS = "inception_logits_reconstruction"
# torch-fidelity's own seed of KID's subsets and of IS's shuffle, so that its command gives the same figures.
SEED = 2020
_IMAGES = 64
_DISTANCES = ("rfid", "rfid-mean", "rfid-covariance")


class Inception(Metric):
    """rFID, KID and IS of the 8-bit images; torch-fidelity resizes them to 299x299 itself, as TensorFlow 1 did.

    Args:
        specs: of the families ``rfid``, ``rfid-mean``, ``rfid-covariance``, ``kid``, ``inception-score``.
        resamples: of the bootstrap.
        trunk: torch-fidelity's Inception file.

    Raises:
        BenchError: an option is no positive number, or the file is not this network's.
    """

    higher_is_better = False

    def __init__(self, specs: Sequence[MetricSpec], *, resamples: int, trunk: Found, device: torch.device) -> None:
        self.specs = tuple(specs)
        self.resamples = resamples
        families = {spec.metric for spec in specs}
        self.pairwise = bool(families - {"inception-score"})
        self.total = bool(families & {"rfid", "rfid-covariance"})
        self.scored = "inception-score" in families
        for spec in specs:
            for option, value in spec.options.items():
                if not isinstance(value, int) or value < 1:
                    raise BenchError(f"{spec.name}: {option} is {value!r}, not a whole number above 0")
        self.weights = {trunk.path.name: trunk.sha256}
        self.official = trunk.official
        self.device = device
        layers = ["2048"] * self.pairwise + ["logits_unbiased"] * self.scored
        self.network = build(trunk, layers).to(device)

    def update(self, pairs: Pairs) -> tuple[dict[str, np.ndarray], Features]:
        features: Features = {}
        if self.pairwise:
            features[REFERENCE] = self._features(pairs.reference_u8)[0]
        of_reconstruction = self._features(pairs.reconstruction_u8)
        if self.pairwise:
            features[RECONSTRUCTION] = of_reconstruction[0]
        if self.scored:
            features[LOGITS] = of_reconstruction[-1]
        return {}, features

    def _features(self, images: Tensor) -> list[np.ndarray]:
        """float32 ``[N, 2048]`` and/or ``[N, 1008]``, as far as wanted."""
        with exact_float32():
            parts = [self.network(part) for part in torch.split(images.to(self.device), _IMAGES)]
        return [torch.cat(layer).cpu().numpy() for layer in zip(*parts, strict=True)]

    def cells(self, table: Mapping[str, np.ndarray], features: Mapping[str, np.ndarray], *, seed: int) -> list[Cell]:  # noqa: ARG002
        found: dict[str, Cell] = {}
        if self.pairwise:
            reference, reconstruction = features[REFERENCE], features[RECONSTRUCTION]
            result, distance = None, 0.0
            for spec in self.specs:
                if spec.metric in _DISTANCES:
                    if result is None and len(reference) >= 2:
                        result = frechet(reference, reconstruction)
                        distance = _fidelity(reference, reconstruction) if self.total else 0.0
                    found[spec.name] = self._distance(spec, result, distance, len(reference), seed)
                elif spec.metric == "kid":
                    found[spec.name] = self._kid(spec, reference, reconstruction, seed)
            del reference, reconstruction
        for spec in self.specs:
            if spec.metric == "inception-score":
                found[spec.name] = self._score(spec, features[LOGITS], seed)
        return [found[spec.name] for spec in self.specs]

    def _distance(self, spec: MetricSpec, result: Frechet | None, distance: float, n: int, seed: int) -> Cell:
        if result is None:
            return self._cell(spec, n, absent="needs two images or more: one has no covariance")
        # The distance is torch-fidelity's own; the terms sum to it, so its rounding is in the covariance term.
        value, exact, influence = {
            "rfid": (distance, result.distance, result.mean_influence + result.covariance_influence),
            "rfid-mean": (result.mean, result.mean, result.mean_influence),
            "rfid-covariance": (distance - result.mean, result.covariance, result.covariance_influence),
        }[spec.metric]
        spread = mean_interval(influence, count=self.resamples, seed=seed)
        # A distance is not negative, but its rounding may be: the interval holds the value all the same.
        interval = None if spread is None else (max(min(0.0, value), value + spread[0]), value + spread[1])
        about: dict[str, Any] = {
            "features": 2048,
            "covariance": "n - 1",
            "interval": "bootstrap of influences",
            "by_singular_values": exact,
        }
        if n <= 2048:
            about["note"] = "no more images than features: the covariances are singular, the distance is biased upwards"
        return self._cell(spec, n, value, interval, about)

    def _kid(self, spec: MetricSpec, reference: np.ndarray, reconstruction: np.ndarray, seed: int) -> Cell:
        from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

        subsets, size = spec.options.get("subsets", 100), spec.options.get("subset_size", 1000)
        n = len(reference)
        if n < size:
            return self._cell(spec, n, absent=f"{n} images are fewer than a subset of {size} (option subset_size)")
        if size < 2:
            return self._cell(spec, n, absent="a subset of one image has no pairs (option subset_size)")
        result = kid_features_to_metric(
            torch.from_numpy(reconstruction),
            torch.from_numpy(reference),
            kid_subsets=subsets,
            kid_subset_size=size,
            rng_seed=SEED,
            verbose=False,
        )
        value = result[KEY_METRIC_KID_MEAN]
        about = {"subsets": subsets, "subset_size": size, "seed": SEED, "std_over_subsets": result[KEY_METRIC_KID_STD]}
        interval = kid_interval(reference, reconstruction, value, count=self.resamples, seed=seed)
        return self._cell(spec, n, value, interval, about)

    def _score(self, spec: MetricSpec, logits: np.ndarray, seed: int) -> Cell:
        from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

        n, splits = len(logits), spec.options.get("splits", 10)
        if n < splits:
            return self._cell(spec, n, absent=f"{n} images are fewer than the {splits} splits (option splits)")
        result = isc_features_to_metric(torch.from_numpy(logits), splits=splits, shuffle=True, rng_seed=SEED)
        value = result[KEY_METRIC_ISC_MEAN]
        shuffled = logits[np.random.RandomState(SEED).permutation(n)]
        interval = inception_score_interval(shuffled, value, splits=splits, count=self.resamples, seed=seed)
        about = {"splits": splits, "seed": SEED, "std_over_splits": result[KEY_METRIC_ISC_STD]}
        return self._cell(spec, n, value, interval, about)

    def _cell(
        self,
        spec: MetricSpec,
        n: int,
        value: float | None = None,
        interval: tuple[float, float] | None = None,
        about: Mapping[str, Any] | None = None,
        *,
        absent: str | None = None,
    ) -> Cell:
        parameters = {"extractor": f"torch-fidelity {version('torch-fidelity')} {EXTRACTOR}", "images": "8-bit"}
        return Cell(
            name=spec.name if self.official else spec.name + UNOFFICIAL,
            value=value,
            interval=interval,
            n=n,
            higher_is_better=spec.metric == "inception-score",
            absent=absent,
            parameters={
                **parameters,
                "weights": dict(self.weights),
                **({} if self.official else {"official": False}),
                **(about or {}),
            },
        )


def _fidelity(reference: np.ndarray, reconstruction: np.ndarray) -> float:
    """torch-fidelity's distance, so that a figure here is the figure of its command.

    Of fewer images than features its eigenvalues carry rounding of some 1e-7 of the trace, which can even make
    the distance of a set to itself negative; that one is 0 by definition and needs no arithmetic. The value by
    singular values (`harness.metrics.frechet`) stands beside it in the cell's parameters.
    """
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    if np.array_equal(reference, reconstruction):
        return 0.0
    statistics = [fid_features_to_statistics(torch.from_numpy(part)) for part in (reconstruction, reference)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


def build(trunk: Found, layers: Sequence[str]) -> nn.Module:
    """torch-fidelity's extractor of these layers, its weights read as data.

    Raises:
        BenchError: the file has other keys or shapes than the network.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Skeleton(FeatureExtractorInceptionV3):  # type: ignore[misc]
        """The network without weights: its constructor would unpickle any file, whatever is in it."""

        def load_state_dict(self, state_dict: Mapping[str, Any], *_: Any, **options: Any) -> Any:
            return super().load_state_dict(state_dict, **options) if state_dict else None

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with torch.device("meta"):
        network: nn.Module = Skeleton(EXTRACTOR, list(layers), feature_extractor_weights_path=nothing)
    state = load_state(trunk.path, {name: value.shape for name, value in network.state_dict().items()})
    network.load_state_dict(state, strict=True, assign=True)
    return network.to(torch.float32).eval().requires_grad_(False)
