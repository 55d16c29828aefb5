"""Bytes that training needs, from the model's shapes: states of the optimiser, and what a forward pass keeps.

Counted per token are the tensors that autograd saves, as operators of torch run one by one do; torch.compile keeps
less. Under bfloat16 autocast the residual stream, norms and head norms stay float32, while inputs of matrix products
and attention's queries, keys, values and outputs are bfloat16. Not counted: the rasteriser, perceptual networks,
teacher and text tower, and what the allocator loses to fragments.

Shape legend: C width, M hidden width of MLPs, H heads, Z latents, P values of a token's pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from atoken.config import ATokenConfig, TransformerConfig
from atoken.training.flops import GaussianShape, Load, VoxelLoad

__all__ = ["Memory", "Parameters", "activations", "gaussian_activations", "parameters", "states"]

STATE_BYTES = {"weights": 4, "gradients": 4, "moments": 8, "average": 4}
"""Of a parameter, all in float32: AdamW has two moments. Muon has one, which is not counted off."""

POSITIONS = 256
"""Rows of the learned table of positions."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """Counts.

    Attributes:
        encoder: its blocks. decoder: likewise. gaussian: likewise.
        rest: all else, which sharded training gathers once for a whole pass.
        largest_block: of a single block.
    """

    encoder: int
    decoder: int
    gaussian: int
    rest: int
    largest_block: int

    @property
    def total(self) -> int:
        """All."""
        return self.encoder + self.decoder + self.gaussian + self.rest


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one GPU.

    Attributes:
        weights, gradients, moments, average: this GPU's part of them.
        working: copies of weights in the shape that products take: of all where there is one GPU, of two blocks and
            what is outside of blocks where weights are sharded.
        activations: of the worst pack.
    """

    weights: float
    gradients: float
    moments: float
    average: float
    working: float
    activations: float

    @property
    def total(self) -> float:
        """All."""
        return self.weights + self.gradients + self.moments + self.average + self.working + self.activations


def parameters(config: ATokenConfig, gaussian: GaussianShape | None = None, channels: int = 768) -> Parameters:
    """Counts of a model, and of its Gaussian decoder, which takes so many channels of a voxel."""
    left, right = config.encoder, config.decoder
    # Encoder: LayerNorms, biases everywhere. Decoder: RMSNorms and a gain for each channel of queries and keys.
    encoder = _matrices(left.width, left.mlp) + 9 * left.width + left.mlp
    decoder = _matrices(right.width, right.mlp) + 4 * right.width
    head = 4 * left.width**2 + 2 * left.width * left.mlp + 8 * left.width + left.mlp
    rest = (config.token_channels + 1 + POSITIONS + 2) * left.width + head
    rest += left.width * 2 * config.latent_channels
    rest += (config.latent_channels + POSITIONS + 1 + config.token_channels) * right.width
    voxel, blocks = 0, 0
    if gaussian is not None:
        voxel = _matrices(gaussian.width, gaussian.mlp) + 2 * gaussian.width
        blocks = gaussian.blocks
        rest += channels * gaussian.width + 14 * gaussian.gaussians * (gaussian.width + 1)
    return Parameters(left.blocks * encoder, right.blocks * decoder, blocks * voxel, rest, max(encoder, decoder, voxel))


def states(counted: Parameters, gpus: int, *, half: bool, activations: float) -> Memory:
    """What is held on each of so many GPUs that share weights, gradients, moments and averages (FSDP2)."""
    share = {name: size * counted.total / gpus for name, size in STATE_BYTES.items()}
    if gpus == 1:
        working = 2.0 * counted.total if half else 0.0
    else:
        # Blocks come and go, one ahead of the other, each with its gradient; the rest stays, in float32.
        working = 2 * counted.largest_block * ((2 + 4) if half else (4 + 4)) + (4 + 4) * counted.rest
    return Memory(**share, working=working, activations=activations)


def activations(config: ATokenConfig, load: Load, *, decoded: bool, half: bool, recompute: bool) -> float:
    """Bytes that one pack's forward pass keeps for the backward pass.

    Args:
        decoded: whether the pack goes on through the decoder; if not, it is pooled.
        half: bfloat16 autocast over float32 weights.
        recompute: only the input of each block is kept, and one block's own at a time.
    """
    encoder, pixels, latents = config.encoder, config.token_channels, config.latent_channels
    kept = _halves(encoder, load.tokens, decoder=False, half=half, recompute=recompute)
    size = 2 if half else 4
    # The pixels, the same as the first layer takes them, the last norm's input, its output for the next product.
    ends = 4 * pixels + (2 * pixels if half else 0) + (4 + size) * encoder.width
    if not decoded:
        # Keys and values of the pooling head; the items' own vectors are few.
        return kept + load.tokens * (ends + 2 * size * encoder.width)
    decoder = config.decoder
    kept += _halves(decoder, load.tokens, decoder=True, half=half, recompute=recompute)
    # Moments, standard deviation, noise, the latents as the decoder takes them.
    ends += 4 * 2 * latents + 4 * 2 * latents + size * latents
    # The last norm, and the difference of pixels and their copy.
    ends += (4 + size) * decoder.width + 4 * pixels
    return kept + load.tokens * ends


def gaussian_activations(
    config: GaussianShape, heads: int, channels: int, load: VoxelLoad, *, half: bool, recompute: bool
) -> float:
    """As `activations`, of the Gaussian decoder; its windows' scores are held whole."""
    width, hidden, size = config.width, config.mlp, 2 if half else 4
    # Residual stream before either norm, what the norms give, queries, keys, values, attention's output; the MLP's.
    row = 8 * width + size * ((2 + 3 + 1) * width + 2 * hidden)
    # Of each pair and head: the hyperbolic tangent, the softmax, and that as the product takes it.
    pair = heads * (10 if half else 8)
    even, odd = load.pairs
    blocks = [load.voxels * row + pair * (odd if index % 2 else even) for index in range(config.blocks)]
    ends = size * channels + (4 + size) * width + 4 * 14 * config.gaussians
    kept = max(blocks) + 4 * config.blocks * load.voxels * width if recompute else sum(blocks)
    return kept + load.voxels * ends


def _halves(half_config: TransformerConfig, tokens: float, *, decoder: bool, half: bool, recompute: bool) -> float:
    blocks, width, hidden = half_config.blocks, half_config.width, half_config.mlp
    size = 2 if half else 4
    # Residual stream before either norm, in float32; what the norms give to products, queries, keys and values
    # together, queries and keys turned, attention's output; before and after the MLP's activation.
    block = 8 * width + size * ((2 + 3 + 2 + 1) * width + 2 * hidden)
    if decoder:
        # Queries and keys before (a copy in float32 where they are not) and after their norm.
        block += (16 if half else 8) * width
    table = 4 * half_config.head_dim  # angles, of all blocks
    if recompute:
        return tokens * (4 * width * blocks + block + table)
    return tokens * (block * blocks + table)


def _matrices(width: int, hidden: int) -> int:
    return 4 * width**2 + 2 * width * hidden
