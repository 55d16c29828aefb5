"""The adapter contract as a check that anyone can run on their own tokenizer:

    from harness.tokenizers.contract import check_adapter

    def test_my_tokenizer() -> None:
        assert check_adapter(create("weights.pt", device="cpu", dtype="float32")) == []

Each fault comes back as one sentence that says what was seen and what is wanted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, get_args

import torch
from torch import Tensor

from harness.tokenizers.base import Encoded, LatentMode, Tokenizer, TokenizerCard, TokenType

CONTINUOUS = ("AE", "VAE")
DISCRETE = ("VQ", "RQ", "MCQ", "FSQ")
MODALITIES = ("image", "video", "asset")
# Flat colours show a wrong value range ([0, 1], 0..255) or channel order at once: each moves one of
# them by 1 or more, and a tokenizer that works is far closer than half of that.
FLAT = {"black": (-1.0, -1.0, -1.0), "white": (1.0, 1.0, 1.0), "red": (1.0, -1.0, -1.0), "blue": (-1.0, -1.0, 1.0)}
FLAT_TOLERANCE = 0.5
FLAT_SIDE = 64

T = TypeVar("T")


@torch.inference_mode()  # as the runner calls it
def check_adapter(tokenizer: Tokenizer, *, trained: bool = True, tolerance: float = 1e-4) -> list[str]:
    """Run an adapter through everything that the harness relies on.

    Looked at: the card; the number, order, shape, dtype and device of the reconstructions, for images
    of one size, of mixed sizes and of every odd size that `card.multiple` allows; no NaN; the same
    result twice, whatever the global random state; independence of batch mates; inputs left as they
    were; seeds (a sample depends on its own seed alone, a mean on none); rate and codes of discrete
    tokenizers; value range and channel order on flat colours.

    Args:
        tokenizer: as its factory returns it; `prepare` is called where `needs_prepare` says so.
        trained: False for random weights, which cannot give back a flat colour.
        tolerance: largest absolute difference that another batch may make, in the range [-1, 1]
            (float32 arithmetic; a bfloat16 model needs about 0.05).

    Returns:
        The faults, none if the adapter holds the contract. An exception of the adapter is a fault too.
    """
    if faults := _card_faults(getattr(tokenizer, "card", None)):
        return faults  # without a right card the rest would be misjudged
    try:
        images = _images(tokenizer)
        if tokenizer.needs_prepare:
            h, w = (_fit(256, multiple) for multiple in tokenizer.card.multiple)
            tokenizer.prepare(_image(seed, h, w).permute(1, 2, 0).numpy() for seed in range(2))
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
    except Exception as error:
        return [f"raised {type(error).__name__}: {error}"]
    return faults


def _card_faults(card: object) -> list[str]:
    if not isinstance(card, TokenizerCard):
        return [f"card is a {type(card).__name__}, not a TokenizerCard"]
    learned, discrete = card.token_type in CONTINUOUS + DISCRETE, card.token_type in DISCRETE
    modes, modalities, types = card.latent_modes, set(card.modalities), get_args(TokenType)
    rules = [
        (re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", card.name), f"name {card.name!r} is not usable as a folder name"),
        (card.title.strip(), "title is empty"),
        (card.source.strip(), "source is empty: say licence, training data and origin"),
        (card.token_type in types, f"token_type {card.token_type!r} is none of {', '.join(types)}"),
        (
            "image" in modalities <= set(MODALITIES),
            f"modalities {card.modalities!r} are not image and any of {MODALITIES}",
        ),
        (
            modes and len(set(modes)) == len(modes) and set(modes) <= set(get_args(LatentMode)),
            f"latent_modes {modes!r} are not mean, sample or both",
        ),
        (_positive(card.multiple, 2), f"multiple {card.multiple!r} is not (h, w), both 1 or more"),
        (
            card.compression is None or _positive(card.compression, 3),
            f"compression {card.compression!r} is not (t, h, w), each 1 or more",
        ),
        (
            not learned or (card.compression and card.latent_size),
            f"compression and latent_size are wanted of a {card.token_type}",
        ),
        (
            discrete == (card.codebook_size is not None),
            f"codebook_size {card.codebook_size} does not suit token_type {card.token_type}",
        ),
        *(
            (re.fullmatch(r"[0-9a-f]{64}", sha256), f"weights_sha256 of {file} is not 64 lower-case hex digits")
            for file, sha256 in card.weights_sha256.items()
        ),
        (_is_json(card.settings), f"settings {card.settings!r} cannot be written as JSON"),
    ]
    return [f"card: {fault}" for holds, fault in rules if not holds]


def _positive(numbers: tuple[int, ...], length: int) -> bool:
    return len(numbers) == length and min(numbers) >= 1


def _is_json(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _images(tokenizer: Tokenizer) -> list[Tensor]:
    """Three images of one size, then others, down to the smallest: 8-bit values in [-1, 1]."""
    h, w = tokenizer.card.multiple
    sizes = [(_fit(48, h), _fit(64, w))] * 3 + [(_fit(32, h), _fit(80, w)), (_fit(37, h), _fit(53, w)), (h, w)]
    return [_image(seed, *size).float().div(127.5).sub(1).to(tokenizer.device) for seed, size in enumerate(sizes)]


def _image(seed: int, height: int, width: int) -> Tensor:
    """Waves with a little noise: uint8 ``[3, height, width]``."""
    random = torch.Generator().manual_seed(seed)
    y, x = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)[None, :]
    waves = (6 * torch.rand(3, 4, generator=random)).tolist()
    image = torch.stack([torch.sin(a + b * y + c * x + d * x * y) for a, b, c, d in waves])
    return (127.5 + 100 * image + 5 * torch.randn(image.shape, generator=random)).round().clamp(0, 255).byte()


def _fit(side: int, multiple: int) -> int:
    """The multiple of `multiple` next above `side`."""
    return -(-side // multiple) * multiple


def _with_random_state(seed: int, call: Callable[[], T]) -> T:
    """Under another global random state, which must not matter; the caller's comes back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return call()


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
    together = _with_random_state(1, lambda: _reconstruct(tokenizer, images, mode, seeds))
    again = _with_random_state(2, lambda: _reconstruct(tokenizer, images, mode, seeds))
    if not all(torch.equal(x, y) for x, y in zip(together, again, strict=True)):
        yield "a second call, under another global random state, gives another result"
    turned = _reconstruct(tokenizer, images[::-1], mode, seeds[::-1])[::-1]
    alone = [_reconstruct(tokenizer, [x], mode, [seed])[0] for x, seed in zip(images, seeds, strict=True)]
    for what, others in (("alone", alone), ("in a batch of the reverse order", turned)):
        gaps = [_gap(x, y) for x, y in zip(together, others, strict=True)]
        if max(gaps) > tolerance:
            where = gaps.index(max(gaps))
            size = "x".join(str(side) for side in images[where].shape[1:])
            yield f"image {where} ({size}) {what} differs by {max(gaps):.3g} from itself in a batch of {len(images)}"


