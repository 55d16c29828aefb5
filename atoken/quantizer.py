"""Between latents and decoder: finite scalar quantisation of So/D (FACTS section 7) and its checks.

The quantizer has no learned parameters and an exact inverse.
"""

import torch
from torch import Tensor, nn

from atoken.config import ATokenConfig, FSQConfig
from atoken.errors import InputError
from atoken.patches import check_raster
from atoken.tokens import Latents, SparseTokens

__all__ = ["FSQ", "decoder_input"]

EPS = 1e-3
"""Widens the bound so that the outermost level can be reached."""


class FSQ(nn.Module):
    """Rounds each latent channel to one of a few levels; always float32.

    Channels are grouped consecutively: codebook c owns channels c*dims .. (c+1)*dims - 1, and its
    index counts its first dimension fastest.
    """

    def __init__(self, config: FSQConfig) -> None:
        super().__init__()
        self.config = config
        # In float32 step by step, as the release: from double precision the range of four levels
        # comes out one float32 lower, and latents on a border between levels get another code.
        levels = torch.tensor(config.levels * config.codebooks, dtype=torch.float32, device="cpu")
        half_range = (levels - 1) * (1 + EPS) / 2
        offset = (1 - levels % 2) / 2
        # No buffers: the official state dict has none, and they would be lost with the meta device.
        self._constants = torch.stack([half_range, offset, torch.atanh(offset / half_range), levels // 2])
        sizes = torch.tensor((1, *config.levels[:-1]), dtype=torch.int32, device="cpu")
        self._digits = sizes.cumprod(0, dtype=torch.int32)

    def bound(self, z: Tensor) -> Tensor:
        """[L, channels] any float -> float32 in the open range of the levels, before rounding."""
        if z.ndim != 2 or z.shape[1] != self.config.channels:
            raise InputError(f"the quantizer takes [L, {self.config.channels}] latents, got {list(z.shape)}")
        half, offset, shift, _ = self._on(z.device)[0]
        bounded: Tensor = torch.tanh(z.float() + shift) * half - offset
        return bounded

    def unbound(self, bounded: Tensor) -> Tensor:
        """Inverse of `bound`, but for float32 rounding."""
        half, offset, shift, _ = self._on(bounded.device)[0]
        z: Tensor = torch.atanh((bounded + offset) / half) - shift
        return z

    def outermost(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Lowest and highest level of each channel, [channels] float32, as `bound` counts them."""
        half = self._on(device)[0][3]
        levels = torch.tensor(self.config.levels * self.config.codebooks, dtype=torch.float32, device=device)
        return -half, levels - 1 - half

    def straight_through(self, bounded: Tensor) -> Tensor:
        """Codes [L, channels] in [-1, 1) of what `bound` gives, rounded; gradients pass as if they were not."""
        half = self._on(bounded.device)[0][3]
        # The added difference is exactly zero: the value stays a level, the gradient passes.
        return (bounded.detach().round() + (bounded - bounded.detach())) / half

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise latents.

        Args:
            z: [L, channels], the mean half of the moments.

        Returns:
            Codes [L, channels] float32 in [-1, 1), with straight-through gradients, and indices
            [L, codebooks] int32.
        """
        bounded = self.bound(z)
        constants, basis = self._on(z.device)
        dims = len(self.config.levels)
        digits = torch.unflatten((bounded.detach().round() + constants[3]).to(torch.int32), -1, (-1, dims))
        indices = (digits * basis).sum(dim=-1, dtype=torch.int32)
        return self.straight_through(bounded), indices

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """Exact inverse: indices [L, codebooks] (int32 or int64) -> codes [L, channels] float32.

        Raises:
            InputError: wrong shape or kind, or an index outside the codebook.
        """
        size, books = self.config.codebook_size, self.config.codebooks
        if indices.ndim != 2 or indices.shape[1] != books or indices.dtype.is_floating_point:
            raise InputError(f"codes must be [L, {books}] whole numbers, got {list(indices.shape)} {indices.dtype}")
        if indices.numel():
            low, high = (int(value) for value in indices.aminmax())
            if low < 0 or high >= size:
                raise InputError(f"codes must lie in 0..{size - 1}, got {low}..{high}")
        levels = torch.tensor(self.config.levels, dtype=torch.int32, device=indices.device)
        constants, basis = self._on(indices.device)
        half = constants[3]
        digits = (indices.unsqueeze(-1) // basis) % levels
        return (digits.flatten(-2).to(torch.float32) - half) / half

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Constants on a device: [4, channels] half range, offset, shift and half the levels; place value of digits."""
        # Moved once: a copy in each pass would make the host wait for the device.
        if self._constants.device != device:
            self._constants, self._digits = self._constants.to(device), self._digits.to(device)
        return self._constants, self._digits


def decoder_input(
    tokens: Latents | SparseTokens, config: ATokenConfig, quantizer: FSQ | None, device: torch.device
) -> SparseTokens:
    """What a model's decoder takes: latents, or for quantized models FSQ codes as floats, on `device`.

    Args:
        tokens: a posterior (its mean is taken), latents, or integer codes.
        quantizer: the model's own; None for continuous models.

    Raises:
        InputError: nothing of the kind, not the full raster of its items, codes for a continuous
            model, or latents of another width or not finite.
    """
    if not isinstance(tokens, Latents | SparseTokens):
        raise InputError(
            f"give what encode or quantize returned (several: SparseTokens.cat), not a {type(tokens).__name__}"
        )
    tokens = (tokens.mean if isinstance(tokens, Latents) else tokens).to(device)
    check_raster(tokens, config.patch)
    if tokens.is_codes:
        if quantizer is None:
            raise InputError(f"{config.name} is continuous: it cannot decode codes")
        return tokens.with_features(quantizer.indices_to_codes(tokens.features))
    channels = tokens.features.shape[1]
    if channels != config.latent_channels:
        raise InputError(f"{config.name} decodes {config.latent_channels} latent channels, got {channels}")
    if not bool(torch.isfinite(tokens.features).all()):
        raise InputError("latents must be finite; these hold NaN or infinity")
    if quantizer is None:
        return tokens
    return tokens.with_features(quantizer(tokens.features)[0])
