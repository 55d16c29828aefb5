"""rFVD: the Frechet distance between the I3D features of the reconstructed videos and those of the originals.

As TokenBench's script has it: one feature of 400 numbers per video, from its first 300 frames in one pass
(`harness.metrics.i3d`, `harness.metrics.i3d_detectors`), the distance in float64 with unbiased covariances.

What the number can bear. Of n videos the covariances have a rank of at most n - 1, and the distance is biased upward:
in simulations with 400 dimensions and paired noise, where endless videos give 2.0, 471 give 9 to 10 and 50 give 20 to
30. So figures compare at one n alone, and n is in the cell. The interval tells how the figure of another set of n
videos would vary. It resamples the influences of the videos (`harness.metrics.frechet`), since a resample of the
videos themselves repeats some, which is a smaller set with another bias: in those simulations the percentile interval
of the resampled distances held the mean over sets of 50 in 1 to 25 % of cases and did not even hold the measured
value, the one of the influences in 95 to 97 % (of 471: 100 %, somewhat too wide). Where a few outlying videos carry
the distance (Student's t with 5 degrees of freedom, log-normal errors) it did in 75 to 78 %, the other ways
(percentile, basic, jackknife) in 63 to 85 %. None holds what endless videos would give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.data.base import ClipShape
from harness.errors import BenchError
from harness.metrics.base import Cell
from harness.metrics.bootstrap import mean_interval
from harness.metrics.clip_base import ClipMeasured, ClipMeter, ClipMetric, ClipTotals
from harness.metrics.frechet import Frechet, frechet
from harness.metrics.i3d import FEATURES, MIN_FRAMES, crop
from harness.metrics.i3d_detectors import Detector, load_detector
from harness.protocol import MetricSpec
from harness.weights import I3D_FILES, UNOFFICIAL, Found

_TOO_SHORT = f"I3D has no feature of fewer than {MIN_FRAMES} frames"
_ABOUT = {
    "styleganv": "StyleGAN-V's I3D program, rescale=False, resize=False, return_features=True",
    "state-dict": "I3D, logits averaged over time",
}


class Rfvd(ClipMetric):
    """rFVD and its two terms, of the 8-bit frames.

    Its one column is the Euclidean distance between a video's two features: which videos carry the figure.

    Args:
        specs: of the families ``rfvd``, ``rfvd-mean``, ``rfvd-covariance``, all of one detector and length.
        resamples: of the bootstrap.
        detector: the file of that detector, `harness.weights.I3D_FILES`.

    Raises:
        BenchError: an option has no such value, the specs differ in theirs, or the file is not the detector's.
    """

    higher_is_better = False

    def __init__(self, specs: Sequence[MetricSpec], *, resamples: int, detector: Found, device: torch.device) -> None:
        self.specs = tuple(specs)
        self.resamples = resamples
        self.flavour, self.max_frames = _options(specs[0])
        for spec in specs:
            if _options(spec) != (self.flavour, self.max_frames):
                raise BenchError(
                    f"{spec.name} and {specs[0].name} differ in detector or max_frames: measure them apart"
                )
        self.columns = (f"{specs[0].name} feature distance",)
        stem = f"i3d_{self.flavour}_{self.max_frames}"
        self.reference, self.reconstruction = f"{stem}_reference", f"{stem}_reconstruction"
        self.weights = {detector.path.name: detector.sha256}
        self.official = detector.official
        self.detect = load_detector(self.flavour, detector, device)

    def start(self, shape: ClipShape) -> ClipMeter:  # noqa: ARG002
        return _Meter(self)

    def cells(self, table: Mapping[str, np.ndarray], features: Mapping[str, np.ndarray], *, seed: int) -> list[Cell]:  # noqa: ARG002
        reference, reconstruction = features[self.reference], features[self.reconstruction]
        defined = ~(np.isnan(reference) | np.isnan(reconstruction)).any(axis=1)
        short = len(defined) - int(defined.sum())
        about: dict[str, Any] = {"undefined": f"{short} of {len(defined)}: {_TOO_SHORT}"} if short else {}
        reference, reconstruction = reference[defined], reconstruction[defined]
        n = len(reference)
        if n < 2:
            reason = "needs two videos or more: one has no covariance"
            if short:
                reason += f" ({about['undefined']})"
            return [self._cell(spec, n, about, absent=reason) for spec in self.specs]
        # Rounding apart, a set is at no distance from itself; with it, at some 1e-13 of its variance.
        same = np.array_equal(reference, reconstruction)
        result = Frechet(0.0, 0.0, np.zeros(n), np.zeros(n)) if same else frechet(reference, reconstruction)
        about |= {"covariance": "n - 1", "covariance_rank": _rank(reference), "interval": "bootstrap of influences"}
        if n <= FEATURES:
            about["note"] = "no more videos than features: the covariances are singular, the distance is biased upwards"
        cells = []
        for spec in self.specs:
            value, influence = {
                "rfvd": (result.distance, result.mean_influence + result.covariance_influence),
                "rfvd-mean": (result.mean, result.mean_influence),
                "rfvd-covariance": (result.covariance, result.covariance_influence),
            }[spec.metric]
            spread = mean_interval(influence, count=self.resamples, seed=seed)
            interval = None if spread is None else (max(0.0, value + spread[0]), value + spread[1])
            cells.append(self._cell(spec, n, about, value=value, interval=interval))
        return cells

    def _cell(
        self,
        spec: MetricSpec,
        n: int,
        about: Mapping[str, Any],
        *,
        value: float | None = None,
        interval: tuple[float, float] | None = None,
        absent: str | None = None,
    ) -> Cell:
        return Cell(
            name=spec.name if self.official else spec.name + UNOFFICIAL,
            value=value,
            interval=interval,
            n=n,
            higher_is_better=False,
            absent=absent,
            parameters={
                "detector": self.flavour,
                "extractor": _ABOUT[self.flavour],
                "features": FEATURES,
                "frames": f"8-bit, the first {self.max_frames} in one pass; shorter side to 224 (bilinear, not "
                "antialiased), centre crop",
                "videos": n,
                "weights": dict(self.weights),
                **({} if self.official else {"official": False}),
                **about,
            },
        )


class _Meter(ClipMeter):
    """Keeps the 224x224 crops of a clip: 0.6 MB a frame of either side, 0.36 GB for 300 frames.

    With what `I3d` needs for them, measuring 300 frames on a CPU takes 2.0 GB at its peak.
    """

    def __init__(self, metric: Rfvd) -> None:
        self.metric = metric
        self.seen = 0
        self.crops: tuple[list[Tensor], list[Tensor]] = ([], [])

    def update(self, reference: Tensor, reconstruction: Tensor) -> None:
        wanted = self.metric.max_frames - self.seen
        self.seen += len(reference)
        if wanted > 0:
            for kept, frames in zip(self.crops, (reference, reconstruction), strict=True):
                kept.append(crop(frames[:wanted]))

    def finish(self, totals: ClipTotals) -> ClipMeasured:  # noqa: ARG002
        metric = self.metric
        if self.seen < MIN_FRAMES:
            features = [np.full(FEATURES, np.nan, np.float32)] * 2
        else:
            features = [_detect(metric.detect, kept) for kept in self.crops]
        apart = float(np.linalg.norm(features[0].astype(np.float64) - features[1]))
        return ClipMeasured(
            columns={metric.columns[0]: apart},
            features={metric.reference: features[0], metric.reconstruction: features[1]},
        )


def _detect(detect: Detector, crops: list[Tensor]) -> np.ndarray:
    """The feature of a clip, whose crops are given up on the way: two copies at once, not three."""
    clip = torch.cat(crops)
    crops.clear()
    return detect(clip)


def _options(spec: MetricSpec) -> tuple[str, int]:
    flavour, most = spec.options.get("detector", "styleganv"), spec.options.get("max_frames", 300)
    if flavour not in I3D_FILES:
        raise BenchError(f"{spec.name}: detector {flavour!r}; there are: {', '.join(I3D_FILES)}")
    if type(most) is not int or most < MIN_FRAMES:
        raise BenchError(f"{spec.name}: max_frames is {most!r}, not a whole number from {MIN_FRAMES} on")
    return flavour, most


def _rank(features: np.ndarray) -> int:
    x = features.astype(np.float64)
    return int(np.linalg.matrix_rank(x - x.mean(axis=0)))
