"""A clip on its way through a tokenizer: which of its frames go in, and which of them are measured."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np

from harness.protocol import FrameRule

# No rule leaves out more frames at a clip's end, so all before them can go in before the end is known.
_TAIL = 3


def frame_counts(total: int, rule: FrameRule, made_for: tuple[int, int]) -> tuple[int, int]:
    """How many of a clip's frames a tokenizer gets, and how many of those are measured: its first so many.

    Args:
        total: frames of the clip.
        rule: the protocol's.
        made_for: ``(m, r)`` of the card: m k + r frames.

    Returns:
        ``(given, measured)``, both within 3 of `total`; 0 measured where the clip is too short for the rule.
    """
    if rule == "all":
        return total, total
    whole = total // 4 * 4
    if rule == "4k":
        return whole, whole
    causal = (total - 1) // 4 * 4 + 1
    measured = min(whole, causal)
    multiple, rest = made_for
    # What it is made for, unless that falls short of the common frames: then its adapter completes them.
    return max(measured, (total - rest) // multiple * multiple + rest), measured


class ClipFeed(Iterator[np.ndarray]):
    """Hands a clip's frames to a tokenizer and keeps them until their reconstructions ask for them.

    Holds what the tokenizer is behind by, and nothing of the clip beyond what was asked for.

    Args:
        blocks: uint8 ``[n, H, W, 3]``.

    Attributes:
        given: frames that went in so far.
        measured: how many of the clip's frames count; None until its end was seen.
    """

    def __init__(self, blocks: Iterator[np.ndarray], rule: FrameRule, made_for: tuple[int, int]) -> None:
        self._kept: deque[np.ndarray] = deque()
        self._taken = 0
        self.given = 0
        self.measured: int | None = None
        self._stream = self._feed(blocks, rule, made_for)

    def __next__(self) -> np.ndarray:
        block = next(self._stream)
        self._kept.append(block)
        self.given += len(block)
        return block

    def _feed(self, blocks: Iterator[np.ndarray], rule: FrameRule, made_for: tuple[int, int]) -> Iterator[np.ndarray]:
        total = 0
        tail: list[np.ndarray] = []
        hold = 0 if rule == "all" else _TAIL
        for block in blocks:
            total += len(block)
            tail.append(block)
            surplus = sum(map(len, tail)) - hold
            while surplus > 0:
                ready, rest = tail[0][:surplus], tail[0][surplus:]
                tail[:1] = [rest] if len(rest) else []
                surplus -= len(ready)
                yield ready
        given, self.measured = frame_counts(total, rule, made_for)
        missing = given - (total - sum(map(len, tail)))
        for block in tail:
            if missing > 0:
                yield block[:missing]
                missing -= len(block)

    def take(self, count: int) -> np.ndarray:
        """The next `count` frames that went in, uint8 ``[count, H, W, 3]``; they are not kept any longer.

        Frames that are not measured do not come: fewer than `count`, down to none, at the clip's end.

        Args:
            count: 1 or more.

        Raises:
            ValueError: as many frames have not gone in yet.
        """
        if self._taken + count > self.given:
            raise ValueError(f"{self._taken + count} frames came out when {self.given} had gone in")
        parts = []
        wanted = count
        while wanted:
            block = self._kept.popleft()
            if len(block) > wanted:
                self._kept.appendleft(block[wanted:])
                block = block[:wanted]
            parts.append(block)
            wanted -= len(block)
        # Before the clip's end is seen, what went in lies before the tail, and so is measured.
        counted = count if self.measured is None else min(count, max(0, self.measured - self._taken))
        self._taken += count
        frames = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return frames[:counted]
