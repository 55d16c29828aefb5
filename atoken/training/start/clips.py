"""Clips beside images in a model that a PCA began: each has its own components, and the same latents carry both.

Images and assets leave frames 1.. of a patch at zero. So the encoder can tell: if a few coefficients of those frames
are not all zero, the patch is a clip's. Block 0 adds up how far they are from zero, block 1 makes a flag of the sum,
and block 2 then writes the clip's coefficients over the image's. The flag itself is the last latent. By it block 0 of
the decoder moves the latents from the channels out of which images are made into those out of which clips are. All of
it is done by hidden units of the MLPs; where there is no clip they are zero. A flag that a step of training pushed too
low would never have a gradient again, so these units, and the channels that only they use, are held (`held`); what
makes the coefficients, and what becomes of them, is trained like anything else.

An open gate's units hold what passes beside three times WIDE: in bfloat16 that rounds it to a quarter of its standard
deviation, so such a model is for float32.

Room for it is taken where a model trained on images needs it least: the stream's channels of the last coefficients,
which from then on nothing else reads or writes, and the units that write least.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atoken.config import ATokenConfig
from atoken.tokenizer import AToken
from atoken.tokens import SparseTokens
from atoken.training.errors import TrainingError
from atoken.training.start.basis import CONSTANT, Basis, norms_of
from atoken.transformer import Block, Decoder, Encoder

__all__ = ["add_clips", "held", "refit"]

PROBES = 8
"""Coefficients of frames 1.. by which a clip is told; a patch in which all are zero passes for an image."""
SHARP = 16.0
"""Slope of the units that clip a probe to 0..1, and of those that make the flag: their corners are 1 / SHARP wide."""
QUIET, LOUD = 0.1, 1.0
"""How large the stream carries probes, so that the norms hardly feel them, and the sum of the clipped ones, so that
what else blocks learn to write there hardly moves the flag."""
FLAG = 2.0
"""How large the streams carry the flag."""
UNSURE, SURE = 0.1, 0.5
"""The sum at which the flag begins to rise, and at which it is 1."""
WIDE = 20.0
"""What shuts a gate, in standard deviations of what passes it; larger values are cut off."""
OPEN = 4 * WIDE
"""What the flag adds: a gate stays open where a stream that training made louder leaves half of the flag."""
RIDGE = 1e-3
"""Of the fit of what clips write, relative to the mean square of what it is fitted on."""
_WITHOUT = "give the stage before all {} latents, and clips begin without components"
_WRITING = ("input_layer.weight", "input_layer.bias", "to_out.weight", "to_out.bias", "mlp.2.weight", "mlp.2.bias")
_SCALING = re.compile(r"(blocks\.\d+\.norm[12]|post_layernorm|out_norm)\.")
"""Parameters of a half that write to the stream, whose rows are its channels, and those that scale what is read."""


@torch.no_grad()
def add_clips(model: AToken, images: Basis, clips: Basis) -> None:
    """Build the clips' way into a model that has the frames already, and a last latent to tell of them.

    Raises:
        TrainingError: too few blocks or hidden units, or too narrow.
    """
    config = model.config
    latents = config.latent_channels - 1
    units = max(2 * latents, 4 * PROBES)
    if config.encoder.blocks < 3 or config.encoder.mlp < units or config.decoder.mlp < 2 * latents:
        raise TrainingError(
            f"{config.name}: clips beside images take 3 blocks in the encoder and MLPs of {units} hidden units; "
            f"{_WITHOUT.format(latents + 1)}"
        )
    taken, written = _taken(config), _written(config)
    if min(taken, written) < max(latents, PROBES):
        raise TrainingError(
            f"{config.name}: it is too narrow for clips beside images, with {latents} latents each; "
            f"{_WITHOUT.format(latents + 1)}"
        )
    _encoder(model, images, clips, taken, latents)
    _decoder(model, images, clips, written, latents)


@torch.no_grad()
def refit(model: AToken, clips: Iterable[SparseTokens]) -> None:
    """Let clips' channels also write, by least squares, what else the model's blocks leave wrong in clips.

    Blocks that were trained on images add to a clip what an image would need. What of it is linear in a clip's
    coefficients is taken off again here, at once, so that training has no reason to shut the gate.

    Args:
        clips: pixel tokens of clips.
    """
    decoder, latents = model.decoder, model.config.latent_channels
    first = _written(model.config)
    seen: list[Tensor] = []
    hook = decoder.out_norm.register_forward_hook(lambda _, __, out: seen.append(out[:, first : first + latents]))
    products = torch.zeros(latents, latents, dtype=torch.float64)
    wanted = torch.zeros(latents, model.config.token_channels, dtype=torch.float64)
    try:
        for tokens in clips:
            mean = model.forward_encoder(tokens)[1][:, :latents]
            wrong = (tokens.features - model.forward_decoder(tokens.with_features(mean))).double()
            inputs = torch.cat(seen).double()
            seen.clear()
            products, wanted = products + inputs.T @ inputs, wanted + inputs.T @ wrong
    finally:
        hook.remove()
    ridge = RIDGE * products.diagonal().mean() * torch.eye(latents)
    decoder.out_layer.weight[:, first : first + latents] += torch.linalg.solve(products + ridge, wanted).T.float()


def held(model: AToken) -> dict[str, Tensor]:
    """Which weights of a model that `add_clips` has been to must stay as they are.

    Returns:
        Bool, by parameter's name, of its shape; nothing for any other model.
    """
    config = model.config
    latents = config.latent_channels - 1
    if config.patch[0] == 1 or min(_taken(config), _written(config)) < max(latents, PROBES):
        return {}
    room, flag = _Room.behind(_taken(config), latents), _written(config) + latents
    if model.encoder.input_layer.weight[room.nothing].any() or model.decoder.input_layer.weight[flag, :latents].any():
        return {}
    found: dict[str, Tensor] = {}

    def hold(name: str, rows: object, columns: object = slice(None)) -> None:
        parameter = model.get_parameter(name)
        mask = found.setdefault(name, torch.zeros(parameter.shape, dtype=torch.bool))
        if parameter.ndim == 1:
            mask[rows] = True  # type: ignore[index]
        else:
            mask[rows, columns] = True  # type: ignore[index]

    for half, channels in (("encoder", room.telling), ("decoder", slice(flag, flag + 1))):
        for name, _ in getattr(model, half).named_parameters(prefix=half):
            place = name.split(".", 1)[1]
            written = place.startswith(("input_layer.", "blocks.")) and place.endswith(_WRITING)
            scaled = _SCALING.match(place) is not None
            if written or scaled:
                hold(name, channels)
            elif place.startswith("pos_embedder."):
                hold(name, slice(None), channels)
        for index, block in enumerate(getattr(model, half).blocks):
            name = f"{half}.blocks.{index}.mlp.mlp"
            units = block.get_parameter("mlp.mlp.0.weight")[:, channels].any(dim=1)
            hold(f"{name}.0.weight", slice(None), channels)
            # An open gate's units are far from zero and cancel in pairs: the least change of one would be heard.
            hold(f"{name}.0.weight", units)
            hold(f"{name}.2.weight", slice(None), units)
            if half == "encoder":
                hold(f"{name}.0.bias", units)
    hold("decoder.input_layer.weight", slice(None), latents)
    hold("proj.weight", [latents, 2 * latents + 1])
    return found


def _taken(config: ATokenConfig) -> int:
    """First channel of the encoder's stream that clips get: coefficients, probes, their sum, the flag, a nothing."""
    return config.encoder.width - 3 - (config.latent_channels - 1 + PROBES + 3)


