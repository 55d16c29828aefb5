"""The adapter contract of video tokenizers, fault by fault; `harness.tokenizers.contract` calls it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np
import torch
from torch import Tensor

from harness.data.base import ClipShape
from harness.tokenizers.base import LatentMode
from harness.tokenizers.card_contract import DISCRETE
from harness.tokenizers.specimens import FLAT, FLAT_SIDE, FLAT_TOLERANCE, clip, fit, gap, with_random_state
from harness.tokenizers.video import EncodedPart, Frames, VideoTokenizer

LENGTHS = (1, 2, 3, 4, 5, 17, 33)
CUTS: tuple[Sequence[int], ...] = ((33,), (1,) * 33, (7, 1, 16, 9), (16, 16, 1))
"""Ways in which 33 frames come in blocks; the first is what the others are compared with."""
RATE = Fraction(25)
# A tokenizer that cuts time may hold this many tiles, and some frames that decoders and batches take.
TILES_HELD, FRAMES_HELD = 4, 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A clip that went through: frames ``[n, H, W, 3]``, float in [-1, 1], and what is known of its code."""

    pixels: Tensor
    tokens: int
    bits: float | None
    codes: Tensor | None


class ContractError(Exception):
    """Something that cannot be measured at all; the line is the fault."""


def video_faults(tokenizer: VideoTokenizer, *, trained: bool, tolerance: float) -> list[str]:
    """See `harness.tokenizers.contract.check_adapter`."""
    if tokenizer.needs_prepare:
        _prepare(tokenizer)
    faults: list[str] = []
    for mode in tokenizer.card.latent_modes:
        try:
            faults += [f"{mode}: {fault}" for fault in _mode_faults(tokenizer, mode, tolerance)]
        except ContractError as error:
            return [*faults, f"{mode}: {error}"]  # malformed results cannot be compared
    if "sample" in tokenizer.card.latent_modes:
        faults += _seed_faults(tokenizer)
    faults += _lazy_faults(tokenizer)
    if trained:
        faults += _flat_faults(tokenizer)
    return list(dict.fromkeys(faults))


def _prepare(tokenizer: VideoTokenizer) -> None:
    h, w = (fit(side, multiple) for side, multiple in zip((96, 128), tokenizer.card.multiple, strict=True))
    opened: list[tuple[ClipShape, Frames]] = [
        (_shape(h, w), partial(_blocks, clip(seed, 24, h, w).numpy())) for seed in range(2)
    ]
    tokenizer.prepare_clips(opened)
    tokenizer.restore(json.loads(json.dumps(tokenizer.card.settings)))  # as a resumed run does


def _blocks(frames: np.ndarray) -> Iterator[np.ndarray]:
    yield from np.split(frames, range(16, len(frames), 16))


def _shape(height: int, width: int) -> ClipShape:
    return ClipShape(height=height, width=width, rate=RATE)


def _clip(tokenizer: VideoTokenizer, seed: int, frames: int, height: int = 32, width: int = 48) -> Tensor:
    h, w = tokenizer.card.multiple
    return clip(seed, frames, fit(height, h), fit(width, w)).to(tokenizer.device)


def _in_blocks(frames: Tensor, cut: Sequence[int] = (16, 16, 1)) -> Iterator[Tensor]:
    """A clip of at most so many frames, in blocks."""
    start = 0
    for size in cut:
        if start < len(frames):
            yield frames[start : start + size]
        start += size


def _run(tokenizer: VideoTokenizer, blocks: Iterable[Tensor], shape: ClipShape, mode: LatentMode, seed: int) -> Result:
    """Encode and decode as the runner does: parts pass from one to the other as they come.

    Raises:
        ContractError: what came out is malformed.
    """
    passed: list[EncodedPart] = []

    def parts() -> Iterator[EncodedPart]:
        for part in tokenizer.encode_clip(iter(blocks), shape, latent=mode, seed=seed):
            if not isinstance(part, EncodedPart):
                raise ContractError(f"encode_clip yields a {type(part).__name__}, not an EncodedPart")
            passed.append(part)
            yield part

    out = [_checked(block, shape, tokenizer.device) for block in tokenizer.decode_clip(parts(), shape)]
    rates = [part.bits for part in passed]
    codes = [part.codes for part in passed if part.codes is not None]
    _check_parts(tokenizer, passed)
    return Result(
        pixels=torch.cat(out) if out else torch.empty(0, shape.height, shape.width, 3),
        tokens=sum(part.tokens for part in passed),
        bits=None if None in rates else sum(rate for rate in rates if rate is not None),
        codes=torch.cat(codes) if codes else None,
    )


