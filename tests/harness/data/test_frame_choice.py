"""Which frames are chosen, by the loops of the published scripts, and that they are read as they are."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data import open_clips
from harness.data.base import SampleError
from harness.data.frame_choice import FrameChoice, chosen_frames
from harness.errors import BenchError
from tests.harness.data.conftest import write_clip, write_sequence

counts = st.integers(1, 3000)
rates = st.fractions(Fraction(1, 2), Fraction(120), max_denominator=1001)


def as_clip4clip(count: int, rate: Fraction, most: int) -> list[int]:
    """One frame a second from 0 on until reading fails, then as its loader thins them out."""
    fps = max(int(rate), 1)
    duration = (count + fps - 1) // fps
    frames = []
    for second in np.arange(0, duration + 1):
        if second * fps >= count:
            break
        frames.append(int(second * fps))
    if most < len(frames):
        return [frames[place] for place in np.linspace(0, len(frames) - 1, num=most, dtype=int)]
    return frames


@given(counts, rates)
def test_clip4clip(count: int, rate: Fraction) -> None:
    chosen = FrameChoice("a_second(1)|at_most(12)").numbers(count, rate)
    assert list(chosen) == as_clip4clip(count, rate, 12)
    assert 1 <= len(chosen) <= 12


def test_by_hand() -> None:
    clip4clip = FrameChoice("a_second(1)|at_most(3)")
    assert clip4clip.numbers(100, Fraction(25)) == (0, 25, 75)  # of 0, 25, 50, 75 the places 0, 1.5 and 3
    assert clip4clip.numbers(59, Fraction(30000, 1001)) == (0, 29, 58)
    assert FrameChoice("a_second(2)|at_most(9)").numbers(50, Fraction(25)) == (0, 12, 25, 37)
    assert FrameChoice("ends(8)").numbers(15, Fraction(25)) == (0, 2, 4, 6, 8, 10, 12, 14)
    assert FrameChoice("ends(4)").numbers(2, Fraction(25)) == (0, 0, 0, 1)
    assert FrameChoice("ends(1)").numbers(9, Fraction(25)) == (0,)
    assert FrameChoice("middle(4)").numbers(8, Fraction(25)) == (0, 2, 4, 6)
    assert FrameChoice("middle(3)").numbers(9, Fraction(25)) == (1, 4, 7)
    assert FrameChoice("middle(8)").numbers(3, Fraction(25)) == (0, 1, 2)
    release = FrameChoice("release(64)")
    assert release.numbers(125, Fraction(25)) == (0, 17, 35, 53, 70, 88, 106, 124)  # 5 seconds: 8 frames
    assert len(release.numbers(100, Fraction(25))) == 4
    assert len(release.numbers(25 * 64, Fraction(25))) == len(release.numbers(10**5, Fraction(25))) == 64
    assert release.numbers(1, Fraction(25)) == (0, 0, 0, 0)


@given(
    st.sampled_from(["a_second(3)|at_most(5)", "ends(1)", "ends(8)", "middle(1)", "middle(16)", "release(64)"]),
    counts,
    rates,
)
def test_every_chosen_frame_is_there_and_in_order(rule: str, count: int, rate: Fraction) -> None:
    chosen = FrameChoice(rule).numbers(count, rate)
    assert chosen
    assert list(chosen) == sorted(chosen)
    assert 0 <= chosen[0] <= chosen[-1] < count
    if rule in ("ends(8)", "release(64)"):
        assert (chosen[0], chosen[-1]) == (0, count - 1)


@pytest.mark.parametrize(
    "text", ["", "ends", "ends(0)", "first(8)", "a_second(1)", "a_second(1)|at_most(0)", "ends(-1)"]
)
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(BenchError, match=r"is no rule; there are: a_second\(N\)\|at_most\(M\), ends"):
        FrameChoice(text)


def numbered(count: int) -> np.ndarray:
    """Frames that say their number, too small to be told apart by compression alone."""
    return np.full((count, 32, 48, 3), np.arange(count, dtype=np.uint8)[:, None, None, None])


def test_frames_of_files_and_folders(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mkv", numbered(40))
    write_sequence(tmp_path / "b", numbered(40))
    dataset = open_clips("folder", tmp_path)
    for index in range(2):
        for rule in ("a_second(1)|at_most(12)", "ends(8)", "middle(16)", "release(64)", "ends(100)"):
            choice = FrameChoice(rule)
            clip = dataset.open(index)
            frames = chosen_frames(clip, choice)
            assert frames.shape[1:] == (32, 48, 3)
            assert frames[:, 0, 0, 0].tolist() == list(choice.numbers(40, clip.shape.rate))
            assert (chosen_frames(clip, choice, "ffmpeg") == frames).all()


def test_a_clip_of_one_frame(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mkv", numbered(1))
    clip = open_clips("folder", tmp_path).open(0)
    assert [len(chosen_frames(clip, FrameChoice(rule))) for rule in ("a_second(1)|at_most(12)", "middle(8)")] == [1, 1]
    assert [len(chosen_frames(clip, FrameChoice(rule))) for rule in ("ends(8)", "release(64)")] == [8, 4]


def test_a_clip_that_breaks_is_the_samples_error(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", np.random.default_rng(0).integers(0, 255, (30, 64, 64, 3), np.uint8))
    clip = open_clips("folder", tmp_path).open(0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SampleError, match=r"a\.mkv: cut off after \d+ frames; copy or download it again"):
        chosen_frames(clip, FrameChoice("ends(8)"))
    path.unlink()
    with pytest.raises(SampleError, match=r"a\.mkv: "):
        chosen_frames(clip, FrameChoice("ends(8)"))
