"""Clips for the metrics' tests, and their passage through a meter."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from metric_inputs import images
from torch import Tensor

from harness.data.base import ClipShape
from harness.metrics.base import Cell
from harness.metrics.clip_base import ClipMeasured, ClipMetric, ClipTotals


def totals_of(clip: Tensor, **known: Any) -> ClipTotals:
    """What would be known of uint8 ``[T, 3, H, W]``, with what the test says of its code."""
    frames, _, height, width = clip.shape
    shape = ClipShape(height=height, width=width, rate=Fraction(24))
    return ClipTotals(shape=shape, frames=frames, **{"tokens": 1, "coded_frames": frames} | known)


def measured(
    metric: ClipMetric, reference: Tensor, reconstruction: Tensor, *, cuts: Sequence[int] = (), **known: Any
) -> ClipMeasured:
    """Let a clip pass in blocks that end at `cuts`."""
    totals = totals_of(reference, **known)
    meter = metric.start(totals.shape)
    ends = [0, *sorted(set(cuts) - {0, len(reference)}), len(reference)]
    for start, end in pairwise(ends):
        meter.update(reference[start:end], reconstruction[start:end])
    return meter.finish(totals)


def cell_of(metric: ClipMetric, clips: Sequence[ClipMeasured], seed: int = 0) -> Cell:
    """The one cell of a run of these clips."""
    table = {name: np.array([clip.columns[name] for clip in clips]) for name in metric.columns}
    names = clips[0].features if clips else ()
    features = {name: np.stack([clip.features[name] for clip in clips]) for name in names}
    (cell,) = metric.cells(table, features, seed=seed)
    return cell


def moving(frames: int, height: int, width: int, seed: int = 0) -> Tensor:
    """A picture that drifts to the left, uint8 ``[T, 3, H, W]``."""
    wide = images(1, height, width + 2 * frames, seed)[0]
    return torch.stack([wide[..., 2 * t : 2 * t + width] for t in range(frames)])