def _written(config: ATokenConfig) -> int:
    """First channel of the decoder's stream that clips get: coefficients, the flag."""
    return config.decoder.width - 1 - config.latent_channels


@dataclass(frozen=True, slots=True)
class _Room:
    """Channels of the encoder's stream that clips get.

    Attributes:
        own: of their coefficients.
        probes: of what tells clips from images, `total` of its sum, `flag` of what becomes of it.
        nothing: always zero before a norm.
        balance: of the PCA's start: it keeps the mean over channels near zero.
    """

    own: slice
    probes: slice
    total: int
    flag: int
    nothing: int
    balance: int

    @classmethod
    def behind(cls, taken: int, latents: int) -> _Room:
        first = taken + latents
        return cls(slice(taken, first), slice(first, first + PROBES), *range(first + PROBES, first + PROBES + 4))

    @property
    def fresh(self) -> slice:
        """All but the last."""
        return slice(self.own.start, self.balance)

    @property
    def telling(self) -> slice:
        """All by which clips are told from images."""
        return slice(self.probes.start, self.balance)


def _encoder(model: AToken, images: Basis, clips: Basis, taken: int, latents: int) -> None:
    encoder, room = model.encoder, _Room.behind(taken, latents)
    layer, norms = encoder.input_layer, norms_of(encoder)
    scale = (2 * CONSTANT**2 / model.config.encoder.width) ** 0.5
    fresh, balance = room.fresh, room.balance
    _clear(encoder, fresh)
    # The coefficients that leave take with them what balances them.
    layer.weight[balance] += layer.weight[fresh].sum(0)
    layer.bias[balance] += layer.bias[fresh].sum()
    layer.weight[fresh], layer.bias[fresh] = 0.0, 0.0
    std, gain = clips.std(latents), clips.gain(latents)
    rows = (clips.components[:, :latents] / std * gain).t()
    layer.weight[room.own], layer.bias[room.own] = rows, -rows @ clips.mean
    # Means over the frames after the first; from mid grey, not from the mean patch, or images would not give zero.
    frames = model.config.patch[0]
    probe = QUIET * (images.components[:, :PROBES] / images.std(PROBES)).t()
    layer.weight[room.probes] = torch.cat([torch.zeros_like(probe), probe.repeat(1, frames - 1) / (frames - 1)], 1)
    layer.weight[balance] -= layer.weight[fresh].sum(0)
    layer.bias[balance] -= layer.bias[fresh].sum()
    for norm in norms:
        norm.get_parameter("weight")[fresh], norm.get_parameter("bias")[fresh] = scale, 0.0
        norm.get_parameter("weight")[room.own] = scale / gain
    model.proj.weight[:, fresh] = 0.0
    # The latent is 1 for a clip and 0 for an image.
    model.proj.weight[latents] = 0.0
    model.proj.weight[latents, room.flag] = 1.0 / FLAG
    _place_tellers(encoder, room)
    _place_gate(encoder.blocks[2], room, images.gain(latents))


