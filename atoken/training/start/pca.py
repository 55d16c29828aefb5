"""Starting from the PCA of patches: the untrained model already reconstructs as well as `pca:K`.

The residual stream of both halves carries PCA coefficients. Constant channels much larger than all
coefficients make every LayerNorm / RMSNorm a nearly constant scale, whose weights whiten the
coefficients for what follows; the blocks' output projections start at zero. So the encoder's
projection reads the first K coefficients (unit variance each), the decoder puts the components
back together, and the mean patch comes from the decoder's constant channel. All that the blocks
learn comes on top. So that they need not first find out where their neighbours are, each attention
head starts with its eye on one neighbouring patch, which rotary positions allow: queries turned by
the neighbour's offset meet unturned keys. Its values are that patch's coefficients.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from atoken.positions import rotary_frequencies
from atoken.tokenizer import AToken
from atoken.training.errors import TrainingError
from atoken.training.start.basis import CONSTANT, Basis, norms_of
from atoken.transformer import Block, Decoder, Encoder, SelfAttention

__all__ = ["initialise"]

BALANCE_GAIN = 0.1
NEIGHBOURS = (((0, 1), (0, -1), (1, 0), (-1, 0)), ((1, 1), (-1, -1), (1, -1), (-1, 1)))
"""(rows, columns) that the heads of even and of odd blocks look at."""
SHARPNESS = 24.0
"""Attention logit of the patch looked at; one patch further it is about a ninth lower."""
CONTENT = 0.25
"""Of the random part of queries and keys, relative to the usual start."""
HEAD_STD = 0.02


@torch.no_grad()
def initialise(model: AToken, basis: Basis, *, latent_std: float, seed: int) -> None:
    """Set every weight of an image model, whose patches have one frame, from the basis.

    Args:
        latent_std: standard deviation of the posterior, whose latents have unit variance.
        seed: of what is drawn at random (the blocks' input projections, the pooling head).

    Raises:
        TrainingError: longer patches (`with_clips` and `with_frames` give them to a trained model), or a model that
            is too narrow to carry the coefficients.
    """
    config = model.config
    latents = config.latent_channels
    if config.patch[0] != 1:
        raise TrainingError(f"{config.name}: a PCA of images fills patches of 1 frame, not {config.patch[0]}")
    if min(config.encoder.width - 3, config.decoder.width - 1) < latents:
        raise TrainingError(f"{config.name}: widths must exceed its {latents} latents by 3 to start from a PCA")
    generator = torch.Generator().manual_seed(seed)
    for half in (model.encoder, model.decoder):
        for index, block in enumerate(_blocks(half)):
            _initialise_block(block, index, generator)
    for name, parameter in model.encoder.head.named_parameters():
        if parameter.ndim > 1 or name == "probe":
            nn.init.trunc_normal_(parameter, std=HEAD_STD, generator=generator)
    _initialise_encoder(model, basis, latent_std)
    _initialise_decoder(model, basis)


def _blocks(half: Encoder | Decoder) -> list[Block]:
    return [block for block in half.blocks if isinstance(block, Block)]


def _initialise_block(block: Block, index: int, generator: torch.Generator) -> None:
    attention = block.attn
    for weight in (attention.to_qkv.weight, block.mlp.get_parameter("mlp.0.weight")):
        nn.init.normal_(weight, std=weight.shape[1] ** -0.5, generator=generator)
    for weight in (attention.to_out.weight, block.mlp.get_parameter("mlp.2.weight")):
        nn.init.zeros_(weight)
    queries, keys = _look(attention, index)
    constant = torch.cat([queries, keys, torch.zeros_like(keys)])
    if attention.q_rms_norm is None or attention.k_rms_norm is None:
        attention.to_qkv.bias.copy_(constant)
        return
    # No bias in the decoder, but a channel that holds 1 after the norm; head norms undo lengths.
    attention.to_qkv.weight[:, -1] = constant
    for norm in (attention.q_rms_norm, attention.k_rms_norm):
        norm.gamma.fill_((SHARPNESS / attention.head_dim**0.5) ** 0.5)


def _look(attention: SelfAttention, index: int) -> tuple[Tensor, Tensor]:
    """Constant queries and keys [width] that make each head look at a neighbour.

    Scales down the random part of the layer's queries and keys, and makes the values a copy of the
    first channels. Without a head norm, the constants alone give a logit of SHARPNESS.
    """
    heads, size = attention.heads, attention.head_dim
    width = heads * size
    angles = rotary_frequencies(size)
    weight = attention.to_qkv.weight
    weight[: 2 * width] *= CONTENT
    weight[2 * width :] = torch.eye(size, width).repeat(heads, 1)
    offsets = NEIGHBOURS[index % 2]
    queries = torch.zeros(heads, 4, len(angles), 2)  # axes t, x, y, z; real and imaginary part
    keys = torch.zeros_like(queries)
    keys[:, 1:3, :, 0] = 1.0
    for head in range(heads):
        for axis, offset in enumerate(offsets[head % len(offsets)], start=1):
            queries[head, axis, :, 0] = (offset * angles).cos()
            queries[head, axis, :, 1] = (offset * angles).sin()
    length = (SHARPNESS * size**0.5 / (2 * len(angles))) ** 0.5
    return queries.flatten() * length, keys.flatten() * length


def _initialise_encoder(model: AToken, basis: Basis, latent_std: float) -> None:
    encoder, latents, width = model.encoder, model.config.latent_channels, model.config.encoder.width
    count = min(width - 3, basis.variances.numel())
    std, gain = (
        basis.std(count),
        basis.gain(count),
    )  # of each channel: half whitened, so that no channel is lost in bf16
    rows = (basis.components[:, :count] / std * gain).t()
    layer = encoder.input_layer
    layer.weight.zero_()
    layer.bias.zero_()
    layer.weight[:count] = rows
    layer.bias[:count] = -rows @ basis.mean
    # LayerNorm subtracts the mean over channels: one channel keeps it at zero.
    layer.weight[-3] = -layer.weight[:count].sum(0)
    layer.bias[-3] = -layer.bias[:count].sum()
    layer.bias[-2], layer.bias[-1] = CONSTANT, -CONSTANT
    encoder.pos_embedder.position_embedding.weight.zero_()
    scale = (2 * CONSTANT**2 / width) ** 0.5  # what the norms divide by
    weight = torch.full((width,), scale)
    weight[:count] = scale / gain
    weight[-3] = BALANCE_GAIN * scale
    weight[-2:] = scale / CONSTANT
    _set(norms_of(encoder), weight)
    model.proj.weight.zero_()
    model.proj.weight[:latents, :latents] = torch.eye(latents)
    # The log variance is a constant: half of it from each of the channels that hold +1 and -1.
    logvar = 2.0 * float(np.log(latent_std))
    model.proj.weight[latents:, -2], model.proj.weight[latents:, -1] = logvar / 2, -logvar / 2


def _initialise_decoder(model: AToken, basis: Basis) -> None:
    decoder, latents, width = model.decoder, model.config.latent_channels, model.config.decoder.width
    count = min(width - 1, basis.variances.numel())
    std, gain = basis.std(count), basis.gain(latents)
    decoder.input_layer.weight.zero_()
    decoder.input_layer.weight[:latents] = torch.diag(gain)
    table = decoder.pos_embedder.position_embedding.weight
    table.zero_()
    table[:, -1] = CONSTANT  # no bias in this half: the position table brings the constant
    scale = (CONSTANT**2 / width) ** 0.5
    weight = torch.full((width,), scale)
    weight[:latents] = scale / gain
    weight[-1] = scale / CONSTANT
    _set(norms_of(decoder), weight)
    # Channels past the latents start empty; what blocks write there adds the next components.
    out = decoder.out_layer.weight
    out.zero_()
    out[:, :count] = basis.components[:, :count] * std
    out[:, -1] = basis.mean


def _set(norms: Iterable[nn.Module], weight: Tensor) -> None:
    for norm in norms:
        norm.get_parameter("weight").copy_(weight)
