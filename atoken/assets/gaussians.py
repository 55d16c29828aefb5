"""3D Gaussians: a set of them as the decoder makes them, as a renderer wants them and as a PLY file holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atoken.errors import InputError

__all__ = ["SH_DEGREE_0", "Gaussians"]

SH_DEGREE_0 = 0.28209479177387814
"""The spherical harmonic of degree 0, 1 / (2 sqrt(pi)): what 3DGS multiplies `features_dc` with."""


_SHORTEST = 1e-12
"""Quaternions below this length point nowhere."""


@dataclass(frozen=True, slots=True, eq=False)
class Gaussians:
    """N Gaussians with one colour each, seen alike from all sides.

    Kept before their activations, as PLY files of 3D Gaussian splatting keep them: a float32 logarithm or logit
    cannot be had back from its activated value to the last bit, so this is what makes files and sets exactly equal.
    Read `scales`, `rotations`, `opacities` and `colours` for the activated values; `of` makes a set from such.

    Attributes:
        means: [N, 3], centres, in the units of the world (an asset of ours fills [-0.5, 0.5]^3).
        features_dc: [N, 3], coefficients of the spherical harmonic of degree 0, any real number.
        log_scales: [N, 3], natural logarithms of the standard deviations along the Gaussian's own axes.
        quaternions: [N, 4], rotation to the world's axes (w, x, y, z), of any length from 1e-12.
        opacity_logits: [N], any real number.

    Raises:
        InputError: shapes, dtypes or devices do not fit together.
    """

    means: Tensor
    features_dc: Tensor
    log_scales: Tensor
    quaternions: Tensor
    opacity_logits: Tensor

    def __post_init__(self) -> None:
        count = self.means.shape[0] if self.means.ndim else -1
        for name, shape in _SHAPES.items():
            part: Tensor = getattr(self, name)
            if tuple(part.shape) != (count, *shape):
                raise InputError(f"Gaussians: {name} must be {['N', *shape]}, got {list(part.shape)} (N = {count})")
            if not part.is_floating_point() or part.dtype != self.means.dtype or part.device != self.means.device:
                raise InputError(
                    f"Gaussians: {name} is {part.dtype} on {part.device}, but all parts must share one floating dtype "
                    f"and one device (means are {self.means.dtype} on {self.means.device})"
                )

    @classmethod
    def of(
        cls, *, means: Tensor, features_dc: Tensor, scales: Tensor, rotations: Tensor, opacities: Tensor
    ) -> Gaussians:
        """A set from activated values.

        Args:
            means, features_dc: as of the class.
            scales: [N, 3], standard deviations, above 0.
            rotations: [N, 4], (w, x, y, z), as `quaternions`.
            opacities: [N], strictly between 0 and 1.

        Raises:
            InputError: a value outside these ranges (its logarithm or logit would not be finite), or shapes as above.
        """
        if not (scales > 0).all():
            raise InputError(f"Gaussians: scales must be above 0, got {float(scales.min())}")
        if not ((opacities > 0) & (opacities < 1)).all():
            raise InputError(
                f"Gaussians: opacities must lie strictly between 0 and 1 (say 0.999 for an opaque one), "
                f"got {float(opacities.min())} to {float(opacities.max())}"
            )
        return cls(means, features_dc, scales.log(), rotations, opacities.logit())

    @classmethod
    def cat(cls, parts: Sequence[Gaussians]) -> Gaussians:
        """All Gaussians of the parts, one part after another.

        Raises:
            InputError: no parts, or parts of different dtypes or devices.
        """
        if not parts:
            raise InputError("Gaussians.cat needs at least one part")
        kinds = {(part.means.dtype, part.means.device) for part in parts}
        if len(kinds) > 1:
            raise InputError(f"Gaussians.cat: parts differ in dtype or device: {sorted(map(str, kinds))}")
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in _SHAPES})

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Gaussians:
        """The same set on another device or in another floating dtype; gradients flow through."""
        dtype = dtype or self.means.dtype
        return Gaussians(**{name: getattr(self, name).to(device=device, dtype=dtype) for name in _SHAPES})

    def check_finite(self) -> None:
        """Refuse NaN and infinity, and quaternions that cannot be brought to length 1.

        Raises:
            InputError: names the part, how many Gaussians and the first of them.
        """
        for name in _SHAPES:
            part: Tensor = getattr(self, name).detach()
            # Extremes first: NaN and infinity show in them, and they cost a pass, not a mask.
            if part.numel() and not torch.stack(part.aminmax()).isfinite().all():
                _refuse(~part.isfinite(), f"{name} is NaN or infinite")
        lengths = self._lengths().detach()
        _refuse(
            ~((lengths >= _SHORTEST) & lengths.isfinite()), f"the quaternion is shorter than {_SHORTEST} or too long"
        )

    def __getitem__(self, which: slice | Tensor) -> Gaussians:
        """Some of the Gaussians: a slice, or indices or a mask as a tensor."""
        return Gaussians(**{name: getattr(self, name)[which] for name in _SHAPES})

    def __len__(self) -> int:
        return len(self.means)

    @property
    def requires_grad(self) -> bool:
        """Whether autograd follows any of the parts."""
        return any(getattr(self, name).requires_grad for name in _SHAPES)

    # Activated in float64 and rounded: in float32 a value's last bit depends on where in the tensor it stands
    # (vectors of 8 and what is left over go through different code), and with it the picture.
    @property
    def scales(self) -> Tensor:
        """[N, 3], standard deviations: exp(log_scales)."""
        return self.log_scales.double().exp().to(self.means.dtype)

    @property
    def rotations(self) -> Tensor:
        """[N, 4], unit quaternions (w, x, y, z)."""
        return self.quaternions / self._lengths().unsqueeze(1)

    @property
    def opacities(self) -> Tensor:
        """[N], 0 to 1: sigmoid(opacity_logits)."""
        return self.opacity_logits.double().sigmoid().to(self.means.dtype)

    def _lengths(self) -> Tensor:
        w, x, y, z = self.quaternions.double().unbind(dim=1)
        return (w * w + x * x + y * y + z * z).sqrt().to(self.means.dtype)

    @property
    def colours(self) -> Tensor:
        """[N, 3], RGB as rendered: 0.28209479 features_dc + 0.5, not below 0; above 1 is left, as 3DGS leaves it."""
        return (SH_DEGREE_0 * self.features_dc + 0.5).clamp_min(0)


_SHAPES = {"means": (3,), "features_dc": (3,), "log_scales": (3,), "quaternions": (4,), "opacity_logits": ()}


def _refuse(bad: Tensor, what: str) -> None:
    rows = bad if bad.ndim == 1 else bad.any(dim=1)
    if rows.any():
        first = int(rows.nonzero()[0])
        raise InputError(f"Gaussians: {what} in {int(rows.sum())} of {len(rows)} (the first is number {first})")
