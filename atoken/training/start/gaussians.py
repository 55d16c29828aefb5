"""A Gaussian decoder that, untrained, draws each voxel in the mean colour of its patch.

The stream of the decoder carries the lowest DCT coefficients of a voxel's 16 x 16 patch, of which the first of each
colour is its mean, in directions in which the sine and cosine embedding of positions is nothing. The embedding itself
is of constant length, but the last norm, which has no weights, also takes off the mean over channels, and that is not
constant: so the first block writes a pair of large opposite numbers, beside which all else is small, and the norms
become nearly constant scales. From there colours are read linearly. All other outputs of the blocks start at zero.

The Gaussians of a voxel stand where the release's stand at first (Hammersley points, FACTS section 9), small and
opaque, so that together they fill it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from atoken.assets.gaussian_decoder import GaussianDecoder, GaussianDecoderConfig, voxel_positions
from atoken.assets.gaussians import SH_DEGREE_0
from atoken.training.errors import TrainingError

__all__ = ["hammersley", "start_gaussians"]

CONSTANT = 30.0
"""Of the pair; a patch's coefficients are GAIN at most."""
GAIN = 0.25
"""Of the coefficients in the stream: small, so that the first norm hardly feels them."""
SATURATED = 8.0
"""Input of a GELU that passes it on unchanged."""
SILENCE = 1e-4
"""A direction carries coefficients if no position's embedding reaches further along it."""
SPREAD, OPACITY = 0.8, 0.5
"""How far apart a voxel's Gaussians stand (1: over the whole voxel), and how opaque each is."""


def sigma(count: int) -> float:
    """Standard deviation, in voxels, of each of a voxel's Gaussians.

    With exact colours they draw models as well as one round Gaussian in each voxel does, for 4, 8 and 32 of them. Wider
    or more opaque ones cover outlines better and blur, smaller or clearer ones let the ground shine through.
    """
    return float(0.2 * (8 / count) ** 0.4)