def _place_tellers(encoder: Encoder, room: _Room) -> None:
    """Units of block 0 that add up the probes, and of block 1 that make a flag of the sum."""
    width = encoder.input_layer.out_features
    reads, bias, writes = torch.zeros(4 * PROBES, width), torch.zeros(4 * PROBES), torch.zeros(width, 4 * PROBES)
    for index in range(PROBES):
        # max(0, x) - max(0, x - 1) of x and of -x.
        at = slice(4 * index, 4 * index + 4)
        reads[at, room.probes.start + index] = SHARP / QUIET * torch.tensor([1.0, 1.0, -1.0, -1.0])
        bias[at] = -SHARP * torch.tensor([0.0, 1.0, 0.0, 1.0])
        writes[room.total, at] = LOUD / SHARP * torch.tensor([1.0, -1.0, 1.0, -1.0])
    _place_beside(encoder.blocks[0], room, reads, bias, writes)

    reads, bias, writes = torch.zeros(2, width), torch.zeros(2), torch.zeros(width, 2)
    reads[:, room.total] = SHARP / (LOUD * (SURE - UNSURE))
    bias[:] = -SHARP * torch.tensor([UNSURE, SURE]) / (SURE - UNSURE)
    writes[room.flag] = FLAG * torch.tensor([1.0, -1.0]) / SHARP
    _place_beside(encoder.blocks[1], room, reads, bias, writes)


