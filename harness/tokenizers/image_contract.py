"""The adapter contract of image tokenizers, fault by fault; `harness.tokenizers.contract` calls it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.tokenizers.base import Encoded, LatentMode, Tokenizer
from harness.tokenizers.card_contract import DISCRETE
from harness.tokenizers.specimens import FLAT, FLAT_SIDE, FLAT_TOLERANCE, fit, gap, image, with_random_state


def image_faults(tokenizer: Tokenizer, *, trained: bool, tolerance: float) -> list[str]:
    """See `harness.tokenizers.contract.check_adapter`."""
    images = _images(tokenizer)
    if tokenizer.needs_prepare:
        h, w = (fit(256, multiple) for multiple in tokenizer.card.multiple)
        tokenizer.prepare(image(seed, h, w).permute(1, 2, 0).numpy() for seed in range(2))
        tokenizer.restore(json.loads(json.dumps(tokenizer.card.settings)))  # as a resumed run does
    modes = tokenizer.card.latent_modes
    faults = [f"{mode}: {fault}" for mode in modes for fault in _form_faults(tokenizer, images, mode)]
    if faults:
        return list(dict.fromkeys(faults))  # malformed results cannot be compared
    faults += [f"{mode}: {fault}" for mode in modes for fault in _mode_faults(tokenizer, images, mode, tolerance)]
    if "sample" in modes:
        faults += _seed_faults(tokenizer, images[:2], tolerance)
    if trained:
        faults += _flat_faults(tokenizer)
    return faults


def _images(tokenizer: Tokenizer) -> list[Tensor]:
    """Three images of one size, then others, down to the smallest: 8-bit values in [-1, 1]."""
    h, w = tokenizer.card.multiple
    sizes = [(fit(48, h), fit(64, w))] * 3 + [(fit(32, h), fit(80, w)), (fit(37, h), fit(53, w)), (h, w)]
    return [image(seed, *size).float().div(127.5).sub(1).to(tokenizer.device) for seed, size in enumerate(sizes)]


def _form_faults(tokenizer: Tokenizer, images: Sequence[Tensor], mode: LatentMode) -> Iterator[str]:
    """What one batch of all images shows."""
    before = [x.clone() for x in images]
    encoded = tokenizer.encode(images, latent=mode, seeds=range(len(images)))
    yield from _encoded_faults(tokenizer, encoded, images)
    yield from _output_faults(images, tokenizer.decode(encoded))
    if not all(torch.equal(x, y) for x, y in zip(images, before, strict=True)):
        yield "writes into the images that it is given"


def _mode_faults(tokenizer: Tokenizer, images: Sequence[Tensor], mode: LatentMode, tolerance: float) -> Iterator[str]:
    """What other calls on the same images show."""
    seeds = range(11, 11 + len(images))
    together = with_random_state(1, lambda: _reconstruct(tokenizer, images, mode, seeds))
    again = with_random_state(2, lambda: _reconstruct(tokenizer, images, mode, seeds))
    if not all(torch.equal(x, y) for x, y in zip(together, again, strict=True)):
        yield "a second call, under another global random state, gives another result"
    turned = _reconstruct(tokenizer, images[::-1], mode, seeds[::-1])[::-1]
    alone = [_reconstruct(tokenizer, [x], mode, [seed])[0] for x, seed in zip(images, seeds, strict=True)]
    for what, others in (("alone", alone), ("in a batch of the reverse order", turned)):
        gaps = [gap(x, y) for x, y in zip(together, others, strict=True)]
        if max(gaps) > tolerance:
            where = gaps.index(max(gaps))
            size = "x".join(str(side) for side in images[where].shape[1:])
            yield f"image {where} ({size}) {what} differs by {max(gaps):.3g} from itself in a batch of {len(images)}"


def _reconstruct(
    tokenizer: Tokenizer, images: Sequence[Tensor], mode: LatentMode, seeds: Sequence[int]
) -> list[Tensor]:
    return tokenizer.decode(tokenizer.encode(images, latent=mode, seeds=seeds))


def _output_faults(images: Sequence[Tensor], outputs: Any) -> Iterator[str]:
    if not isinstance(outputs, list) or len(outputs) != len(images):
        yield f"decode gives {_length(outputs)} reconstructions of {len(images)} images; a list of as many is wanted"
        return
    for x, y in zip(images, outputs, strict=True):
        if not isinstance(y, Tensor) or y.shape != x.shape:
            yield f"an image of shape {tuple(x.shape)} comes back as {tuple(getattr(y, 'shape', ()))}"
            return
        if y.dtype != torch.float32:
            yield f"reconstructions are {y.dtype}, float32 is wanted"
        if y.device != x.device:
            yield f"images on {x.device} come back on {y.device}"
        if not torch.isfinite(y).all():
            yield f"an image of shape {tuple(x.shape)} comes back with NaN or infinite values"


def _length(value: Any) -> int | str:
    return len(value) if hasattr(value, "__len__") else f"a {type(value).__name__}, not a list of"


def _encoded_faults(tokenizer: Tokenizer, encoded: Encoded, images: Sequence[Tensor]) -> Iterator[str]:
    counts = [tokenizer.token_count(x.shape[1], x.shape[2]) for x in images]
    if list(encoded.tokens) != counts:
        yield f"encode counts {list(encoded.tokens)} tokens, token_count {counts}; batches are packed by the latter"
    discrete = tokenizer.card.token_type in DISCRETE
    if discrete and (encoded.bits is None or encoded.codes is None):
        yield f"a {tokenizer.card.token_type} tokenizer must give bits and codes"
    if tokenizer.card.token_type == "codec" and encoded.bits is None:
        yield "a codec must give bits"
    if encoded.bits is not None and (len(encoded.bits) != len(images) or not all(0 < b < 1e15 for b in encoded.bits)):
        yield f"bits are {list(encoded.bits)}; one positive number per image is wanted"
    entries = tokenizer.card.codebook_size
    if encoded.codes is None or entries is None:
        return
    if len(encoded.codes) != len(images):
        yield f"codes of {len(encoded.codes)} images for {len(images)} images"
        return
    for codes, count in zip(encoded.codes, counts, strict=True):
        if codes.ndim != 2 or len(codes) != count or codes.is_floating_point():
            yield f"codes are {codes.dtype} {tuple(codes.shape)}; integers of shape ({count}, codebooks) are wanted"
        elif int(codes.min()) < 0 or int(codes.max()) >= entries:
            yield f"codes reach from {int(codes.min())} to {int(codes.max())}, codebook_size is {entries}"


def _seed_faults(tokenizer: Tokenizer, images: Sequence[Tensor], tolerance: float) -> Iterator[str]:
    first = _reconstruct(tokenizer, images, "sample", [1, 2])
    other = _reconstruct(tokenizer, images, "sample", [1, 3])
    if gap(first[0], other[0]) > tolerance:
        yield "sample: an image's sample changes with the seed of another image"
    if gap(first[1], other[1]) == 0:
        yield "sample: the seed changes nothing"
    twins = _reconstruct(tokenizer, [images[0], images[0]], "sample", [1, 1])
    if gap(*twins) > tolerance:
        yield "sample: one image with one seed gives two samples in one batch"
    if "mean" in tokenizer.card.latent_modes:
        means = [_reconstruct(tokenizer, images[:1], "mean", [seed])[0] for seed in (1, 2)]
        if gap(*means) > 0:
            yield "mean: the result changes with the seed"


def _flat_faults(tokenizer: Tokenizer) -> Iterator[str]:
    h, w = (fit(FLAT_SIDE, multiple) for multiple in tokenizer.card.multiple)
    mode = tokenizer.card.latent_modes[0]
    for name, colour in FLAT.items():
        flat = torch.tensor(colour, device=tokenizer.device)[:, None, None].expand(3, h, w).contiguous()
        back = _reconstruct(tokenizer, [flat], mode, [0])[0].mean((1, 2))
        if float((back - flat[:, 0, 0]).abs().max()) > FLAT_TOLERANCE:
            seen = ", ".join(f"{value:.2f}" for value in back.tolist())
            yield f"flat {name} comes back as ({seen}) in RGB; the range is [-1, 1] (trained=False for random weights)"
