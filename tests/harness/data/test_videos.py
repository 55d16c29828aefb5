"""Folders of clips: what is found, in which order and under which ids, and what is reported by name."""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
import tempfile
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from harness.data import open_clips
from harness.data.base import ClipSource, SampleError
from harness.data.fingerprint import clip_sha256, content_sha256
from harness.errors import BenchError
from tests.harness.data.conftest import grey_frames, write_clip, write_sequence


def ids(dataset: ClipSource) -> list[str]:
    return [sample.id for sample in dataset.samples]


def frames_of(dataset: ClipSource, index: int) -> np.ndarray:
    return np.concatenate(list(dataset.open(index).blocks(3)))


def index_of(dataset: ClipSource, id_: str) -> int:
    return ids(dataset).index(id_)


def failure(root: Path, id_: str) -> str:
    """The reason why a clip below `root` cannot be read to its end."""
    dataset = open_clips("folder", root)
    with pytest.raises(SampleError) as caught:
        frames_of(dataset, index_of(dataset, id_))
    assert caught.value.sample_id == id_
    assert str(root) not in caught.value.reason  # the id says where
    assert "\n" not in caught.value.reason
    return caught.value.reason


def test_files_and_sequences_in_the_order_of_ids(tmp_path: Path) -> None:
    root = tmp_path / "clips"
    write_clip(root / "b" / "2.mkv", grey_frames(5))
    write_clip(root / "a.MKV", grey_frames(2), rate=Fraction(30000, 1001))
    write_sequence(root / "b" / "frames", grey_frames(4, (16, 20)))
    write_sequence(root / "no numbers", grey_frames(1), name="cover.png")
    write_clip(root / ".hidden.mkv", grey_frames(1))
    write_sequence(root / ".cache" / "x", grey_frames(1))
    (root / "notes.txt").write_text("no clip")
    Image.new("RGB", (8, 8)).save(root / "poster1.png")  # beside clips: no frame

    dataset = open_clips("folder", root)
    assert ids(dataset) == ["a.MKV", "b/2.mkv", "b/frames"]
    assert (dataset.title, dataset.expected, dataset.modality) == ("clips", None, "video")
    assert dataset.notes == ("passed over: 2 images that are no frames of a sequence",)
    assert [dataset.stamp(i) for i in range(2)] == [str((root / n).stat().st_size) for n in ("a.MKV", "b/2.mkv")]

    shapes = [dataset.open(index).shape for index in range(3)]
    assert [(shape.height, shape.width) for shape in shapes] == [(32, 48), (32, 48), (16, 20)]
    assert [shape.rate for shape in shapes] == [Fraction(30000, 1001), 25, 24]
    for index, count in enumerate((2, 5, 4)):
        np.testing.assert_array_equal(frames_of(dataset, index)[:, 3, 5, 1], 10 * np.arange(count))


def test_a_folder_may_be_one_sequence_itself(tmp_path: Path) -> None:
    dataset = open_clips("folder", write_sequence(tmp_path / "bear", grey_frames(3)))
    assert ids(dataset) == ["bear"]
    assert len(frames_of(dataset, 0)) == 3


def test_frames_go_by_their_number_and_not_by_their_name(tmp_path: Path) -> None:
    dataset = open_clips("folder", write_sequence(tmp_path / "traj", grey_frames(12), name="im_{}.png"))
    np.testing.assert_array_equal(frames_of(dataset, 0)[:, 0, 0, 0], 10 * np.arange(12))


