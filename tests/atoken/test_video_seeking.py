"""Frames by number are the frames of the reader that gives all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atoken.media import MediaError
from atoken.video import read_video
from atoken.video.seeking import SeekableVideo
from tests.atoken.clips import moving, turn, write_clip

FORMATS = [
    ("a.mp4", "libx264", "yuv420p", {"g": "6", "bf": "3"}),  # B-frames, several keyframes
    ("a.mp4", "libx264", "yuv420p", {"g": "250", "bf": "2"}),  # one keyframe
    ("a.mp4", "libx264", "yuv420p", {"g": "6", "x264-params": "open-gop=1:bframes=3:keyint=6"}),
    ("a.mkv", "libvpx-vp9", "yuv420p", {"g": "5", "auto-alt-ref": "1"}),
    ("a.webm", "libvpx-vp9", "yuv420p", {}),
    ("a.avi", "mpeg4", "yuv420p", {"bf": "2"}),  # its packets bear no time stamps of presentation
    ("a.mpg", "mpeg2video", "yuv420p", {"g": "5", "bf": "2"}),
    ("a.mkv", "ffv1", "bgr0", {}),
]


@pytest.mark.parametrize(("name", "codec", "pixels", "options"), FORMATS)
def test_any_frames_of_any_file(tmp_path: Path, name: str, codec: str, pixels: str, options: dict[str, str]) -> None:
    path = write_clip(tmp_path / name, moving(40), codec, pixels, options=options)
    whole, video = read_video(path), SeekableVideo(path)
    assert len(video) == len(whole)
    rng = np.random.default_rng(0)
    for count in (1, 2, 5, 12, 40):
        numbers = sorted(rng.choice(40, count, replace=False).tolist())
        np.testing.assert_array_equal(video.frames(numbers), whole[numbers])


def test_what_lies_before_the_keyframe_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mp4", moving(60), options={"g": "10", "bf": "0", "sc_threshold": "0"})
    video = SeekableVideo(path)
    decoded: list[int] = []
    monkeypatch.setattr(SeekableVideo, "_counted", lambda *_: pytest.fail("decoded from the start"))

    def noted(frames: object, stamps: list[int]) -> object:
        for frame in frames:  # type: ignore[attr-defined]
            decoded.append(frame.pts)
            if frame.pts == stamps[-1]:
                yield frame
                return

    monkeypatch.setattr("atoken.video.seeking._picked", noted)
    video.frames([57])
    assert len(decoded) == 8  # from the keyframe 50 on


def test_frames_whose_stamps_vary_or_repeat(tmp_path: Path) -> None:
    stamps = [0, 1, 2, 7, 8, 20, 21, 22, 23, 50]
    path = write_clip(tmp_path / "a.mkv", moving(10), pts=stamps, options={"bf": "0"})
    np.testing.assert_array_equal(SeekableVideo(path).frames([3, 4, 9]), read_video(path)[[3, 4, 9]])


def test_turned_clips(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", moving(8))
    turn(path, 0, 1, -1, 0)
    whole = read_video(path)
    assert whole.shape[1:3] == (48, 32)
    np.testing.assert_array_equal(SeekableVideo(path).frames([2, 7]), whole[[2, 7]])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(MediaError, match=r"a.mp4: not a video"):
        SeekableVideo(tmp_path / "a.mp4")
    with pytest.raises(MediaError, match="No such file"):
        SeekableVideo(tmp_path / "b.mp4")
    path = write_clip(tmp_path / "c.avi", moving(9), "mpeg4")
    video = SeekableVideo(path)
    write_clip(path, moving(5), "mpeg4")
    with pytest.raises(MediaError, match=r"c.avi"):
        video.frames([8])
