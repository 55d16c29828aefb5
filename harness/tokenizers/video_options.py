"""How AToken cuts videos: ``--option stride_frames=12 --option cache_frames=4 --option space_tiles=512x512+64``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from atoken.config import ATokenConfig
from atoken.space import SpaceTiles
from harness.errors import BenchError


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoOptions:
    """The cut of a clip. All of it changes the result, so all of it is in the card.

    Attributes:
        stride_frames: length and step of a decoding window; the encoder's tiles are the model's own.
        cache_frames: frames before a window that it also sees.
        space: spatial tiles of both directions; None for whole frames, as the release has it.
    """

    stride_frames: int
    cache_frames: int = 0
    space: SpaceTiles | None = None

    @classmethod
    def read(
        cls, config: ATokenConfig, *, stride_frames: str | None, cache_frames: str | None, space_tiles: str | None
    ) -> VideoOptions:
        """From the text of options; None for the release's default.

        Raises:
            BenchError: not of the form that the message shows, or frames that are no whole groups of a token's.
            InputError: tiles that are not whole patches or leave no step.
        """
        group = config.patch[0]
        space = _space(space_tiles)
        if space is not None:
            space.in_patches(config.patch)
        return cls(
            stride_frames=_frames("stride_frames", stride_frames, config.tile_frames, lowest=group, group=group),
            cache_frames=_frames("cache_frames", cache_frames, 0, lowest=0, group=group),
            space=space,
        )

    def unlike(self, config: ATokenConfig) -> str:
        """What differs from the release's defaults, for a row's title; empty where nothing does."""
        said = []
        if self.stride_frames != config.tile_frames:
            said.append(f"stride {self.stride_frames}")
        if self.cache_frames:
            said.append(f"cache {self.cache_frames}")
        if self.space is not None:
            said.append(f"tiles {_said(self.space)}")
        return ", ".join(said)

    def settings(self) -> dict[str, Any]:
        """For the card."""
        return {
            "stride_frames": self.stride_frames,
            "cache_frames": self.cache_frames,
            "space_tiles": None if self.space is None else _said(self.space),
        }


def _frames(name: str, text: str | None, default: int, *, lowest: int, group: int) -> int:
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or int(text) % group or int(text) < lowest:
        raise BenchError(f"{name}={text}: give frames as a multiple of {group}, from {lowest} on")
    return int(text)


def _space(text: str | None) -> SpaceTiles | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})(?:\+(\d{1,5}))?", text, flags=re.ASCII)
    if match is None:
        raise BenchError(f"space_tiles={text}: write HEIGHTxWIDTH+OVERLAP in pixels, e.g. 512x512+64")
    height, width, overlap = (int(number or 0) for number in match.groups())
    return SpaceTiles(height, width, overlap)


def _said(space: SpaceTiles) -> str:
    return f"{space.height}x{space.width}+{space.overlap}"
