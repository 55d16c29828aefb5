"""A stream gives what the whole clip gives, however it is cut, and holds no more than it needs."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoken import PosteriorSampler, SpaceTiles, join_video, split_video, streaming
from atoken.errors import InputError
from atoken.tiles import plan_raster
from atoken.tokens import Latents, SparseTokens
from tests.atoken.conftest import build, tiny_config

# How many tokens a matrix product has moves its last bits.
TOLERANCE = 5e-6
relaxed = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def close(got, want, tolerance=TOLERANCE):
    torch.testing.assert_close(torch.as_tensor(got), torch.as_tensor(want), rtol=0, atol=tolerance)


def same(got: Latents, want: Latents) -> None:
    assert got.mean.items == want.mean.items
    assert got.mean.lengths == want.mean.lengths
    assert torch.equal(got.mean.coords, want.mean.coords)
    close(got.mean.features, want.mean.features)
    close(got.logvar, want.logvar)


@st.composite
def cuts(draw, total: int) -> list[int]:
    """Lengths from 1 on that sum to `total`."""
    borders = draw(st.sets(st.integers(1, total - 1))) if total > 1 else set()
    edges = [0, *sorted(borders), total]
    return [b - a for a, b in itertools.pairwise(edges)]


def blocks(clip, lengths, *, bare: bool = False) -> Iterator:
    """The clip's frames in blocks; single frames without their first axis if `bare`."""
    start = 0
    for n in lengths:
        yield clip[start] if bare and n == 1 else clip[start : start + n]
        start += n


@relaxed
@given(
    data=st.data(),
    frames=st.integers(1, 41),
    size=st.tuples(st.integers(16, 40), st.integers(16, 40)),
    fit=st.sampled_from(["pad", "crop"]),
    rule=st.sampled_from(["pad", "drop"]),
    floats=st.booleans(),
)
def test_any_cut_of_the_frames_gives_the_clips_latents(tiny, noise, data, frames, size, fit, rule, floats):
    clip = noise(frames, *size)
    if floats:
        clip = (clip / 127.5 - 1).astype(np.float32)
    lengths = data.draw(cuts(frames))
    parts = list(tiny.encode_video(blocks(clip, lengths, bare=data.draw(st.booleans())), fit=fit, frames_rule=rule))
    same(join_video(parts), tiny.encode([clip], fit=fit, frames=rule))
    assert all(len(part) == 1 for part in parts)
    assert [int(part.mean.coords[0, 0]) for part in parts] == list(range(0, 4 * len(parts), 4))


