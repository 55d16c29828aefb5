"""Seams against a literal transcription of their definition, and what they must and must not see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from clip_inputs import cell_of, measured, moving
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_inputs import disturbed
from torch import Tensor

from harness.metrics import strips
from harness.metrics.seams import LEAST, NEAREST, Seam, seam


def edges(clip: Tensor, tile: tuple[int | None, ...]) -> dict[str, object]:
    """What is known of a tokenizer that cuts every frame at multiples of its tile."""
    height, width = clip.shape[-2:]
    rows, columns = (range(step or end, end, step or end) for step, end in zip(tile[1:], (height, width), strict=True))
    return {"tile": tile, "borders": (rows, columns)}


def metric(axis: str = "time", inside: str = "all") -> Seam:
    return Seam(name="seam", resamples=100, axis=axis, inside=inside)


def seam_of(reference: Tensor, error: Tensor, tile: tuple[int | None, ...], **options: str) -> float:
    """Of a clip and the error that is added to it, whole numbers; the clip must leave it room."""
    reconstruction = reference.to(torch.int16) + error.to(torch.int16)
    assert reconstruction.min() >= 0
    assert reconstruction.max() <= 255
    known = edges(reference, tile)
    return measured(
        metric(**options), reference, reconstruction.to(torch.uint8), compression=(4, 8, 8), **known
    ).columns["seam"]


def grey(frames: int = 48, height: int = 32, width: int = 48, seed: int = 0) -> Tensor:
    """Content away from black and white, so that an error can be added whole."""
    return (moving(frames, height, width, seed).float() * 0.4 + 70).to(torch.uint8)


def noise(shape: tuple[int, ...], strength: float = 6, seed: int = 1) -> Tensor:
    error = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * strength
    return error.round().clamp(-60, 60)


def offsets(count: int, length: int, jump: float = 10) -> Tensor:
    """Tiles of `length` frames that are brighter and darker in turn, so that each border jumps alike."""
    return (torch.arange(count) % 2 * jump).repeat_interleave(length)[:, None, None, None]


def literal(a: np.ndarray, b: np.ndarray, tiles: dict[int, int], spacing: dict[int, int]) -> float:
    """The definition, axis by axis and border by border, without any shared arithmetic."""
    error = b.astype(float) - a.astype(float)
    excess = []
    for axis, tile in tiles.items():
        place = {0: 0, 1: 2, 2: 3}[axis]
        count = error.shape[place]
        planes = [error.take(i, axis=place) for i in range(count)]
        levels = [10 * np.log10(max(np.mean((planes[i + 1] - planes[i]) ** 2), 1 / 6)) for i in range(count - 1)]
        for border in range(tile, count, tile):
            near = []
            for direction in (-1, 1):
                found, at = 0, border + direction
                while 0 < at < count and found < 8:
                    if at % tile and at % spacing[axis] == 0:
                        near.append(levels[at - 1])
                        found += 1
                    at += direction
            excess.append(levels[border - 1] - np.median(near))
    return float(np.median(excess))


@pytest.mark.parametrize("inside", ["all", "tokens"])
def test_is_what_the_definition_says(inside: str) -> None:
    reference, reconstruction = moving(30, 40, 36), disturbed(moving(30, 40, 36), 7)
    pair = reference.numpy(), reconstruction.numpy()
    token = (2, 3, 4) if inside == "tokens" else (1, 1, 1)
    spacing = dict(enumerate(token))
    known = {"compression": (2, 3, 4)} | edges(reference, (8, 12, 16))
    over_time = measured(metric("time", inside), reference, reconstruction, **known)
    assert over_time.columns["seam"] == pytest.approx(literal(*pair, {0: 8}, spacing), rel=1e-12)
    assert over_time.columns["seam borders"] == 3
    over_space = measured(metric("space", inside), reference, reconstruction, **known)
    assert over_space.columns["seam"] == pytest.approx(literal(*pair, {1: 12, 2: 16}, spacing), rel=1e-12)
    assert over_space.columns["seam borders"] == 3 + 2
    assert over_space.frames == {}


def test_the_curve_is_the_step_from_the_frame_before() -> None:
    reference, reconstruction = moving(6, 20, 24), disturbed(moving(6, 20, 24), 7)
    error = reconstruction.double() - reference.double()
    curve = measured(metric(), reference, reconstruction).frames["seam"]
    assert np.isnan(curve[0])
    np.testing.assert_allclose(curve[1:], (error[1:] - error[:-1]).square().mean(dim=(1, 2, 3)).numpy(), rtol=1e-12)


def test_tiles_with_an_offset_each_are_found_in_time_and_space() -> None:
    clip = grey()
    per_tile = offsets(12, 4)
    inner = noise(clip.shape, 1)
    # Without noise only the least step is left inside, and the level at the borders is known.
    alone = seam_of(clip, per_tile.expand(clip.shape), (4, None, None))
    assert alone == pytest.approx(10 * np.log10(100 / LEAST), rel=1e-9)
    assert seam_of(clip, per_tile + inner, (4, None, None)) > 10
    in_space = offsets(4, 8).movedim(0, 2) + offsets(3, 16).movedim(0, 3)
    assert seam_of(clip, in_space + inner, (None, 8, 16), axis="space") > 10
    # An artefact along the one axis is none along the other.
    assert abs(seam_of(clip, in_space + inner, (4, None, None))) < 0.2
    assert abs(seam_of(clip, per_tile + inner, (None, 8, 16), axis="space")) < 0.2


@pytest.mark.parametrize(("axis", "tile"), [("time", (8, None, None)), ("space", (None, 8, 16))])
@pytest.mark.parametrize("strength", [1.5, 12])
def test_an_error_that_knows_no_tiles_has_no_seam(axis: str, tile: tuple[int | None, ...], strength: float) -> None:
    clip = grey()
    assert abs(seam_of(clip, noise(clip.shape, strength), tile, axis=axis)) < 0.1
    # Nor has one whose strength drifts, as quality does with the content.
    drift = torch.linspace(0.5, 3, len(clip))[:, None, None, None] * torch.linspace(1, 2, clip.shape[-1])
    assert abs(seam_of(clip, (noise(clip.shape, strength / 5) * drift).round(), tile, axis=axis)) < 0.3


def test_the_references_own_change_does_not_count() -> None:
    """Scene cuts at every border, or none: the error alone decides."""
    error = noise((48, 3, 32, 48))
    still = grey(1).expand(48, -1, -1, -1)
    cuts = torch.cat([grey(1, seed=scene).expand(8, -1, -1, -1) for scene in range(6)])
    values = [seam_of(clip, error, (8, None, None)) for clip in (still, cuts, grey())]
    assert abs(values[0]) < 0.1
    assert values[0] == values[1] == values[2]


def test_single_jumps_and_stills_rule_nothing() -> None:
    """A flash, a cut where the error starts anew and a repeated frame, inside a tile or at its border."""
    clip = grey()
    seamless = noise(clip.shape, 2)
    for error in (seamless, seamless + offsets(6, 8)):
        calm = seam_of(clip, error, (8, None, None))
        for at in (12, 16):
            flash, still, cut = error.clone(), error.clone(), error.clone()
            flash[at] += 40
            still[at] = still[at - 1]
            cut[at:] = 15 - cut[at:]
            for rare in (flash, still, cut):
                assert seam_of(clip, rare, (8, None, None)) == pytest.approx(calm, abs=0.2)
    assert calm > 10


def test_what_tokens_do_by_themselves_can_be_told_from_what_tiles_add() -> None:
    clip = grey()
    tokens = offsets(12, 4) + noise(clip.shape, 1)
    options = {"tile": (8, None, None)}
    assert seam_of(clip, tokens, **options) > 10
    assert abs(seam_of(clip, tokens, **options, inside="tokens")) < 0.2
    assert seam_of(clip, tokens + offsets(6, 8, 30), **options, inside="tokens") > 5


def test_frames_that_tiles_blend_may_be_smoother_than_the_rest() -> None:
    clip = grey()
    error = noise(clip.shape)
    error[8::8] = error[7:-1:8]
    assert seam_of(clip, error, (8, None, None)) < -10


def test_reasons_for_no_value() -> None:
    clip = grey(9)
    other = disturbed(clip)
    one = metric()
    tiled = {"tile": (4, None, None), "compression": (4, 8, 8)}
    value = measured(one, clip, other, **tiled)
    short = measured(one, clip[:4], other[:4], **tiled)
    single = measured(one, clip[:1], other[:1], **tiled)
    identical = measured(one, clip, clip, **tiled)
    whole = measured(one, clip, other)
    every = measured(one, clip, other, tile=(1, None, None))
    assert np.isfinite(value.columns["seam"])
    mixed = cell_of(one, [value, short, single, identical])
    assert (mixed.n, mixed.applies, mixed.unit, mixed.higher_is_better) == (1, True, "dB", False)
    assert mixed.value == value.columns["seam"]
    assert mixed.parameters["undefined"] == (
        "3 of 4: no more than one tile; identical, no error that could have a seam"
    )
    assert cell_of(one, [short]).absent == "no more than one tile"
    for without in (whole, every):
        cell = cell_of(one, [without, without])
        assert (cell.value, cell.applies) == (None, False)
        assert cell.absent == "the tokenizer does not cut time into tiles of several frames"
    tokens = metric(inside="tokens")
    cell = cell_of(tokens, [measured(tokens, clip, other, **tiled)])
    assert (cell.applies, cell.absent) == (False, "the tokenizer does not cut time into tiles of several tokens")
    space = metric("space")
    cell = cell_of(space, [measured(space, clip, other, **tiled)])
    assert (cell.applies, cell.absent) == (
        False,
        "the tokenizer does not cut space into tiles of several rows or columns",
    )
    assert cell_of(one, []).absent == "no sample was measured"


def test_tiles_need_not_lie_at_multiples() -> None:
    """AToken spreads its tiles evenly over a frame; the tokenizer says where they meet."""
    clip = grey(8)
    error = noise(clip.shape, 1)
    error[..., 19:] += 9
    error[..., 35:] -= 11
    reconstruction = (clip + error).to(torch.uint8)
    places = {"there": ((), (19, 35)), "elsewhere": ((), (16, 32))}
    values = {
        name: measured(metric("space"), clip, reconstruction, tile=(None, None, 16), borders=borders).columns["seam"]
        for name, borders in places.items()
    }
    assert values["there"] > 15
    assert values["elsewhere"] < 0


def test_an_error_that_never_changes_has_no_seam_but_is_one() -> None:
    clip = grey(16)
    for axis in ("time", "space"):
        assert seam_of(clip, torch.full(clip.shape, 5), (4, 8, 8), axis=axis) == pytest.approx(0, abs=1e-12)


def test_clips_count_alike_and_the_interval_is_over_clips() -> None:
    one = metric()
    clips = []
    for seed in range(4):
        clip = grey(16, seed=seed)
        error = offsets(4, 4, 5 + seed) + noise(clip.shape, 1, seed)
        clips.append(measured(one, clip, (clip + error).to(torch.uint8), tile=(4, None, None)))
    values = [clip.columns["seam"] for clip in clips]
    cell = cell_of(one, clips)
    assert cell.value == pytest.approx(np.mean(values))
    assert cell.interval is not None
    assert min(values) <= cell.interval[0] < cell.value < cell.interval[1] <= max(values)


@pytest.mark.parametrize("axis", ["time", "space"])
@pytest.mark.parametrize("piece", [1, 40, 97, 1 << 30])
def test_strips_move_no_bit(axis: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = moving(9, 17, 23)
    other = disturbed(clip)
    expected = measured(metric(axis), clip, other, **edges(clip, (4, 4, 4)))
    monkeypatch.setattr(strips, "PIECE", piece)
    cut = measured(metric(axis), clip, other, **edges(clip, (4, 4, 4)))
    assert cut.columns == expected.columns
    np.testing.assert_array_equal(cut.frames.get("seam", []), expected.frames.get("seam", []))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=40), st.integers(2, 9), st.integers(1, 3))
def test_borders_are_counted_and_equal_steps_have_no_seam(steps: list[float], tile: int, spacing: int) -> None:
    values = np.array(steps)
    begins = range(tile, len(steps) + 1, tile)
    found = seam(values, begins, spacing)
    inside = [i for i in range(1, len(steps) + 1) if i % tile and i % spacing == 0]
    assert len(found) == (len(steps) // tile if inside else 0)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(seam(np.full_like(values, values[0]), begins, spacing), 0, atol=1e-12)
    # Where every step is ten times as large, and none was below the least, nothing has changed.
    loud = values + LEAST
    np.testing.assert_allclose(seam(10 * loud, begins, spacing), seam(loud, begins, spacing), atol=1e-9)


def test_only_the_nearest_steps_inside_count() -> None:
    steps = np.ones(100)
    steps[50 - NEAREST - 1 : 50 + NEAREST] = 100
    steps[49] = 1000
    np.testing.assert_allclose(seam(steps, [50]), [10], atol=1e-12)
    steps[[50 - NEAREST - 2, 50 + NEAREST]] = 1e6
    np.testing.assert_allclose(seam(steps, [50]), [10], atol=1e-12)
