"""The reader's speed bench prints a line per reader, and its clip is what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoken.video import open_video
from benchmarks.speed import video_reader as bench


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["--frames", "5", "--height", "64", "--width", "96", "--repeats", "1"])
    first, *rows = capsys.readouterr().out.splitlines()
    assert first == "5 frames of 96x64, H.264"
    names = ("decoding alone", "PyAV to_ndarray", "ours, accurate", "ours, ffmpeg", "torchcodec, ffmpeg")
    said = {row[:20].strip(): row for row in rows}  # a reader that is not installed says so before the others
    assert sorted(said) == sorted(names)
    assert all("frames/s" in said[name] for name in names[:4])
    assert "accurate  0.00" in said["ours, accurate"]


def test_the_clip_is_tagged(tmp_path: Path) -> None:
    import av

    bench.write_clip(tmp_path / "a.mp4", 3, 64, 96)
    assert open_video(tmp_path / "a.mp4").info.frames == 3
    with av.open(str(tmp_path / "a.mp4")) as container:
        frame = next(container.decode(video=0))
    assert (int(frame.colorspace), int(frame.color_range)) == (1, 1)
