"""Curves over the frames of a clip: every frame at its height, every border at its place."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.curves import HEIGHT, LABELS_X, LABELS_Y, MOST_STEPS, WIDTH, Curve, curve, ticks

finite = st.floats(-1e9, 1e9)


def draw(
    values: list[float], *, shown: int | None = None, tile: int | None = None, higher: bool | None = True
) -> Curve:
    made = curve("PSNR", values, unit="dB", higher_is_better=higher, shown=shown or len(values), tile=tile)
    assert made is not None
    return made


def steps(made: Curve) -> list[tuple[float, float, float]]:
    """(left, right, height from below) of each level step of the path."""
    found, x, y = [], 0.0, 0.0
    for letter, numbers in re.findall(r"([MHV])([-\d. ]+)", made.path):
        values = [float(number) for number in numbers.split()]
        if letter == "M":
            x, y = values
        elif letter == "V":
            (y,) = values
        else:
            found.append((x, values[0], HEIGHT - y))
            (x,) = values
    return found


def test_each_frame_is_a_step_at_its_value() -> None:
    made = draw([30.0, 34.0, 32.0, 32.0])
    low, high = made.y[0], made.y[-1]
    assert (low, high) == ((0.0, "30"), (100.0, "34"))
    assert steps(made) == [(0, 250, 0), (250, 500, 100), (500, 750, 50), (750, 1000, 50)]
    assert made.summary == "worst 30.00 dB at frame 0, best 34.00 dB at frame 1"
    assert json.loads(made.values) == ["30.00 dB", "34.00 dB", "32.00 dB", "32.00 dB"]


def test_lower_is_better_turns_worst_and_best() -> None:
    assert draw([1.0, 3.0], higher=False).summary == "worst 3.00 dB at frame 1, best 1.00 dB at frame 0"
    assert draw([1.0, 3.0], higher=None).summary == "lowest 1.00 dB at frame 0, highest 3.00 dB at frame 1"


def test_frames_without_a_finite_value_leave_a_gap() -> None:
    made = draw([math.nan, 30.0, math.inf, 31.0])
    assert [(left, right) for left, right, _ in steps(made)] == [(250, 500), (750, 1000)]
    assert made.path.count("M") == 2
    assert made.summary.endswith("; 1 of 4 frames without a finite value")  # of exact frames; a first step is none
    assert json.loads(made.values) == ["–", "30.00 dB", "∞ dB", "31.00 dB"]
    assert curve("PSNR", [math.inf, math.nan], unit="dB", higher_is_better=True, shown=2, tile=None) is None


def test_borders_lie_between_frames() -> None:
    made = draw([float(place) for place in range(40)], tile=16)
    assert made.borders == (40.0, 80.0)
    assert [text for _, text in made.x] == ["0", "16", "32"]
    assert made.x[1][0] == 100 * 16.5 / 40  # labels below the middle of their frame
    assert draw([1.0, 2.0], tile=16).borders == ()
    assert draw([1.0, 2.0]).borders == ()


def test_one_frame() -> None:
    made = draw([25.0], tile=16)
    ((left, right, height),) = steps(made)
    assert (left, right) == (0, WIDTH)
    assert 0 < height < HEIGHT
    assert made.x == ((50.0, "0"),)


def test_the_video_may_show_less_than_was_measured() -> None:
    made = draw([float(place) for place in range(300)], shown=150)
    assert (made.shown, made.frames, len(json.loads(made.values))) == (150, 300, 150)


def test_a_long_clip_keeps_its_peaks() -> None:
    values = np.zeros(345_600)
    values[200_001] = 7.0
    made = draw(values.tolist(), shown=150)
    assert len(steps(made)) == MOST_STEPS
    peaks = [(left + right) / 2 for left, right, height in steps(made) if height > 50]
    assert peaks == [pytest.approx(WIDTH * 200_001 / 345_600, abs=2 * WIDTH / MOST_STEPS)]
    assert "7.00 dB at frame 200001" in made.summary


@given(finite, finite)
def test_ticks_are_even_and_enclose(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    marks = ticks(low, high, LABELS_Y)
    assert 2 <= len(marks) <= LABELS_Y + 2
    gaps = np.diff(marks)
    assert gaps == pytest.approx(np.full(len(gaps), gaps[0]), rel=1e-6)
    reach = max(high - low, abs(low) * 1e-6)
    assert marks[0] <= low + 1e-6 * reach
    assert marks[-1] >= high - 1e-6 * reach


@given(st.lists(st.one_of(finite, st.just(math.nan), st.just(math.inf)), min_size=1, max_size=80), st.integers(1, 20))
def test_a_curve_stays_in_its_frame(values: list[float], tile: int) -> None:
    made = curve("x", values, unit="", higher_is_better=True, shown=len(values), tile=tile)
    if made is None:
        assert not np.isfinite(values).any()
        return
    assert len(steps(made)) == np.isfinite(values).sum()
    for left, right, height in steps(made):
        assert 0 <= left < right <= WIDTH
        assert -0.01 <= height <= HEIGHT + 0.01
    assert len(made.x) <= LABELS_X + 1
    assert all(0 < place < 100 for place in (*made.borders, *(place for place, _ in made.x)))
