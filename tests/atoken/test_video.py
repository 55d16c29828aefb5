"""Clips whose right frames are known by construction, and ffmpeg beside ours."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from atoken.media import MediaError
from atoken.video import frame_rate, read_video, write_video

NOISE = np.random.default_rng(0)


def pixels(*shape: int) -> np.ndarray:
    return NOISE.integers(0, 256, shape, dtype=np.uint8)


def test_lossless_video_round_trip(tmp_path: Path) -> None:
    frames = pixels(5, 17, 31, 3)  # odd sides: nothing may be subsampled
    write_video(tmp_path / "a.mkv", frames, Fraction(30000, 1001))
    np.testing.assert_array_equal(read_video(tmp_path / "a.mkv"), frames)
    assert frame_rate(tmp_path / "a.mkv") == Fraction(30000, 1001)


def h264(path: Path) -> None:
    """Six frames: red, green / black, blue quarters, 32 x 64."""
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:16, :32], picture[:16, 32:], picture[16:, 32:] = [255, 0, 0], [0, 255, 0], [0, 0, 255]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        for _ in range(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def test_a_clip_filmed_upright_is_turned(tmp_path: Path) -> None:
    h264(tmp_path / "a.mp4")
    file = bytearray((tmp_path / "a.mp4").read_bytes())
    # ISO 14496-12: the matrix of a quarter turn clockwise, in the track header (version 0).
    matrix = file.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    struct.pack_into(">9i", file, matrix, 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    (tmp_path / "a.mp4").write_bytes(file)
    video = read_video(tmp_path / "a.mp4")
    assert video.shape == (6, 64, 32, 3)
    corners = video[0][[8, 8, -8, -8], [8, -8, 8, -8]].astype(int)
    wanted = [[0, 0, 0], [255, 0, 0], [0, 0, 255], [0, 255, 0]]
    assert np.abs(corners - wanted).max() < 8


@pytest.mark.parametrize(("cut", "reason"), [(0, "empty"), (10, "moov"), (800, "moov")])
def test_truncated_videos_are_named(tmp_path: Path, cut: int, reason: str) -> None:
    path = tmp_path / "a.mp4"
    h264(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(MediaError, match=rf"a\.mp4: .*{reason}"):
        read_video(path)


def test_a_video_cut_inside_a_frame_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuvj420p"
        for _ in range(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels(32, 64, 3), format="rgb24")))
        container.mux(stream.encode())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(MediaError, match=r"truncated or damaged after [1-5] frames"):
        read_video(path)


def test_a_sound_file_is_no_video(tmp_path: Path) -> None:
    import wave

    with wave.open(str(tmp_path / "a.mp4"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\0" * 8000)
    with pytest.raises(MediaError, match="no video stream"):
        read_video(tmp_path / "a.mp4")
