"""From a trained stage's model to the next stage's (paper 3.4): longer patches, more latents or blocks, a quantizer.

Each function leaves the model that it is given as it is and makes another of its weights. What the new model does is
what the old one did, until training makes use of what is new.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from atoken.config import ATokenConfig, FSQConfig
from atoken.tokenizer import AToken
from atoken.training.errors import TrainingError
from atoken.training.start.basis import Basis
from atoken.training.start.clips import add_clips, held

__all__ = ["with_blocks", "with_clips", "with_frames", "with_latents", "with_quantizer"]

FIRST_STAGE, CONTINUOUS, DISCRETE = "-s1", "-c", "-d"
"""How the names of the released models end."""


def with_frames(model: AToken, frames: int, *, still: bool = False) -> AToken:
    """The trained image model, whose patches are one frame long, with patches of `frames` frames.

    The encoder's weights of frames 1.. start at zero (paper 3.2): it looks at the first frame. So images, and assets,
    are encoded and decoded as before; what is decoded beyond frame 0 is cut off for them.

    Args:
        frames: of a patch; must divide the model's tiles.
        still: the decoder writes into every frame what it writes into the first, so that a clip in which nothing
            moves comes back as its image does. Otherwise frames 1.. come back mid grey.

    Raises:
        TrainingError: the model's patches are longer than a frame, or `frames` does not fit its tiles.
    """
    config = model.config
    if config.patch[0] != 1:
        raise TrainingError(
            f"{config.name}: its patches have {config.patch[0]} frames already; only one can become more"
        )
    if frames < 1 or config.tile_frames % frames:
        raise TrainingError(f"{config.name}: its tiles of {config.tile_frames} frames cannot be cut into {frames}")
    state = model.tokenizer_state()
    taken, written = state["encoder.input_layer.weight"], state["decoder.out_layer.weight"]
    unseen = taken.new_zeros(len(taken), (frames - 1) * taken.shape[1])
    state["encoder.input_layer.weight"] = torch.cat([taken, unseen], 1)
    others = written if still else torch.zeros_like(written)
    state["decoder.out_layer.weight"] = torch.cat([written, others.repeat(frames - 1, 1)])
    return _grown(model, replace(config, patch=(frames, *config.patch[1:])), state)


def with_clips(model: AToken, images: Basis, clips: Basis) -> AToken:
    """A trained image model that a PCA began, with the clips' own components and one latent that tells of them.

    Images come back nearly as before, clips about as from their components; see `atoken.training.start.clips`.

    Args:
        images, clips: of patches of one frame, and of as many as the result has.

    Raises:
        TrainingError: as `with_frames` and `with_latents`, or the model is too small to carry both.
    """
    frames = clips.mean.numel() // images.mean.numel()
    grown = with_latents(with_frames(model, frames, still=True), model.config.latent_channels + 1)
    add_clips(grown, images, clips)
    return grown


def with_latents(model: AToken, latents: int, *, name: str | None = None, seed: int = 0) -> AToken:
    """The model with more latent channels (32 to 48 in the paper's second stage), behind those that it has.

    The decoder starts by ignoring them: its weights for them are zero, so the output stays the same. Their means are
    not zero, or neither half could ever begin to learn: the rows that make them are drawn at random, at right angles
    to the rows there are and each as long as those are on average, so that they say something new, at once, about as
    loud. Their log variance is the mean of that of the others.

    Args:
        name: of the result's config; by default the model's, without a "-s1" at its end.
        seed: of the rows.

    Raises:
        TrainingError: not more latents than there are, more than the encoder is wide, or a quantized model.
    """
    config = model.config
    if config.quantizer is not None:
        raise TrainingError(f"{config.name}: its quantizer owns all its latents; widen the model before it gets one")
    more = latents - config.latent_channels
    if more <= 0 or latents > config.encoder.width:
        raise TrainingError(
            f"{config.name} has {config.latent_channels} latents and is {config.encoder.width} wide: "
            f"it cannot grow to {latents}"
        )
    state = model.tokenizer_state()
    mean, logvar = state["proj.weight"].chunk(2)
    usual = logvar.mean(0, keepdim=True).expand(more, -1)
    state["proj.weight"] = torch.cat([mean, _fresh_rows(mean, more, seed), logvar, usual])
    columns = state["decoder.input_layer.weight"]
    state["decoder.input_layer.weight"] = torch.cat([columns, columns.new_zeros(len(columns), more)], 1)
    if name is None:
        name = config.name.removesuffix(FIRST_STAGE)
    return _grown(model, replace(config, name=name, latent_channels=latents), state)


def with_blocks(model: AToken, encoder: int, decoder: int, *, seed: int = 0) -> AToken:
    """The model with more blocks, behind those that it has; not in the paper.

    What a new block adds to the stream is zero at first; what it reads is drawn at random, as spread as in the last
    block there was.

    Args:
        encoder, decoder: blocks of the result.
        seed: of what is drawn.

    Raises:
        TrainingError: fewer blocks than there are.
    """
    config, state = model.config, model.tokenizer_state()
    generator, kept = torch.Generator().manual_seed(seed), held(model)
    for half, shape, wanted in (("encoder", config.encoder, encoder), ("decoder", config.decoder, decoder)):
        if wanted < shape.blocks:
            raise TrainingError(f"{config.name}: its {half} has {shape.blocks} blocks, it cannot shrink to {wanted}")
        last = f"{half}.blocks.{shape.blocks - 1}."
        for name in [key for key in state if key.startswith(last)]:
            for number in range(shape.blocks, wanted):
                fresh = f"{half}.blocks.{number}.{name.removeprefix(last)}"
                state[fresh] = _fresh_part(name, state[name], kept.get(name), generator)
    halves = replace(config.encoder, blocks=encoder), replace(config.decoder, blocks=decoder)
    return _grown(model, replace(config, encoder=halves[0], decoder=halves[1]), state)


def with_quantizer(model: AToken, *, name: str | None = None) -> AToken:
    """The model with FSQ between its halves (paper's fourth stage, FACTS 7): 8 codebooks of 6 latents of 4 levels.

    FSQ has no weights and neither half changes: what the decoder gets does, so this is where the fourth stage's
    training begins and not a model to use as it is.

    Args:
        name: of the result's config; by default the model's with "-d" for a "-c" at its end, or added.

    Raises:
        TrainingError: a model with other than 48 latents, or one that has a quantizer.
    """
    config, quantizer = model.config, FSQConfig()
    if config.quantizer is not None:
        raise TrainingError(f"{config.name}: has a quantizer already")
    if config.latent_channels != quantizer.channels:
        raise TrainingError(
            f"{config.name}: FSQ takes {quantizer.channels} latents, it has {config.latent_channels}; "
            "widen it with with_latents first"
        )
    if name is None:
        name = config.name.removesuffix(CONTINUOUS) + DISCRETE
    return _grown(model, replace(config, name=name, quantizer=quantizer), model.tokenizer_state())


def _grown(model: AToken, config: ATokenConfig, state: dict[str, Tensor]) -> AToken:
    """A model of its own with copies of these weights, where `model` lies and in its mode."""
    with torch.device("meta"):
        grown = AToken(config)
    grown.to_empty(device=model.device).to(model.dtype)
    grown.load_state_dict(state)
    for name, parameter in model.named_parameters():
        if not name.startswith("gaussian_decoder."):
            grown.get_parameter(name).requires_grad_(parameter.requires_grad)
    grown.gaussian_decoder = copy.deepcopy(model.gaussian_decoder)
    return grown.train(model.training)


def _fresh_part(name: str, last: Tensor, kept: Tensor | None, generator: torch.Generator) -> Tensor:
    """A new block's part, where the last block has `last`; what a clips' gate needs undisturbed is not read."""
    if "norm" in name:
        return last.clone()
    if name.endswith(("to_out.weight", "mlp.2.weight", "bias")):
        return torch.zeros_like(last)
    if kept is None:
        kept = torch.zeros_like(last, dtype=torch.bool)
    # A gate's own weights are hundreds of times as large.
    drawn = (torch.randn(last.shape, generator=generator) * last[~kept].std().cpu()).to(last)
    drawn[:, kept.all(dim=0)] = 0.0
    return drawn


def _fresh_rows(rows: Tensor, count: int, seed: int) -> Tensor:
    """[count, C] at right angles to `rows` [n, C] and to each other, of their root mean square length."""
    drawn = torch.randn(rows.shape[1], count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    frame = torch.linalg.qr(torch.cat([rows.detach().t().double().cpu(), drawn], 1)).Q
    length = rows.detach().double().square().sum(1).mean().sqrt()
    fresh: Tensor = (frame[:, -count:].t() * length.cpu()).to(rows)
    return fresh
