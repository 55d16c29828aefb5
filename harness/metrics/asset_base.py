"""The metric contract for 3D assets: pairs of views pass one by one, and leave a row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from harness.data.prepare import eight_bit
from harness.errors import BenchError
from harness.metrics.base import Aggregated
from harness.protocol import EightBitRule

GROUNDS = {"black": 0.0, "white": 1.0}
"""What assets are laid on before they are compared."""


class ViewPair:
    """One view of an asset before and after.

    Args:
        reference, reconstruction: float32 RGBA ``[H, W, 4]`` on the run's device, premultiplied, nominally in 0..1.
        rule: how they become 8-bit.
    """

    def __init__(self, reference: Tensor, reconstruction: Tensor, rule: EightBitRule) -> None:
        self._pair = (reference, reconstruction)
        self._rule = rule
        self._made: dict[str, tuple[Tensor, Tensor]] = {}

    def on(self, ground: str) -> tuple[Tensor, Tensor]:
        """Both on a plain ground: uint8 ``[1, 3, H, W]``."""
        if ground not in self._made:
            reference, reconstruction = (laid_on(view, ground, self._rule) for view in self._pair)
            self._made[ground] = (reference, reconstruction)
        return self._made[ground]

    @cached_property
    def foreground(self) -> Tensor:
        """Pixels that the original covers by half or more: bool ``[H, W]``."""
        return self._pair[0][..., 3] >= 0.5


def laid_on(view: Tensor, ground: str, rule: EightBitRule) -> Tensor:
    """A premultiplied view ``[H, W, 4]`` on a ground of `GROUNDS`: uint8 ``[1, 3, H, W]``."""
    colours = view[..., :3] + (1 - view[..., 3:]) * GROUNDS[ground]
    planes = colours.permute(2, 0, 1).contiguous()
    return eight_bit(planes.mul(2).sub(1), rule)[None]


def checked_ground(name: str, ground: str) -> str:
    """The ground that a protocol asks for.

    Raises:
        BenchError: there is none of that name.
    """
    if ground not in GROUNDS:
        raise BenchError(f"{name}: background {ground!r}; there are: {', '.join(GROUNDS)}")
    return ground


@dataclass(frozen=True, kw_only=True, slots=True)
class AssetTotals:
    """What is known of an asset once it has passed; None where the notion does not apply."""

    tokens: int
    voxels: int | None
    gaussians: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class AssetMeasured:
    """What a metric keeps of one asset.

    Attributes:
        columns: one number for each name of `Aggregated.columns`; NaN where it has no value for this asset.
        views: float64 ``[views]`` for each name of `Aggregated.frame_columns`.
    """

    columns: Mapping[str, float] = field(default_factory=dict)
    views: Mapping[str, np.ndarray] = field(default_factory=dict)


class AssetMeter(ABC):
    """Measures one asset."""

    @abstractmethod
    def update(self, pair: ViewPair) -> None:
        """Look at the next view."""

    @abstractmethod
    def finish(self, totals: AssetTotals) -> AssetMeasured:
        """After the last view; called once."""


class AssetMetric(Aggregated):
    """A metric of 3D assets. `Aggregated.cells` gets its columns ``[n]`` of all assets.

    Attributes:
        looks: whether it wants to see views; False for counts.
    """

    looks: bool = True

    @abstractmethod
    def start(self) -> AssetMeter:
        """A fresh meter for an asset."""


def premultiplied(colours: np.ndarray, device: torch.device) -> Tensor:
    """Straight uint8 RGBA ``[H, W, 4]`` as a premultiplied float32 view on a device."""
    view = torch.from_numpy(colours).to(device, torch.float32) / 255
    view[..., :3] *= view[..., 3:]
    return view
