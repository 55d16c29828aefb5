"""A video's tokens in parts, one after another in time, and the same tokens as one item.

Each part is an item of its own that can be decoded alone: a stretch of whole latent steps, all rows
and columns. Its t continues where the part before ended, so a lost or repeated part is noticed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar, cast

import torch

from atoken.errors import InputError
from atoken.patches import Patch, check_raster
from atoken.tokens import ItemSpec, Latents, SparseTokens

__all__ = ["Succession", "cut_spec", "cut_video", "join_video", "joined_spec", "split_video", "steps_of"]

Tokens = TypeVar("Tokens", bound=Latents | SparseTokens)


def join_video(parts: Iterable[Tokens], *, patch: Patch = (4, 16, 16)) -> Tokens:
    """One item of the parts that `AToken.encode_video` gives: what `encode([clip])` gives at once.

    Raises:
        InputError: no part, or parts that do not follow one another.
    """
    held = list(parts)
    follow = Succession(patch)
    for part in held:
        follow.add(part)
        check_raster(_packed(part), patch)
    whole = joined_spec([_packed(part).items[0] for part in held])
    packed = SparseTokens(
        torch.cat([_packed(part).features for part in held]),
        torch.cat([_packed(part).coords for part in held]),
        (sum(_packed(part).lengths[0] for part in held),),
        (whole,),
    )
    logvars = [part.logvar for part in held if isinstance(part, Latents)]
    return cast(Tokens, Latents(packed, torch.cat(logvars)) if logvars else packed)


def split_video(item: Tokens, *, steps: int = 4, patch: Patch = (4, 16, 16)) -> Iterator[Tokens]:
    """Parts of `steps` latent steps of an item, views of it; the last may be shorter. Inverse of `join_video`.

    Raises:
        InputError: several items, or fewer steps than one.
    """
    if steps < 1:
        raise InputError(f"parts need one latent step or more, got {steps}")
    total = steps_of(item, patch)
    return (cut_video(item, start, min(start + steps, total), patch) for start in range(0, total, steps))


def steps_of(item: Latents | SparseTokens, patch: Patch) -> int:
    """Latent steps of one item.

    Raises:
        InputError: not one item, or its tokens are not the full raster's number.
    """
    packed = _packed(item)
    if len(packed) != 1:
        raise InputError(f"a part holds one item, not {len(packed)}; take them apart with .split()")
    t, h, w = packed.items[0].grid(patch)
    if packed.lengths[0] != t * h * w:
        raise InputError(f"{packed.lengths[0]} tokens where the item's size needs {t}x{h}x{w}; keep all tokens")
    return t


def cut_video(item: Tokens, start: int, stop: int, patch: Patch) -> Tokens:
    """Latent steps start..stop-1 of an item, a view of it."""
    packed = _packed(item)
    t, h, w = packed.items[0].grid(patch)
    if (start, stop) == (0, t):
        return item
    spec = cut_spec(packed.items[0], start, stop, patch)
    rows = slice(start * h * w, stop * h * w)
    part = SparseTokens(packed.features[rows], packed.coords[rows], ((stop - start) * h * w,), (spec,))
    return cast(Tokens, Latents(part, item.logvar[rows]) if isinstance(item, Latents) else part)


def cut_spec(spec: ItemSpec, start: int, stop: int, patch: Patch) -> ItemSpec:
    """What latent steps start..stop-1 of an item are; frames beyond the last step go with the last part."""
    first, last = start * patch[0], stop * patch[0]
    if stop < spec.grid(patch)[0]:
        return replace(spec, frames=last - first, out_frames=last - first)
    return replace(spec, frames=spec.frames - first, out_frames=spec.out_frames - first)


def joined_spec(specs: Sequence[ItemSpec]) -> ItemSpec:
    """What parts in succession are together.

    Raises:
        InputError: there is none.
    """
    if not specs:
        raise InputError("there are no parts to join")
    return replace(specs[0], frames=sum(s.frames for s in specs), out_frames=sum(s.out_frames for s in specs))


class Succession:
    """Makes sure that parts are of one video and follow one another."""

    def __init__(self, patch: Patch) -> None:
        self._patch = patch
        self._last: tuple[type, int, ItemSpec] | None = None
        self._next = 0
        self._count = 0

    def add(self, part: Latents | SparseTokens) -> None:
        """Take the next part.

        Raises:
            InputError: it is of another kind or size, does not start where the last one ended, or
                the last one ended amid a latent step.
        """
        if not isinstance(part, Latents | SparseTokens):
            raise InputError(f"part {self._count}: give what encode_video gave, not a {type(part).__name__}")
        packed, steps = _packed(part), steps_of(part, self._patch)
        spec, start = packed.items[0], int(packed.coords[0, 0])
        nature = type(part), packed.features.shape[1], replace(spec, frames=1, out_frames=1)
        where = f"part {self._count}"
        if self._last is not None:
            if spec.kind == "image" or nature != self._last:
                raise InputError(f"{where}: {_said(spec)} after parts of another kind, or of {_said(self._last[2])}")
            if not self._next:
                raise InputError(f"{where}: the part before ends amid a latent step, so it was the video's last")
            if start != self._next:
                raise InputError(
                    f"{where}: starts at t = {start}, the part before ends at {self._next}; keep the order"
                )
        self._last = nature
        self._count += 1
        self._next = start + steps if spec.out_frames == steps * self._patch[0] else 0


def _said(spec: ItemSpec) -> str:
    return f"{spec.kind} of {spec.out_height}x{spec.out_width}"


def _packed(item: Latents | SparseTokens) -> SparseTokens:
    return item.mean if isinstance(item, Latents) else item