@torch.no_grad()
def start_gaussians(config: GaussianDecoderConfig, *, seed: int) -> GaussianDecoder:
    """A decoder of this shape, ready to be trained.

    Args:
        seed: of what is drawn at random (the blocks' input projections).

    Raises:
        TrainingError: no block, too narrow for three colours beside the positions, patches that are not square RGB, or
            Gaussians that cannot leave their voxel.
    """
    side = math.isqrt(config.channels // 3)
    if 3 * side * side != config.channels or config.blocks < 1 or config.reach <= 1:
        raise TrainingError(
            f"a Gaussian decoder starts with square RGB patches, one block or more and a reach above 1, not with "
            f"{config.channels} channels, {config.blocks} blocks and a reach of {config.reach:g}"
        )
    carriers, pair = _carriers(config)
    if len(carriers) < 3:
        raise TrainingError(f"a Gaussian decoder {config.width} wide has no room for colours; take one of 48 or more")
    decoder = GaussianDecoder(config)
    patterns = _patterns(side)[: len(carriers)]
    carriers = carriers[: len(patterns)]
    decoder.input_layer.weight.copy_(GAIN * carriers.t() @ patterns)
    energy = float(voxel_positions(torch.zeros(1, 3, dtype=torch.long), config.width).square().sum())
    before = math.sqrt(energy / config.width)
    after = math.sqrt((energy + 2 * CONSTANT**2) / config.width)
    generator = torch.Generator().manual_seed(seed)
    # What is random sees coefficients as large as they are without the gain.
    louder = torch.eye(config.width) + (1 / GAIN - 1) * (carriers.t() @ carriers).float()
    for index, block in enumerate(decoder.blocks):
        for name in ("attn.to_qkv.weight", "mlp.mlp.0.weight"):
            weight = block.get_parameter(name)
            nn.init.normal_(weight, std=config.width**-0.5, generator=generator)
            weight.copy_(weight @ louder)
        for name in ("attn.to_out.weight", "mlp.mlp.2.weight"):
            nn.init.zeros_(block.get_parameter(name))
        for name in ("norm1.weight", "norm2.weight"):
            weight = block.get_parameter(name)
            weight.fill_(before if index == 0 else after)
            if index > 0:
                weight[list(pair)] /= CONSTANT
    _write_constants(decoder.blocks[0], pair)
    _initialise_output(decoder, carriers[:3].float(), after)
    return decoder


def hammersley(count: int) -> Tensor:
    """[count, 3] float64 in 0..1: i / count, and i mirrored at the point in base 2 and in base 3 (FACTS section 9)."""
    return torch.tensor([[i / count, _mirrored(i, 2), _mirrored(i, 3)] for i in range(count)], dtype=torch.float64)


def _mirrored(index: int, base: int) -> float:
    value, digit = 0.0, 1.0 / base
    while index:
        index, rest = divmod(index, base)
        value, digit = value + rest * digit, digit / base
    return value


def _carriers(config: GaussianDecoderConfig) -> tuple[Tensor, tuple[int, int]]:
    """Directions [n, width] that the embedding leaves empty, and the two channels that hold the constants.

    Orthonormal, float64, the emptiest first, at right angles to the constants and to the mean over channels.
    """
    width = config.width
    steps = torch.arange(config.resolution)
    each = voxel_positions(steps.unsqueeze(1).expand(-1, 3), width).double()
    count = width // 3 // 2
    axes = [each * (torch.arange(width) // (2 * count) == axis) for axis in range(3)]
    # The slowest cosine of an axis hardly leaves 1.
    pair = (2 * count - 1, 4 * count - 1)
    fixed = torch.zeros(3, width, dtype=torch.float64)
    fixed[0], fixed[1, pair[0]], fixed[2, pair[1]] = 1.0, 1.0, 1.0
    _, lengths, directions = torch.linalg.svd(torch.cat([*axes, fixed]), full_matrices=True)
    reached = int((lengths > SILENCE).sum())
    return directions[reached:].flip(0), pair


def _patterns(side: int) -> Tensor:
    """Functions of a patch [3 side^2, 3 side^2]: DCT coefficients by frequency, each in three colours; float64.

    The first of each colour is the mean of its pixels, the others have the same share of the patch's energy.
    """
    place = torch.arange(side, dtype=torch.float64)
    waves = torch.cos(torch.pi * (place + 0.5) * place.unsqueeze(1) / side) * math.sqrt(2 / side)
    waves[0] /= math.sqrt(2)
    planes = torch.einsum("ay,bx->abyx", waves, waves).reshape(side * side, side * side) / side
    order = sorted(range(side * side), key=lambda i: (i // side + i % side, max(divmod(i, side)), i))
    colours = torch.eye(3, dtype=torch.float64)
    return torch.einsum("kp,cd->kcpd", planes[order], colours).reshape(3 * side * side, -1)


def _write_constants(block: nn.Module, pair: tuple[int, int]) -> None:
    """One hidden unit of the MLP sees the two channels' ones, and writes the large pair upon them."""
    reads, writes = block.get_parameter("mlp.mlp.0.weight"), block.get_parameter("mlp.mlp.2.weight")
    reads[0] = 0.0
    reads[0, list(pair)] = SATURATED / 2
    writes[pair[0], 0], writes[pair[1], 0] = CONSTANT / SATURATED, -CONSTANT / SATURATED


def _initialise_output(decoder: GaussianDecoder, colours: Tensor, scale: float) -> None:
    """Linear colours and constant shapes; `scale` is what the last norm divides by."""
    config, count = decoder.config, decoder.config.gaussians
    weight, bias = decoder.out_layer.weight, decoder.out_layer.bias
    weight.zero_()
    bias.zero_()
    # From -1..1 to the coefficient of degree 0, whose colour is SH_DEGREE_0 * it + 1/2.
    rows = colours * (scale / GAIN / (2 * SH_DEGREE_0))
    weight[3 * count : 6 * count] = rows.repeat(count, 1)
    points = hammersley(count)
    perturbation = torch.atanh((2 * points - 1) / config.reach)
    decoder.offset_perturbation.copy_(perturbation)
    # The points of a few are not centred, and fewer need not reach as far.
    wanted = 2 * SPREAD * (points - points.mean(0))
    bias[: 3 * count] = (torch.atanh(wanted / config.reach) - perturbation).flatten()
    deviation = sigma(count) / config.resolution
    own = max(deviation**2 - config.smallest_scale**2, (0.1 * deviation) ** 2)
    scale_output = _softplus_inverse(math.sqrt(own))
    bias[6 * count : 9 * count] = scale_output - _softplus_inverse(config.scaling_bias)
    bias[13 * count :] = _logit(OPACITY) - _logit(config.opacity_bias)


def _softplus_inverse(value: float) -> float:
    return math.log(math.expm1(value))


def _logit(value: float) -> float:
    return math.log(value / (1 - value))
