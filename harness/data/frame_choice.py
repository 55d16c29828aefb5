"""Which frames of a clip stand for it: the rules that video-text retrieval is reported with (PROTOCOLS 5.2)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from atoken.video.colour import Colour
from harness.data.base import Clip
from harness.errors import BenchError

_RULES = {
    r"a_second\((\d+)\)\|at_most\((\d+)\)": "a_second(N)|at_most(M)",
    r"ends\((\d+)\)": "ends(N)",
    r"middle\((\d+)\)": "middle(N)",
    r"release\((\d+)\)": "release(N)",
}
_BLOCK = 16  # frames of a clip without an index that are held while its frames are counted


@dataclass(frozen=True, slots=True)
class FrameChoice:
    """A rule, as a protocol writes it.

    ``a_second(N)|at_most(M)``: CLIP4Clip's. N frames of each second, whose rate is cut to a whole number
        (29.97 counts as 29); where they are more than M, M of them by ``linspace`` from first to last, cut to whole
        numbers.
    ``ends(N)``: PE's. N frames by ``int(i (T - 1) / (N - 1))``: the first and the last are among them; a clip of
        fewer frames gives some of them twice.
    ``middle(N)``: ViCLIP's. The middles of N equal parts; a clip of fewer frames gives each of its frames.
    ``release(N)``: of the paper's released loader. As many frames as the clip has whole seconds, at most N, else
        brought up to a multiple of 4; by ``linspace`` over the whole clip, cut to whole numbers.

    Raises:
        BenchError: no such rule.
    """

    text: str

    def __post_init__(self) -> None:
        match = next((match for rule in _RULES if (match := re.fullmatch(rule, self.text))), None)
        if match is None or not all(int(number) for number in match.groups()):
            raise BenchError(f"frames: {self.text!r} is no rule; there are: {', '.join(_RULES.values())}, N from 1 on")

    def numbers(self, count: int, rate: Fraction) -> tuple[int, ...]:
        """Numbers of the chosen frames, from 0 on, not falling.

        Args:
            count: frames of the clip, 1 or more.
            rate: frames per second.
        """
        name, first, *rest = re.findall(r"\w+", self.text)
        wanted = int(first)
        if name == "a_second":
            whole = max(int(rate), 1)
            step = max(whole // wanted, 1)
            offsets = range(0, whole, step)[:wanted]
            seconds = range(0, count, whole)
            chosen = [second + offset for second in seconds for offset in offsets if second + offset < count]
            most = int(rest[1])
            return tuple(chosen[place] for place in _spread(len(chosen), most)) if len(chosen) > most else tuple(chosen)
        if name == "ends":
            return tuple(i * (count - 1) // max(wanted - 1, 1) for i in range(wanted))
        if name == "middle":
            edges = np.linspace(0, count, min(wanted, count) + 1).astype(int).tolist()
            return tuple((low + high - 1) // 2 for low, high in pairwise(edges))
        seconds_long = int(count / rate)
        return _spread(count, wanted if seconds_long >= wanted else 4 * max(-(-seconds_long // 4), 1))


def _spread(count: int, wanted: int) -> tuple[int, ...]:
    return tuple(np.linspace(0, count - 1, wanted, dtype=int).tolist())


def chosen_frames(clip: Clip, choice: FrameChoice, colour: Colour = "accurate") -> np.ndarray:
    """The frames of a clip that a rule chooses.

    Args:
        colour: how they become RGB, see `atoken.video.colour`.

    Returns:
        uint8 RGB ``[T, H, W, 3]``; a frame that is chosen twice is there twice.

    Raises:
        SampleError: the file breaks before the last of them.
    """
    if clip.by_number is not None:
        numbered = clip.by_number(colour)
        wanted = choice.numbers(len(numbered), clip.shape.rate)
        return numbered.frames(sorted(set(wanted)))[_places(wanted)]
    blocks = clip.ffmpeg_blocks if colour == "ffmpeg" and clip.ffmpeg_blocks is not None else clip.blocks
    wanted = choice.numbers(sum(len(block) for block in blocks(_BLOCK)), clip.shape.rate)
    found = [block[0] for number, block in enumerate(blocks(1)) if number in set(wanted)]
    return np.stack(found)[_places(wanted)]


def _places(wanted: Sequence[int]) -> list[int]:
    """Of each wanted frame its place among the different ones."""
    place = {number: index for index, number in enumerate(sorted(set(wanted)))}
    return [place[number] for number in wanted]