def _checked(block: Tensor, shape: ClipShape, device: torch.device) -> Tensor:
    wanted = (shape.height, shape.width, 3)
    if not isinstance(block, Tensor) or block.ndim != 4 or block.shape[1:] != wanted or not len(block):
        came = tuple(block.shape) if isinstance(block, Tensor) else f"a {type(block).__name__}"
        raise ContractError(f"decode_clip yields {came}; blocks of (n, {shape.height}, {shape.width}, 3) are wanted")
    if block.dtype not in (torch.uint8, torch.float32):
        raise ContractError(f"reconstructions are {block.dtype}; uint8 or float32 is wanted")
    if block.device != device:
        raise ContractError(f"frames on {device} come back on {block.device}")
    if block.dtype == torch.uint8:
        # A copy in any case: the adapter may go on writing into its block.
        return block / 127.5 - 1
    if not torch.isfinite(block).all():
        raise ContractError("frames come back with NaN or infinite values")
    return block.clone()


def _check_parts(tokenizer: VideoTokenizer, parts: Sequence[EncodedPart]) -> None:
    card = tokenizer.card
    if parts and (min(part.tokens for part in parts) < 0 or sum(part.tokens for part in parts) < 1):
        raise ContractError(f"parts count {[part.tokens for part in parts]} tokens")
    rates = [part.bits for part in parts if part.bits is not None]
    if len(rates) not in (0, len(parts)):
        raise ContractError(f"{len(rates)} of {len(parts)} parts give bits; all or none")
    if rates and (min(rates) < 0 or not 0 < sum(rates) < 1e15):
        raise ContractError(f"bits are {rates}; numbers of a positive sum are wanted")
    coded = [part.codes for part in parts if part.codes is not None]
    if card.token_type in DISCRETE and not (rates and len(coded) == len(parts)):
        raise ContractError(f"a {card.token_type} tokenizer must give bits and codes with each part")
    if card.token_type == "codec" and not rates:
        raise ContractError("a codec must give bits")
    entries = card.codebook_size
    for codes, part in zip(coded, parts, strict=False):
        if codes.ndim != 2 or len(codes) != part.tokens or codes.is_floating_point():
            raise ContractError(
                f"codes are {codes.dtype} {tuple(codes.shape)}; integers of shape ({part.tokens}, codebooks) are wanted"
            )
        if entries is not None and len(codes) and not 0 <= int(codes.min()) <= int(codes.max()) < entries:
            raise ContractError(
                f"codes reach from {int(codes.min())} to {int(codes.max())}, codebook_size is {entries}"
            )


def _mode_faults(tokenizer: VideoTokenizer, mode: LatentMode, tolerance: float) -> Iterator[str]:
    sizes = [(n, 32, 48) for n in LENGTHS] + [(5, 37, 53), (2, 1, 1)]
    for seed, (n, height, width) in enumerate(sizes):
        frames = _clip(tokenizer, seed, n, height, width)
        before = frames.clone()
        shape = _shape(*frames.shape[1:3])
        result = _run(tokenizer, _in_blocks(frames), shape, mode, seed)
        if len(result.pixels) != n:
            raise ContractError(f"{n} frames of {shape.height}x{shape.width} come back as {len(result.pixels)}")
        if not torch.equal(frames, before):
            yield "writes into the frames that it is given"
    yield from _cut_faults(tokenizer, mode, tolerance)
    yield from _memory_faults(tokenizer, mode)


def _cut_faults(tokenizer: VideoTokenizer, mode: LatentMode, tolerance: float) -> Iterator[str]:
    frames = _clip(tokenizer, 20, 33)
    shape = _shape(*frames.shape[1:3])
    results = [_run(tokenizer, _in_blocks(frames, cut), shape, mode, 5) for cut in CUTS]
    for cut, result in zip(CUTS[1:], results[1:], strict=True):
        apart = gap(result.pixels, results[0].pixels)
        if apart > tolerance:
            yield f"33 frames in blocks of {_said(cut)} differ by {apart:.3g} from the same in one block"
        if (result.tokens, result.bits) != (results[0].tokens, results[0].bits):
            yield (
                f"33 frames in blocks of {_said(cut)} take {result.tokens} tokens, {result.bits} bits; "
                f"in one block {results[0].tokens}, {results[0].bits}"
            )