@relaxed
@given(
    data=st.data(),
    frames=st.integers(1, 49),
    stride=st.integers(4, 40),
    cache=st.integers(0, 60),
    kind=st.sampled_from(["posterior", "sample", "codes"]),
)
def test_any_cut_of_the_latents_gives_the_clips_pixels(tiny, tiny_fsq, noise, data, frames, stride, cache, kind):
    model = tiny_fsq if kind == "codes" else tiny
    latents = model.encode([noise(frames, 18, 33)])
    item = {"posterior": latents, "sample": latents.sample(3), "codes": latents}[kind]
    if kind == "codes":
        item = model.quantize(latents)
    windows = {"stride_frames": stride, "cache_frames": cache}
    rest, parts = item, []
    for n in data.draw(cuts(-(-frames // 4))):
        part, *more = split_video(rest, steps=n)
        parts.append(part)
        rest = join_video(more) if more else rest
    got = list(model.decode_video(iter(parts), output="float", **windows))
    close(np.concatenate(got), model.decode(item, output="float", **windows)[0])
    steps = stride // 4 * 4
    assert [len(block) for block in got] == [*[steps] * (frames // steps), frames % steps][: len(got)]


def test_pixels_come_as_soon_as_their_window_is_complete(tiny, noise):
    taken = itertools.count()
    seen = 0

    def frames():
        nonlocal seen
        for n in taken:
            seen = n + 1
            yield noise(16, 16, seed=n)

    stream = tiny.decode_video(tiny.encode_video(frames()), stride_frames=12, cache_frames=4)
    for wanted, length in ((16, 12), (32, 12), (48, 12), (48, 12)):
        block = next(stream)
        assert (seen, block.shape) == (wanted, (length, 16, 16, 3))
        assert block.dtype == np.uint8


@pytest.mark.parametrize("windows", [{}, {"stride_frames": 8, "cache_frames": 4}])
@pytest.mark.parametrize("rule", ["pad", "drop"])
def test_nothing_is_held_of_what_has_passed(tiny, noise, rule, windows):
    alive: set[int] = set()
    most = 0

    def watched(thing, number):
        nonlocal most
        alive.add(number)
        most = max(most, len(alive))
        weakref.finalize(thing, alive.discard, number)
        return thing

    frames = (watched(noise(4, 16, 16, seed=n), n) for n in range(50))
    parts = (watched(part, 1000 + n) for n, part in enumerate(tiny.encode_video(frames, frames_rule=rule)))
    total = sum(len(block) for block in tiny.decode_video(parts, **windows))
    assert total == 200
    assert most <= 3  # a block, the one before it while it is replaced, and a part


def test_a_source_may_reuse_its_memory(tiny, noise):
    clip, held = noise(35, 16, 20), np.empty((16, 20, 3), np.uint8)

    def frames():
        for frame in clip:
            held[:] = frame
            yield held

    same(join_video(tiny.encode_video(frames())), tiny.encode([clip]))
    same(join_video(tiny.encode_video(frames(), frames_rule="drop")), tiny.encode([clip], frames="drop"))


def test_parts_stand_alone(tiny, noise):
    clip = noise(37, 20, 33)
    for number, part in enumerate(tiny.encode_video([clip])):
        piece = clip[16 * number : 16 * (number + 1)]
        assert part.mean.items[0].frames == len(piece)
        close(tiny.decode(part, output="float")[0], tiny.decode(tiny.encode([piece]), output="float")[0])
    parts = list(tiny.encode_video([clip]))
    for ours, theirs in zip(split_video(join_video(parts)), parts, strict=True):
        same(ours, theirs)


@pytest.mark.parametrize("channels", [48, 6])
def test_samples_do_not_depend_on_the_cut(channels):
    generator = torch.Generator().manual_seed(0)
    model = build(tiny_config(latent_channels=channels))
    clip = torch.randint(0, 256, (40, 16, 48, 3), dtype=torch.uint8, generator=generator)
    latents = model.encode([clip])
    want = latents.sample(7)
    for steps in (1, 2, 3, 10):
        sampler = PosteriorSampler(7)
        parts = [sampler.sample(part) for part in split_video(latents, steps=steps)]
        assert torch.equal(join_video(parts).features, want.features)
    with pytest.raises(InputError, match="serves one item"):
        PosteriorSampler(0).sample(model.encode([clip[0], clip[1]]))


# -- Bad input -------------------------------------------------------------------------------


def without(clip, place, value):
    clip = clip.copy()
    clip[place, 3, 4, 1] = value
    return clip


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda c: [c[:10], c[10:, :16]], "frame 10: 16x33 after frames of 20x33"),
        (lambda c: [c[:10], without(c[10:], 7, np.nan)], r"frame 17: float pixels must be finite"),
        (lambda c: [*c[:19], without(c[19:], 0, np.inf)], r"frame 19: float pixels must be finite"),
        (lambda c: [without(c, 21, 2.0)], r"frame 21: float pixels .* \[-1, 1\]"),
        (lambda c: [c[:4], c[4:].astype(np.int64)], "frame 4: pixels must be uint8 or float, got torch.int64"),
        (lambda c: [c[:4], np.zeros((3, 20, 33, 3), np.uint8)], "frame 4: torch.uint8 after frames of torch.float32"),
        (lambda c: [c[:5], c[5, :, :, 0]], r"frame 5: expected \[H, W, 3\]"),
        (lambda c: [c[:5], "frame.png"], "frame 5: expected an array"),
        (lambda c: [], "no frames"),
        (lambda c: [c[:0]], "no frames"),
    ],
)
def test_the_bad_frame_is_named(tiny, noise, spoil, words):
    clip = (noise(24, 20, 33) / 127.5 - 1).astype(np.float32)
    with pytest.raises(InputError, match=words):
        list(tiny.encode_video(spoil(clip)))


def test_good_tiles_come_before_the_bad_frame(tiny, noise):
    stream = tiny.encode_video([noise(20, 16, 16), noise(4, 16, 32)])
    assert next(stream).mean.lengths == (4,)
    with pytest.raises(InputError, match="frame 20"):
        next(stream)


def test_settings_are_refused_at_once(tiny, noise):
    with pytest.raises(InputError, match="fit must be"):
        tiny.encode_video([], fit="squeeze")
    with pytest.raises(InputError, match="stride_frames"):
        tiny.decode_video([], stride_frames=3)
    with pytest.raises(InputError, match="'png'"):
        tiny.decode_video([], output="png")
    with pytest.raises(InputError, match=r"5x7 is smaller than a 16x16 patch"):
        next(tiny.encode_video([noise(3, 5, 7)], fit="crop"))


def test_parts_must_follow_one_another(tiny, tiny_fsq, noise):
    first, second, third = tiny.encode_video([noise(41, 16, 16)])
    other = next(tiny.encode_video([noise(16, 32, 16)]))
    both = Latents.cat([first, second])
    shifted = replace(first.mean, coords=first.mean.coords + torch.tensor([4, 0, 0, 0], dtype=torch.int32))
    for parts, words in (
        ([first, third], "part 1: starts at t = 8, the part before ends at 4"),
        ([first, first], "part 1: starts at t = 0"),
        ([first, replace(other, mean=replace(other.mean, coords=other.mean.coords))], "of another kind"),
        ([first, second, third, third], "part 3: the part before ends amid a latent step"),
        ([both], "holds one item, not 2"),
        ([first, shifted.with_features(shifted.features[:, :9])], "another kind"),
        ([first.mean.features], "not a Tensor"),
    ):
        with pytest.raises(InputError, match=words):
            list(tiny.decode_video(parts))
        with pytest.raises(InputError, match=words):
            join_video(parts)
    with pytest.raises(InputError, match="no parts"):
        join_video([])
    assert list(tiny.decode_video([])) == []
    with pytest.raises(InputError, match=r"write \[item\]"):
        tiny.decode_video(first)
    with pytest.raises(InputError, match="cannot decode codes"):
        list(tiny.decode_video([tiny_fsq.quantize(first)]))
    with pytest.raises(InputError, match="raster"):
        list(tiny.decode_video([replace(first.mean, coords=first.mean.coords.flip(0))]))


def test_streams_keep_no_gradients_and_leave_grad_mode_alone(tiny, noise):
    stream = tiny.encode_video([noise(20, 16, 16)])
    part = next(stream)
    assert torch.is_grad_enabled()
    assert not part.mean.features.requires_grad
    assert not part.mean.features.is_inference()
    assert not next(tiny.decode_video_pixels([part])).requires_grad
    assert isinstance(part.mean, SparseTokens)


def test_a_layout_is_planned_once(tiny, noise, monkeypatch):
    planned = []
    monkeypatch.setattr(
        streaming, "plan_raster", lambda grid, **rest: planned.append(grid) or plan_raster(grid, **rest)
    )
    parts = list(tiny.encode_video([noise(16 * 9 + 2, 16, 32)]))
    assert planned == [(4, 1, 2), (1, 1, 2)]
    planned.clear()
    list(tiny.decode_video(parts, stride_frames=8, cache_frames=16))
    # The first window, the second with half a cache, all others with a full one, the rest at the end.
    assert planned == [(2, 1, 2), (2, 1, 2), (2, 1, 2), (1, 1, 2)]


@pytest.mark.cuda
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("space", [None, SpaceTiles(32, 32, 16)])
def test_cuda_streams_as_the_cpu_does(tiny, noise, dtype, tolerance, space):
    clip, model = noise(37, 40, 50), deepcopy(tiny).to("cuda", dtype)
    want, got = (join_video(m.encode_video([clip[:5], clip[5:]], space=space)) for m in (tiny, model))
    close(got.mean.features.cpu(), want.mean.features, tolerance)
    for windows in ({}, {"stride_frames": 12, "cache_frames": 4}):
        pixels = [torch.cat(list(m.decode_video_pixels([want], space=space, **windows))) for m in (tiny, model)]
        close(pixels[1].cpu(), pixels[0], tolerance)


@pytest.mark.slow
def test_the_commands_need_no_more_memory_for_a_longer_clip(tmp_path):
    from benchmarks.speed.stream import through_files

    peaks = []
    for frames in (240, 2400):
        folder = tmp_path / str(frames)
        folder.mkdir()
        peaks.append(max(cost.peak for cost in through_files(folder, "atoken-nano", (192, 192, frames), 1)))
    assert peaks[1] < 1.1 * peaks[0]
