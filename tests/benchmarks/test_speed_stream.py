"""The streaming benchmark measures what it says: the peak of another process, and clips of the size asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from atoken.video import read_video
from benchmarks.speed import stream as bench


def test_the_peak_is_the_commands_own() -> None:
    small = bench.measured([sys.executable, "-c", "pass"], 1)
    large = bench.measured([sys.executable, "-c", "x = b'x' * 300_000_000"], 1)
    assert 280 < large.peak - small.peak < 320
    assert small.seconds > 0


def test_a_command_that_fails_is_no_figure() -> None:
    with pytest.raises(RuntimeError, match="the reason"):
        bench.measured([sys.executable, "-c", "raise SystemExit('the reason')"], 1)


def test_clips_move_and_have_their_size(tmp_path: Path) -> None:
    bench.write_clip(tmp_path / "clip.mp4", 32, 48, 21)
    clip = read_video(tmp_path / "clip.mp4")
    assert clip.shape == (21, 32, 48, 3)
    drawn = np.concatenate(list(bench.pattern(32, 48, 21)))
    assert np.abs(np.diff(drawn.astype(int), axis=0)).mean() > 5
    assert np.abs(clip.astype(int) - drawn).mean() < 30


def test_streams_are_compared_with_the_whole_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "TIMED_FRAMES", 20)
    ratios = bench.in_memory("atoken-nano", 1)
    assert set(ratios) == {"encoding", "decoding"}
    assert all(0.01 < ratio < 100 for ratio in ratios.values())
