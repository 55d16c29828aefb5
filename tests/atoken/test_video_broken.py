"""Clips that cannot be read to their end, and folders of images: each fault gets a line that names the file."""

from __future__ import annotations

import os
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from atoken.media import MediaError
from atoken.video import open_video, read_video
from tests.atoken.clips import ffmpeg, moving, write_clip

KINDS = {
    "front.mp4": ("libx264", "yuv420p", {"movflags": "faststart"}),
    "pieces.mp4": ("libx264", "yuv420p", {"movflags": "frag_keyframe+empty_moov"}),
    "back.mp4": ("libx264", "yuv420p", {}),
    "a.mkv": ("ffv1", "bgr0", {}),
    "a.webm": ("libvpx-vp9", "yuv420p", {}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {}),
    "jpeg.avi": ("mjpeg", "yuvj420p", {}),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    for name, (codec, pix_fmt, container) in KINDS.items():
        write_clip(folder / name, moving(12), codec, pix_fmt, container=container)
    return folder


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=25, deadline=None)
@given(part=st.floats(0, 1, exclude_max=True))
def test_a_file_that_is_cut_off_anywhere(
    name: str, part: float, whole: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cut") / name
    data = (whole / name).read_bytes()
    kept = int(part * len(data))
    path.write_bytes(data[:kept])
    read = 0
    try:
        for block in open_video(path).blocks(1):
            read += len(block)
    except MediaError as error:
        line = str(error)
    else:
        # Only what follows the last frame may be missing (AVI's and Matroska's index, for example).
        assert read == 12
        return
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    if "truncated or damaged after" in line:
        assert f"after {read} frames" in line
    # The first box, or the segment's size, has to be there; and a fragmented file may end after its header.
    if kept >= 64 and not (name == "pieces.mp4" and line.endswith("the video stream holds no frame")):
        assert "copy or download it again" in line


def test_a_clip_that_changes_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuvj420p"
        for number in range(6):
            size = (32, 48) if number < 4 else (16, 64)
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.height, encoder.width = size
            encoder.pix_fmt, encoder.time_base = "yuvj420p", Fraction(1, 25)
            frame = av.VideoFrame.from_ndarray(moving(1, *size)[0], format="rgb24")
            for packet in encoder.encode(frame.reformat(format="yuvj420p")):
                packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 25)
                file.mux(packet)
    with pytest.raises(MediaError, match=r"a\.avi: frame 4 is 64x16, not 48x32 as before; cut the clip there"):
        read_video(path)
    assert len(next(iter(open_video(path).blocks(4)))) == 4


def test_what_is_no_clip(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "sound.mp4"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\0" * 8000)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("Dear reader, this is not a video.\n" * 99)
    write_clip(tmp_path / "real.mp4", moving(2))
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile real.mp4\n")
    (tmp_path / "hls.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nreal.mp4\n#EXT-X-ENDLIST\n")
    (tmp_path / "head.mp4").write_bytes((tmp_path / "real.mp4").read_bytes()[:600])
    for name, reason in {
        "sound.mp4": "the file holds no video stream",
        "empty.mp4": "the file is empty",
        "text.mp4": "not a video, or its header is damaged",
        "list.mp4": "not a video, or its header is damaged",
        "hls.mp4": "not a video, or its header is damaged",
        "head.mp4": r"its index \(moov\) is missing, so it was cut off or its recording not finished; copy or download",
        "gone.mp4": "No such file or directory",
        "concat:real.mp4|real.mp4": "No such file or directory",
    }.items():
        with pytest.raises(MediaError, match=rf"{name.replace('|', '[|]')}: {reason}"):
            open_video(tmp_path / name)


def test_what_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(MediaError, match=r"pipe\.mp4: not a regular file"):  # opening it would wait for ever
        open_video(tmp_path / "pipe.mp4")

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(MediaError, match=r"secret\.mp4: Permission denied"):
        open_video(tmp_path / "secret.mp4")


def test_a_clip_with_no_frame(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", moving(3))
    header = ("-f", "mp4", "-movflags", "empty_moov", "-c", "copy", "-bsf:v", "noise=drop=1")
    ffmpeg("-i", tmp_path / "a.mp4", *header, tmp_path / "none.mp4")
    with pytest.raises(MediaError, match=r"none\.mp4: the video stream holds no frame"):
        open_video(tmp_path / "none.mp4")


def test_a_damaged_frame_stops_the_clip(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mpg", moving(24, 64, 96), "mpeg2video")
    data = bytearray(path.read_bytes())
    start = len(data) // 2
    data[start : start + 64] = np.random.default_rng(0).bytes(64)
    path.write_bytes(data)
    with pytest.raises(MediaError, match=r"a\.mpg: truncated or damaged after \d+ frames \(damaged data\)"):
        read_video(path)


def test_metadata_in_no_known_encoding(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", moving(2))
    ffmpeg("-i", path, "-c", "copy", "-metadata", "title=XXXX", tmp_path / "b.mkv")
    data = (tmp_path / "b.mkv").read_bytes()
    (tmp_path / "b.mkv").write_bytes(data.replace(b"XXXX", b"\xff\xfe\xfd\xfc"))
    assert len(read_video(tmp_path / "b.mkv")) == 2


def sequence(folder: Path, *names: str) -> np.ndarray:
    folder.mkdir()
    frames = moving(max(1, len(names)))[: len(names)]
    for name, frame in zip(names, frames, strict=True):
        Image.fromarray(frame).save(folder / name)
    return frames


def test_numbered_images_are_a_clip(tmp_path: Path) -> None:
    frames = sequence(tmp_path / "davis", *(f"{number}.png" for number in range(8, 13)))
    for other in ("notes.txt", ".hidden.png"):
        (tmp_path / "davis" / other).touch()
    video = open_video(tmp_path / "davis")
    assert (video.info.height, video.info.width, video.info.rate, video.info.frames) == (32, 48, 24, 5)
    np.testing.assert_array_equal(np.concatenate(list(video.blocks(2))), frames)
    assert open_video(tmp_path / "davis", rate=Fraction(25)).info.rate == 25
    np.testing.assert_array_equal(read_video(tmp_path / "davis"), frames)


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (("00000.png", "00001.png", "00003.png"), "s: frame 2 is missing after 00001.png"),
        (("7.png", "12.png"), "s: frames 8 to 11 are missing after 7.png"),
        (("cover.png", "1.png"), "s/cover.png: no number in its name tells its place in the sequence"),
        (("1.png", "01.png"), r"s/1.png: has the same number as 01.png; keep one sequence to a folder"),
        ((), "s: the folder holds no image; give a video file, or a folder of numbered frames"),
    ],
)
def test_faults_of_a_sequence_are_named(names: tuple[str, ...], line: str, tmp_path: Path) -> None:
    sequence(tmp_path / "s", *names)
    with pytest.raises(MediaError, match=line):
        open_video(tmp_path / "s")


def test_a_sequence_whose_images_differ_or_are_broken(tmp_path: Path) -> None:
    sequence(tmp_path / "s", "0.png", "1.png", "2.png")
    (tmp_path / "s" / "2.png").write_bytes(b"")
    with pytest.raises(MediaError, match=r"2\.png: the file is empty"):
        read_video(tmp_path / "s")
    Image.new("RGB", (20, 10)).save(tmp_path / "s" / "2.png")
    with pytest.raises(MediaError, match="frame 2 is 20x10, not 48x32 as before"):
        read_video(tmp_path / "s")
