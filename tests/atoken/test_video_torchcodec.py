"""The optional reader gives the same frames as ours, or a line that says why not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from atoken.media import MediaError
from atoken.video import open_video, read_video
from tests.atoken.clips import ffmpeg, moving, turn, write_clip

B_FRAMES = {"x264-params": "bframes=3:keyint=8:min-keyint=8:open-gop=1:scenecut=0"}


def with_torchcodec(path: Path) -> np.ndarray:
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"torchcodec is not installed, or finds no FFmpeg: {str(error).splitlines()[0]}")
    return np.concatenate(list(open_video(path, reader="torchcodec", colour="ffmpeg").blocks(5)))


def cut_by_edit_list(path: Path) -> Path:
    write_clip(path, moving(24), options=B_FRAMES)
    ffmpeg("-ss", "0.2", "-i", path, "-c", "copy", path.with_name("edited.mp4"))
    return path.with_name("edited.mp4")


def turned(path: Path) -> Path:
    turn(write_clip(path, moving(3)), 0, 1, -1, 0)
    return path


CLIPS: dict[str, Callable[[Path], Path]] = {
    "B-frames": lambda f: write_clip(f / "a.mp4", moving(20), options=B_FRAMES),
    "variable rate": lambda f: write_clip(f / "a.mp4", moving(8), pts=[0, 1, 2, 10, 11, 30, 31, 32]),
    "edit list": lambda f: cut_by_edit_list(f / "a.mp4"),
    "turned": lambda f: turned(f / "a.mp4"),
    "BT.709, 10 bits": lambda f: write_clip(f / "a.mp4", moving(4), pix_fmt="yuv420p10le", colorspace=1, color_trc=16),
    "full range": lambda f: write_clip(f / "a.mp4", moving(4), pix_fmt="yuvj420p"),
    "grey": lambda f: write_clip(f / "a.mp4", moving(4), pix_fmt="gray"),
    "odd sides": lambda f: write_clip(f / "a.mkv", moving(4, 33, 47), "ffv1"),
    "RGB": lambda f: write_clip(f / "a.mkv", moving(4, 33, 47), "ffv1", "bgr0"),
    "WebM": lambda f: write_clip(f / "a.webm", moving(4), "libvpx-vp9"),
    "4:2:2": lambda f: write_clip(f / "a.mov", moving(4), "prores_ks", "yuv422p10le", colorspace=1),
}


@pytest.mark.parametrize("kind", CLIPS)
def test_the_same_frames(kind: str, tmp_path: Path) -> None:
    path = CLIPS[kind](tmp_path)
    np.testing.assert_array_equal(with_torchcodec(path), read_video(path, colour="ffmpeg"))


def test_what_torchcodec_does_not_do_is_said(tmp_path: Path) -> None:
    mirrored = write_clip(tmp_path / "mirrored.mp4", moving(2))
    turn(mirrored, -1, 0, 0, 1)
    with pytest.raises(MediaError, match=r"mirrored\.mp4: torchcodec's first frame is another .* take the reader pyav"):
        with_torchcodec(mirrored)
    # MPEG-PS gives B-frames no time stamp.
    unstamped = write_clip(tmp_path / "a.mpg", moving(20), "mpeg2video", options={"bf": "2"})
    with pytest.raises(MediaError, match=r"a\.mpg: torchcodec stops after \d+ frames .* take the reader pyav"):
        with_torchcodec(unstamped)


def test_damage_is_named(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", moving(24), options=B_FRAMES, container={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(MediaError, match=r"a\.mp4: (truncated|torchcodec stops) after \d+ frames"):
        with_torchcodec(path)
    with pytest.raises(MediaError, match=r"gone\.mp4: No such file"):
        with_torchcodec(tmp_path / "gone.mp4")


def test_where_it_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    path = write_clip(tmp_path / "a.mp4", moving(1))
    with pytest.raises(MediaError, match=r"a\.mp4: the reader torchcodec is not installed.*take the reader pyav"):
        open_video(path, reader="torchcodec", colour="ffmpeg")


def test_it_has_one_colour(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='torchcodec knows the colour "ffmpeg" only'):
        open_video(tmp_path / "a.mp4", reader="torchcodec")