def test_every_call_decodes_anew(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mkv", grey_frames(7))
    clip = open_clips("folder", tmp_path).open(0)
    assert [len(block) for block in clip.blocks(3)] == [3, 3, 1]
    one, other = clip.blocks(2), clip.blocks(7)
    next(one)
    np.testing.assert_array_equal(next(other)[:2], grey_frames(2))
    np.testing.assert_array_equal(next(one), grey_frames(4)[2:])


def test_the_hash_is_of_the_stored_bytes(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", grey_frames(3))
    sequence = write_sequence(tmp_path / "b", grey_frames(3))
    (sequence / ".hidden.png").write_bytes(b"x")
    (sequence / "Thumbs.db").write_bytes(b"x")
    dataset = open_clips("folder", tmp_path)
    assert dataset.open(0).sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == clip_sha256(path)
    frames = [f"{number:05d}.png" for number in range(3)]
    wanted = content_sha256((name, hashlib.sha256((sequence / name).read_bytes()).hexdigest()) for name in frames)
    assert dataset.open(1).sha256 == wanted
    assert dataset.stamp(1) == f"3-{sum((sequence / name).stat().st_size for name in frames)}"
    (sequence / "00002.png").rename(sequence / "00003.png")
    assert clip_sha256(sequence) != wanted
    (sequence / "00003.png").unlink()
    assert dataset.stamp(1).startswith("2-")


def _third_frame(dataset: ClipSource) -> int:
    return int(frames_of(dataset, 0)[2, 0, 0, 0])


def test_datasets_travel_to_worker_processes(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mkv", grey_frames(3))
    dataset = open_clips("folder", tmp_path)
    assert ids(pickle.loads(pickle.dumps(dataset))) == ["a.mkv"]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(_third_frame, dataset).result() == 20


@pytest.mark.parametrize("count", [1, 2, 3])
def test_clips_of_one_to_three_frames(tmp_path: Path, count: int) -> None:
    write_clip(tmp_path / "a.mkv", grey_frames(count))
    write_clip(tmp_path / "b.mp4", grey_frames(count), codec="libx264", pixels="yuv420p")
    write_sequence(tmp_path / "c", grey_frames(count))
    dataset = open_clips("folder", tmp_path)
    assert [len(frames_of(dataset, index)) for index in range(3)] == [count] * 3


def test_broken_files_are_named_with_their_reason(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", grey_frames(40), codec="libx264", pixels="yuv420p").read_bytes()
    tail = write_clip(tmp_path / "tail.mkv", np.random.default_rng(0).integers(0, 256, (9, 32, 48, 3), np.uint8))
    tail.write_bytes(tail.read_bytes()[:-9000])
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "header.mp4").write_bytes(whole[:200])
    (tmp_path / "page.mp4").write_bytes(b"<html>not found</html>" * 40)
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())

    assert "empty" in failure(tmp_path, "empty.mp4")
    assert failure(tmp_path, "header.mp4")
    assert failure(tmp_path, "page.mp4")
    assert failure(tmp_path, "gone.mp4") == "a link that leads nowhere"
    assert "video" in failure(tmp_path, "sound.mp4")
    assert "truncated" in failure(tmp_path, "tail.mkv")
    dataset = open_clips("folder", tmp_path)
    assert len(frames_of(dataset, index_of(dataset, "whole.mp4"))) == 40


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mkv", grey_frames(1))
    os.mkfifo(tmp_path / "pipe.mp4")
    assert failure(tmp_path, "pipe.mp4") == "not a regular file"
    with tempfile.TemporaryDirectory(dir="/tmp") as short, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{short}/s.mp4")
        assert failure(Path(short), "s.mp4") == "not a regular file"


def test_broken_sequences_are_named_with_their_frame(tmp_path: Path) -> None:
    for name in ("gap", "cut", "grows", "fine"):
        write_sequence(tmp_path / name, grey_frames(5))
    (tmp_path / "gap" / "00003.png").unlink()
    cut = tmp_path / "cut" / "00002.png"
    cut.write_bytes(cut.read_bytes()[:40])
    Image.new("RGB", (20, 20)).save(tmp_path / "grows" / "00004.png")
    assert failure(tmp_path, "gap").startswith("frame 3 is missing")
    assert failure(tmp_path, "cut").startswith("00002.png: ")
    assert failure(tmp_path, "grows").startswith("frame 4 is 20x20, not 48x32")
    dataset = open_clips("folder", tmp_path)
    assert len(frames_of(dataset, index_of(dataset, "fine"))) == 5


def test_a_clip_that_changes_its_size_midway(tmp_path: Path) -> None:
    path = tmp_path / "a.ts.mpg"
    raw = b""
    for size in ((32, 48), (48, 64)):
        part = write_clip(tmp_path / "part.h264", grey_frames(6, size), codec="libx264", pixels="yuv420p")
        raw += part.read_bytes()
    path.write_bytes(raw)
    (tmp_path / "part.h264").unlink()
    assert failure(tmp_path, "a.ts.mpg").startswith("frame 6 is 64x48, not 48x32")


def test_grey_and_ten_bit_clips_are_read_as_8_bit_rgb(tmp_path: Path) -> None:
    frames = grey_frames(3)
    write_clip(tmp_path / "grey.mkv", frames, pixels="gray")
    write_clip(tmp_path / "ten.mkv", frames, pixels="yuv444p10le")
    write_sequence(tmp_path / "greys", frames)
    for number, frame in enumerate(frames):
        Image.fromarray(frame[..., 0]).save(tmp_path / "greys" / f"{number:05d}.png")
    dataset = open_clips("folder", tmp_path)
    for index in range(3):
        got = frames_of(dataset, index)
        assert got.shape == frames.shape
        assert np.abs(got.astype(int) - frames).max() <= 2


def test_folders_without_clips_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="nowhere: no such folder"):
        open_clips("folder", tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(BenchError, match=r"holds no clips .files named .mp4"):
        open_clips("folder", tmp_path)
    with pytest.raises(BenchError, match="folder needs a path: --data folder=PATH"):
        open_clips("folder")
    with pytest.raises(BenchError, match="no video dataset 'imagenet-val'; there are: samples, davis, tokenbench"):
        open_clips("imagenet-val", tmp_path)


def test_a_sequence_named_like_its_root_is_not_taken_for_it(tmp_path: Path) -> None:
    write_sequence(tmp_path / "bear", grey_frames(1))
    write_sequence(tmp_path / "bear" / "bear", grey_frames(1))
    with pytest.raises(BenchError, match=r"\. and bear are both bear"):
        open_clips("folder", tmp_path / "bear")
