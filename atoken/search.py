"""Codes sought through the decoder: as many bits, the same decoder, a closer reconstruction.

The encoder says in one pass which levels latents round to. Which are best depends on how the decoder joins tokens, and
a few steps along its gradient find better ones. Lossy formats call this encoder-side optimisation; the paper has
nothing of the kind, and nothing searches unless it is asked to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from atoken.errors import InputError
from atoken.network import Network
from atoken.quantizer import FSQ
from atoken.space import SpaceTiles
from atoken.tokens import SparseTokens

__all__ = ["check_search", "search_codes", "search_levels"]

STEP = 0.1
"""Root mean square of a first step, in levels; the last ones are near 0. Chosen on photographs of the training set."""


def check_search(model: Network, steps: int, space: SpaceTiles | None) -> None:
    """Refuse what cannot be searched for.

    Raises:
        InputError: fewer than 0 steps; a continuous model, or spatial tiles, and not 0.
    """
    if steps < 0:
        raise InputError(f"search is a number of steps, 0 or more, got {steps}")
    if steps and model.quantizer is None:
        raise InputError(f"{model.config.name} is continuous: it has no codes to search for; leave search at 0")
    if steps and space is not None:
        raise InputError(
            "a search takes whole frames, and spatial tiles share codes; leave out the search or the tiles"
        )


def search_codes(model: Network, tokens: SparseTokens, mean: Tensor, steps: int) -> Tensor:
    """Latents of a quantized model whose codes decode to something closer to `tokens`, or the same.

    Closer is a smaller squared error of each temporal tile, over the frames that decoding gives back; what `fit` has
    added to whole patches counts. Costs about three decodings a step, and the memory of training the decoder.

    Args:
        tokens: features [L, token_channels], pixels or voxels in [-1, 1], on the model's device.
        mean: [L, latent_channels] float32, the encoder's.
        steps: 0 leaves `mean` as it is, of any model; more only for what `check_search` lets pass.

    Returns:
        [L, latent_channels] float32.
    """
    if steps == 0:
        return mean
    quantizer = model.quantizer
    assert quantizer is not None
    # What inference mode has made cannot take part in gradients; copies can.
    with torch.inference_mode(False), torch.enable_grad():
        given = SparseTokens(tokens.features.clone(), tokens.coords.clone(), tokens.lengths, tokens.items)
        plan = model.plan(given)
        patch_frames = model.config.patch[0]
        frames, values = _frames_shown(given, patch_frames), model.config.token_channels // patch_frames
        channels = int(frames.max()) * values
        shown = torch.arange(channels, device=model.device) // values < frames[:, None]

        def error(codes: Tensor) -> Tensor:
            rebuilt = model.forward_decoder(given.with_features(codes), plan, channels=channels).float()
            return ((rebuilt - given.features[:, :channels]).square() * shown).sum(dim=1)

        return search_levels(mean.clone(), error, plan.tiles.lengths, quantizer=quantizer, steps=steps)


def search_levels(
    mean: Tensor, error: Callable[[Tensor], Tensor], lengths: Sequence[int], *, quantizer: FSQ, steps: int
) -> Tensor:
    """Latents that round to better levels than the encoder's, or to the same.

    Each group of rows goes its own way: its steps are as long as any other's, and of all the levels it came to, the
    encoder's among them, it keeps those with the smallest error.

    Args:
        mean: [L, channels] float32, the encoder's.
        error: codes [L, channels] float32 as the decoder takes them -> squared error of each row [L], differentiable.
        lengths: rows of each group, in their order; an error must not depend on rows of another group.
        steps: passes through the decoder and back; one more pass judges the last.

    Returns:
        [L, channels] float32, on levels.
    """
    sizes = torch.tensor(lengths, device=mean.device)
    group = torch.repeat_interleave(sizes, output_size=len(mean))
    low, high = quantizer.outermost(mean.device)
    place = quantizer.bound(mean)
    best, least = place.round(), mean.new_full((len(lengths),), math.inf)
    for step in range(steps + 1):
        place = place.clamp(low, high).requires_grad_()
        with torch.set_grad_enabled(step < steps):
            errors = error(quantizer.straight_through(place))
        found = _sums(errors.detach(), lengths)
        best = torch.where((found < least)[group, None], place.detach().round(), best)
        least = torch.minimum(found, least)
        if step == steps:
            break
        (gradient,) = torch.autograd.grad(errors.sum(), place)
        spread = (_sums(gradient.square().mean(dim=1), lengths) / sizes).sqrt().clamp_min(torch.finfo().tiny)
        size = STEP * (1 + math.cos(math.pi * step / steps)) / 2
        place = place.detach() - size * gradient / spread[group, None]
    return quantizer.unbound(best)


def _frames_shown(tokens: SparseTokens, patch_frames: int) -> Tensor:
    """[L]: how many frames of each token decoding gives back, 0 to `patch_frames`."""
    shown = []
    for spec, rows in zip(tokens.items, tokens.coords.split_with_sizes(list(tokens.lengths)), strict=True):
        before = (rows[:, 0] - rows[0, 0]) * patch_frames
        shown.append((spec.out_frames - before).clamp(0, patch_frames))
    return torch.cat(shown)


def _sums(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """[L] -> [groups]; no group's sum depends on another's rows."""
    return torch.stack([part.sum() for part in values.split_with_sizes(list(lengths))])