def _place_gate(block: nn.Module, room: _Room, gain: Tensor) -> None:
    """Units that write, where the flag is 1, a clip's coefficients over an image's, whose gain is [latents]."""
    assert isinstance(block, Block)
    latents, width = len(gain), block.mlp.get_parameter("mlp.0.weight").shape[1]
    units, written = torch.eye(latents), torch.diag(gain)
    reads, writes = torch.zeros(2 * latents, width), torch.zeros(width, 2 * latents)
    # Twice half of max(0, x + WIDE) - max(0, -x + WIDE) is x, whatever WIDE is exactly.
    reads[:, :latents] = torch.cat([-units, units])
    reads[:, room.own] = torch.cat([units, -units])
    reads[:, room.flag] = OPEN / FLAG
    writes[:latents] = torch.cat([written, -written], 1) / 2
    _place_beside(block, room, reads, torch.full((2 * latents,), -WIDE), writes)


def _decoder(model: AToken, images: Basis, clips: Basis, written: int, latents: int) -> None:
    decoder, frames = model.decoder, model.config.patch[0]
    own, flag = torch.arange(latents) + written, written + latents
    std, gain = clips.std(latents), clips.gain(latents)
    usual = torch.diag(images.gain(latents))
    scale = (CONSTANT**2 / model.config.decoder.width) ** 0.5
    fresh = slice(written, flag + 1)
    _clear(decoder, fresh)
    decoder.input_layer.weight[fresh] = 0.0
    decoder.input_layer.weight[:, latents] = 0.0
    decoder.input_layer.weight[flag, latents] = FLAG
    norms = norms_of(decoder)
    for block in decoder.blocks:
        assert isinstance(block, Block)
        # Values of neighbours: behind the gate the coefficients lie in other channels.
        _, _, values = block.attn.to_qkv.weight.chunk(3)
        values[:, own] += values[:, :latents]
    for norm in norms:
        norm.get_parameter("weight")[fresh] = scale
        norm.get_parameter("weight")[own] = scale / gain

    units = torch.eye(latents)
    width = model.config.decoder.width
    reads, writes = torch.zeros(2 * latents, width), torch.zeros(width, 2 * latents)
    reads[:, :latents] = torch.cat([units, -units])
    reads[:, flag], reads[:, -1] = OPEN / FLAG, -WIDE
    writes[:latents] = torch.cat([-usual, usual], 1) / 2
    writes[own] = torch.cat([torch.diag(gain), -torch.diag(gain)], 1) / 2
    _place(decoder.blocks[0], reads, None, writes)

    out = decoder.out_layer.weight
    out[:, own] = clips.components[:, :latents] * std
    out[:, flag] = (clips.mean - images.mean.repeat(frames)) / FLAG


def _clear(half: Encoder | Decoder, channels: slice) -> None:
    """Nothing reads or writes these channels of the stream any more."""
    half.pos_embedder.position_embedding.weight[:, channels] = 0.0
    for block in half.blocks:
        for name, parameter in block.named_parameters():
            if name in ("attn.to_qkv.weight", "mlp.mlp.0.weight"):
                parameter[:, channels] = 0.0
            elif name.startswith(("attn.to_out.", "mlp.mlp.2.")):
                parameter[channels] = 0.0
    for name, parameter in half.named_parameters():
        if name in ("head.attention.to_kv.weight", "out_layer.weight"):
            parameter[:, channels] = 0.0


def _place_beside(block: nn.Module, room: _Room, reads: Tensor, bias: Tensor, writes: Tensor) -> None:
    """`_place` beside the LayerNorms, which take off the mean over channels: units feel none of it, nor change it."""
    weight = block.get_parameter("norm2.weight")
    reads[:, room.nothing] = -(reads @ weight) / weight[room.nothing]
    writes[room.balance] = -writes.sum(0)
    _place(block, reads, bias, writes)


def _place(block: nn.Module, reads: Tensor, bias: Tensor | None, writes: Tensor) -> None:
    """Give a block's MLP hidden units in the places of those that write least.

    Args:
        reads: [n, width].
        bias: [n], of an MLP with biases.
        writes: [width, n].
    """
    first, last = block.get_parameter("mlp.mlp.0.weight"), block.get_parameter("mlp.mlp.2.weight")
    places = torch.argsort(last.square().sum(0), stable=True)[: len(reads)]
    first[places], last[:, places] = reads, writes
    if bias is not None:
        block.get_parameter("mlp.mlp.0.bias")[places] = bias