def _said(cut: Sequence[int]) -> str:
    return "1" if set(cut) == {1} else ", ".join(map(str, cut))


def _memory_faults(tokenizer: VideoTokenizer, mode: LatentMode) -> Iterator[str]:
    """The same clip again, under another global random state and after other clips, must not change a bit."""
    frames, other = _clip(tokenizer, 30, 21), _clip(tokenizer, 31, 6, 48, 32)
    shape, turned = _shape(*frames.shape[1:3]), _shape(*other.shape[1:3])

    def again() -> Tensor:
        return _run(tokenizer, _in_blocks(frames), shape, mode, 7).pixels

    first = with_random_state(1, again)
    if not torch.equal(first, with_random_state(2, again)):
        yield "a second call, under another global random state, gives another result"
        return
    _run(tokenizer, _in_blocks(other), turned, mode, 8)
    if not torch.equal(first, again()):
        yield "a clip changes with the clip before it"
    parts = tokenizer.encode_clip(_in_blocks(other, (1,) * len(other)), turned, latent=mode, seed=9)
    next(iter(tokenizer.decode_clip(iter(parts), turned)), None)
    if not torch.equal(first, again()):
        yield "a clip changes after another was given up midway"


def _seed_faults(tokenizer: VideoTokenizer) -> Iterator[str]:
    frames = _clip(tokenizer, 40, 9)
    shape = _shape(*frames.shape[1:3])
    one, two = (_run(tokenizer, _in_blocks(frames), shape, "sample", seed).pixels for seed in (1, 2))
    if gap(one, two) == 0:
        yield "sample: the seed changes nothing"
    if "mean" in tokenizer.card.latent_modes:
        one, two = (_run(tokenizer, _in_blocks(frames), shape, "mean", seed).pixels for seed in (1, 2))
        if gap(one, two) > 0:
            yield "mean: the result changes with the seed"
    tile = tokenizer.card.tile[0]
    if tile is not None:
        still = _clip(tokenizer, 41, 1).repeat(2 * tile, 1, 1, 1)
        pixels = _run(tokenizer, [still], shape, "sample", 3).pixels
        if gap(pixels[:tile], pixels[tile:]) == 0:
            yield f"sample: two tiles of {tile} frames that do not move get the same noise"


def _lazy_faults(tokenizer: VideoTokenizer) -> Iterator[str]:
    tile = tokenizer.card.tile[0]
    if tile is None:
        return
    bound = TILES_HELD * tile + FRAMES_HELD
    frame = _clip(tokenizer, 50, 1)
    taken = 0

    def source() -> Iterator[Tensor]:
        nonlocal taken
        while taken <= bound:
            taken += 1
            yield frame

    shape = _shape(*frame.shape[1:3])
    parts = tokenizer.encode_clip(source(), shape, latent=tokenizer.card.latent_modes[0], seed=0)
    next(iter(tokenizer.decode_clip(iter(parts), shape)), None)
    if taken > bound:
        yield f"takes more than {bound} frames before the first comes back; card.tile says that it cuts every {tile}"


def _flat_faults(tokenizer: VideoTokenizer) -> Iterator[str]:
    h, w = (fit(FLAT_SIDE, multiple) for multiple in tokenizer.card.multiple)
    mode = tokenizer.card.latent_modes[0]
    for name, colour in FLAT.items():
        levels = torch.tensor(colour, device=tokenizer.device).add(1).mul(127.5).byte()
        back = _run(tokenizer, [levels.expand(5, h, w, 3).contiguous()], _shape(h, w), mode, 0).pixels.mean((0, 1, 2))
        if float((back.cpu() - torch.tensor(colour)).abs().max()) > FLAT_TOLERANCE:
            seen = ", ".join(f"{value:.2f}" for value in back.tolist())
            yield (
                f"flat {name} comes back as ({seen}) in RGB; the range is [-1, 1], or uint8 "
                "(trained=False for random weights)"
            )
