"""Which frames of a clip are taken: `frames`, `strides` and `fps` of a task (paper 3.4).

Always a multiple of 4, at least 4. Where a clip is too short:

- with strides: the largest stride at which the frames fit, so that a step's clips keep their length; where they do not
  fit at stride 1, as many as there are;
- with a rate: as many as there are at that rate; where these are fewer than 4, 4 frames spread over the clip.

A clip of fewer than 4 frames cannot be used.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from atoken.training.data.source import SampleError
from atoken.training.tasks import VideoTask

__all__ = ["draw_count", "draw_frames"]

GROUP = 4
"""Frames of a patch."""


def draw_count(task: VideoTask, rng: np.random.Generator) -> int:
    """How many frames are wanted, a multiple of 4 within the task's range; with a rate always the most."""
    if task.fps is not None:
        return task.frames[1]
    low, high = (count // GROUP for count in task.frames)
    return GROUP * int(rng.integers(low, high + 1))


def draw_frames(count: int, rate: Fraction, task: VideoTask, wanted: int, rng: np.random.Generator) -> list[int]:
    """Numbers of the frames taken, rising.

    Args:
        count: frames of the clip.
        rate: frames a second of the clip.
        wanted: as `draw_count` gave it.

    Raises:
        SampleError: fewer than 4 frames.
    """
    if count < GROUP:
        raise SampleError(f"{count} frames, needs {GROUP}")
    if task.fps is not None:
        return _at_rate(count, float(rate), task.fps, wanted, rng)
    low, high = task.strides[int(rng.integers(len(task.strides)))]
    stride = int(rng.integers(low, high + 1))
    frames = min(wanted, _whole(count))
    stride = min(stride, (count - 1) // (frames - 1))
    start = int(rng.integers(count - (frames - 1) * stride))
    return list(range(start, start + (frames - 1) * stride + 1, stride))


def _at_rate(count: int, rate: float, fps: float, most: int, rng: np.random.Generator) -> list[int]:
    step = max(rate / fps, 1.0)
    frames = min(most, _whole(int((count - 1) / step) + 1))
    if frames < GROUP:
        frames, step = GROUP, (count - 1) / (GROUP - 1)
    start = rng.uniform(0, count - 1 - (frames - 1) * step)
    return [min(int(start + number * step + 0.5), count - 1) for number in range(frames)]


def _whole(count: int) -> int:
    return count // GROUP * GROUP
