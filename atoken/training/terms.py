"""Loss terms of each task (eq. 4 to 7), and the weights that make a loss of them.

Every term is summed over the items of a pack: divided by the samples of the global batch it is a mean over items,
whatever the packs and ranks, and each item counts once whatever its size ("normalised over patches", 3.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from atoken.assets import splat
from atoken.assets.gaussian_decoder import GaussianDecoder
from atoken.network import Plan
from atoken.patches import unpack_pixels
from atoken.tokens import SparseTokens
from atoken.training.losses import MSE_FLOOR, distillation, item_means, item_mse, kl_per_token, l1, sigmoid_loss
from atoken.training.recipe import Losses
from atoken.training.trainee import Terms, Trainee

if TYPE_CHECKING:
    from atoken.training.adversary import Adversary
    from atoken.training.data import Pack, Renders
    from atoken.training.perceptual import Perceptual

__all__ = ["Aligned", "align", "reconstruct", "weigh"]


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """What a pack is aligned with.

    Attributes:
        texts: [M, D] unit vectors of all texts of the global batch.
        positives: [n, M] bool: which of them say what an item of the pack shows.
        teacher: [n, M] scores of a frozen tower, or None for the sigmoid loss.
    """

    texts: Tensor
    positives: Tensor
    teacher: Tensor | None


def reconstruct(
    trainee: Trainee,
    tokens: SparseTokens,
    pack: Pack,
    noise: Tensor,
    *,
    plan: Plan,
    losses: Losses,
    perceptual: Perceptual | None = None,
    adversary: Adversary | None = None,
) -> Terms:
    """Terms of reconstruction; of images also perceptual and adversarial ones, of assets those of their pictures.

    Args:
        tokens: pixel tokens of the pack, of as many frames as it has, on the model's device.
        noise: [L, latents], standard normal; a quantized model takes none.
    """
    model = trainee.tokenizer
    _, moments = model.forward_encoder(tokens, plan)
    mean, logvar = moments.float().chunk(2, dim=-1)
    terms: Terms = {}
    if model.quantizer is None:
        terms["kl"] = item_means(kl_per_token(mean, logvar), tokens.lengths).sum()
        latents = mean + torch.exp(0.5 * logvar) * noise
    else:
        latents = model.quantizer(mean)[0]
    # What pads an image's or a voxel's patch to four frames is cut off in decoding, and says nothing.
    rebuilt = model.forward_decoder(tokens.with_features(latents), plan, channels=pack.values.shape[1]).float()
    if pack.renders is not None:
        assert model.gaussian_decoder is not None
        absolute, squared = _pictures(model.gaussian_decoder, rebuilt, tokens, pack.renders)
        terms["l1"] = absolute.sum()
        if losses.pictures_log_mse:
            terms["pictures_log_mse"] = (squared + MSE_FLOOR).log().sum()
        if losses.voxels:
            terms["voxels"] = l1(rebuilt, tokens.features, tokens.lengths).sum()
        return terms
    if losses.l1:
        terms["l1"] = l1(rebuilt, tokens.features, tokens.lengths).sum()
    if losses.log_mse:
        terms["log_mse"] = (item_mse(rebuilt, tokens.features, tokens.lengths) + MSE_FLOOR).log().sum()
    if pack.items[0].kind == "image" and (perceptual is not None or adversary is not None):
        both = (unpack_pixels(t, pack.patch) for t in (tokens, tokens.with_features(rebuilt)))
        originals, copies = ([clip[0] for clip in clips] for clips in both)
        if perceptual is not None:
            terms |= perceptual(originals, copies)
        if adversary is not None:
            terms["adversarial"] = adversary.judge(originals, copies)
    return terms


def _pictures(
    decoder: GaussianDecoder, voxels: Tensor, tokens: SparseTokens, renders: Renders
) -> tuple[Tensor, Tensor]:
    """Mean absolute and mean squared difference of each asset's pictures, [N] each, on black and on white.

    Colours are compared in [-1, 1] as those of images are. Two backgrounds, so that a hole is not taken for black.
    """
    places = tokens.coords[:, 1:].long()
    raw = decoder(voxels, places, tokens.lengths)
    absolute, squared = [], []
    size = renders.pictures.shape[-2]
    parts = zip(*(torch.split(rows, list(tokens.lengths)) for rows in (raw, places)), strict=True)
    # The rasteriser needs float32 whatever the network computes in.
    with torch.autocast(raw.device.type, enabled=False):
        for (part, place), pictures, cameras in zip(parts, renders.pictures, renders.cameras, strict=True):
            gaussians = decoder.gaussians(part, place)
            drawn = splat.render_views(gaussians, cameras, size, size)
            wanted = pictures.to(drawn.device).float() / 255.0
            black = drawn[..., :3] - wanted[..., :3]
            white = splat.over(drawn, (1.0, 1.0, 1.0)) - splat.over(wanted, (1.0, 1.0, 1.0))
            # The means of the two, times 2 and 4 for the range of [-1, 1].
            absolute.append(black.abs().mean() + white.abs().mean())
            squared.append(2.0 * (black.square().mean() + white.square().mean()))
    return torch.stack(absolute), torch.stack(squared)


def align(trainee: Trainee, tokens: SparseTokens, aligned: Aligned, *, plan: Plan, losses: Losses) -> Terms:
    """The semantic term: distillation (eq. 7) where there is a teacher, else the sigmoid loss of SigLIP."""
    model = trainee.tokenizer
    features, _ = model.forward_encoder(tokens, plan)
    vectors = F.normalize(model.pool(features, tokens.lengths, plan).float(), dim=-1)
    if aligned.teacher is None:
        scores = (trainee.log_scale, trainee.bias)
        return {"semantic": sigmoid_loss(vectors, aligned.texts, aligned.positives, *scores, total=1)}
    logits = trainee.log_scale.exp() * (vectors @ aligned.texts.T) + trainee.bias
    part = distillation(logits, aligned.teacher, temperature=losses.temperature, directions=losses.directions)
    return {"semantic": part * len(vectors)}


def weigh(terms: Terms, losses: Losses) -> Tensor:
    """The weighted sum of eq. 4 and eq. 6."""
    within = {"l1", "lpips", "gram", "clip", "log_mse", "pictures_log_mse", "voxels"}
    parts = []
    for name, value in terms.items():
        weight = getattr(losses, name) * (losses.reconstruction if name in within else 1.0)
        parts.append(weight * value)
    return torch.stack(parts).sum()