def _reconstruct(
    tokenizer: Tokenizer, images: Sequence[Tensor], mode: LatentMode, seeds: Sequence[int]
) -> list[Tensor]:
    return tokenizer.decode(tokenizer.encode(images, latent=mode, seeds=seeds))


def _gap(x: Tensor, y: Tensor) -> float:
    """Largest absolute difference; infinite for images of different sizes."""
    return float((x - y).abs().max()) if x.shape == y.shape else float("inf")


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
    if _gap(first[0], other[0]) > tolerance:
        yield "sample: an image's sample changes with the seed of another image"
    if _gap(first[1], other[1]) == 0:
        yield "sample: the seed changes nothing"
    twins = _reconstruct(tokenizer, [images[0], images[0]], "sample", [1, 1])
    if _gap(*twins) > tolerance:
        yield "sample: one image with one seed gives two samples in one batch"
    if "mean" in tokenizer.card.latent_modes:
        means = [_reconstruct(tokenizer, images[:1], "mean", [seed])[0] for seed in (1, 2)]
        if _gap(*means) > 0:
            yield "mean: the result changes with the seed"


def _flat_faults(tokenizer: Tokenizer) -> Iterator[str]:
    h, w = (_fit(FLAT_SIDE, multiple) for multiple in tokenizer.card.multiple)
    mode = tokenizer.card.latent_modes[0]
    for name, colour in FLAT.items():
        image = torch.tensor(colour, device=tokenizer.device)[:, None, None].expand(3, h, w).contiguous()
        back = _reconstruct(tokenizer, [image], mode, [0])[0].mean((1, 2))
        if float((back - image[:, 0, 0]).abs().max()) > FLAT_TOLERANCE:
            seen = ", ".join(f"{value:.2f}" for value in back.tolist())
            yield f"flat {name} comes back as ({seen}) in RGB; the range is [-1, 1] (trained=False for random weights)"
