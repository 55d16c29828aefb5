"""Clips: frame folders without a video library, video files by seeking, photographs in motion."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atoken.training.data import Sources, open_sources
from atoken.training.data.moving_images import MovingImages
from atoken.training.data.source import ClipRequest, PassedOverError, SampleError
from atoken.training.data.videos import VideoFolder
from atoken.training.errors import TrainingError
from atoken.training.tasks import VideoTask
from tests.atoken.clips import moving, write_clip
from tests.atoken.training.samples import MadeImages, batches, items, stage


def write_frames(folder: Path, frames: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number + 5:05}.png")
    return folder


def asking(*numbers: int, seen: list[tuple[int, Fraction]] | None = None, side: int = 32) -> ClipRequest:
    """A request for these frames; what the source says of the clip goes to `seen`."""

    def frames(count: int, rate: Fraction) -> list[int]:
        if seen is not None:
            seen.append((count, rate))
        return list(numbers)

    return ClipRequest(frames, side, np.random.default_rng(0))


def test_frame_folders_and_files_in_one_place(tmp_path: Path) -> None:
    one, two = moving(12, 32, 48), moving(9, 48, 64)
    write_frames(tmp_path / "a/one", one)
    write_clip(tmp_path / "b.mkv", two, "ffv1", "bgr0")
    (tmp_path / "a/one.txt").write_text("a folder")
    (tmp_path / "b.txt").write_text("a file")
    source = VideoFolder(tmp_path)
    assert [source.sample_id(index) for index in range(2)] == [f"{tmp_path}/a/one", f"{tmp_path}/b.mkv"]
    seen: list[tuple[int, Fraction]] = []
    np.testing.assert_array_equal(source.clip(0, asking(1, 3, 11, seen=seen)), one[[1, 3, 11]])
    np.testing.assert_array_equal(source.clip(1, asking(0, 8, seen=seen)), two[[0, 8]])
    assert seen == [(12, Fraction(24)), (9, Fraction(25))]
    assert [source.caption(index, np.random.default_rng(0)) for index in range(2)] == ["a folder", "a file"]


def test_one_clip_alone(tmp_path: Path) -> None:
    frames = moving(5)
    folder, file = write_frames(tmp_path / "clip", frames), write_clip(tmp_path / "clip.mkv", frames, "ffv1", "bgr0")
    (tmp_path / "clip.txt").write_text("squares")
    for place in (folder, file):
        source = VideoFolder(place)
        assert len(source) == 1
        assert source.caption(0, np.random.default_rng(0)) == "squares"
        np.testing.assert_array_equal(source.clip(0, asking(2, 4)), frames[[2, 4]])


def test_captions_of_clips_in_one_file(tmp_path: Path) -> None:
    write_frames(tmp_path / "one", moving(4))
    write_frames(tmp_path / "two", moving(4))
    (tmp_path / "captions.csv").write_text("file,caption\ntwo,second\n")
    source = VideoFolder(tmp_path)
    assert [source.caption(index, np.random.default_rng(0)) for index in range(2)] == [None, "second"]


def test_frame_folders_need_no_video_library(tmp_path: Path) -> None:
    write_frames(tmp_path / "clips/one", moving(8, 32, 32))
    program = f"""
import sys
sys.modules["av"] = None  # importing it fails
from atoken.training.data import Batches, open_sources
from atoken.training.recipe import Stage
from atoken.training.tasks import VideoTask
task = VideoTask(samples=2, share=1, resolution=(16, 32), view="crop", frames=(4, 8), strides=((1, 2),))
stage = Stage(name="s", steps=1, latents=8, frames=4, tasks={{"video_recon": task}})
sources = open_sources({{"videos": [{str(tmp_path / "clips")!r}]}}, cache=None)
batches = Batches(sources, stage, stage_index=0, seed=0, rank=0, world=1, patch=(4, 16, 16), pack_tokens=99)
assert len(batches.batch("video_recon", 0).packs[0].ids) == 2
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_broken_clips_are_named(tmp_path: Path) -> None:
    write_frames(tmp_path / "a_sizes", moving(4))
    Image.fromarray(moving(1, 16, 16)[0]).save(tmp_path / "a_sizes/00006.png")
    write_frames(tmp_path / "b_gap", moving(4))
    (tmp_path / "b_gap/00006.png").unlink()
    (tmp_path / "c.mp4").write_bytes(b"no video")
    whole = write_clip(tmp_path / "d.mp4", moving(40, 64, 64), options={"movflags": "faststart"})
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    source = VideoFolder(tmp_path)
    for index, reason in enumerate(["00006.png: is 16x16", "frame 6 is missing", "not a video", "it was cut off"]):
        with pytest.raises(SampleError, match=reason):
            source.clip(index, ClipRequest(lambda count, _: list(range(count)), 32, np.random.default_rng(0)))
    assert source.hold(10**9) == 0


def test_small_clips_are_decoded_once_the_smallest_first(tmp_path: Path) -> None:
    for name, count in (("a", 8), ("b", 4), ("c", 6)):
        write_frames(tmp_path / name, moving(count))
    frame = moving(1).nbytes
    source = VideoFolder(tmp_path)
    assert source.hold(11 * frame) == 10 * frame
    for name in ("b", "c"):
        for file in (tmp_path / name).iterdir():
            file.write_bytes(b"")
    np.testing.assert_array_equal(source.clip(1, asking(1, 3)), moving(4)[[1, 3]])
    np.testing.assert_array_equal(source.clip(2, asking(0, 5)), moving(6)[[0, 5]])
    np.testing.assert_array_equal(source.clip(0, asking(7)), moving(8)[[7]])


def test_places_without_clips(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(TrainingError, match=r"a.txt: no video; give a video file"):
        open_sources({"videos": [str(tmp_path / "a.txt")]}, cache=None)


# -- Photographs in motion -------------------------------------------------------------------


def test_photographs_in_motion_make_clips_of_the_wanted_side() -> None:
    source = MovingImages(MadeImages("photos", 6))
    assert len(source) == 6
    assert source.caption(2, np.random.default_rng(0)) == "photos number 2"
    assert source.clip(1, asking(0, 2, 4, 6, side=32)).shape == (4, 32, 32, 3)
    # 40 x 96 pixels: no such square in it.
    with pytest.raises(PassedOverError, match="96x40 pixels, needs 64 on each side"):
        source.clip(0, asking(0, 1, 2, 3, side=64))


def test_the_stride_is_that_of_the_motion() -> None:
    """A clip at stride 3 is every third frame of the clip at stride 1, but for each frame's own noise."""
    import torch

    from atoken.training.data.moving import NOISE, moving_clip

    photo = torch.from_numpy(MadeImages("photos", 1).image(0))
    seeds = range(6)
    apart = []
    for seed in seeds:
        slow = moving_clip(photo, frames=10, side=32, random=torch.Generator().manual_seed(seed))
        fast = moving_clip(photo, frames=4, side=32, random=torch.Generator().manual_seed(seed), stride=3)
        apart.append((slow[::3].float() - fast.float()).square().mean().sqrt().item())
        assert (slow[9].float() - fast[3].float()).square().mean().sqrt() < 2 * NOISE
    assert max(apart) < 2 * NOISE


def test_motion_depends_on_the_sample_alone() -> None:
    task = VideoTask(samples=6, share=1, resolution=(32, 32), view="crop", frames=(4, 4), strides=((1, 3),))
    sources = Sources(videos=(MovingImages(MadeImages("photos", 6)),))
    plan = stage(video_recon=task)
    whole = items(batches(sources, plan).batch("video_recon", 7))
    halves = [items(batches(sources, plan, rank=rank, world=2).batch("video_recon", 7)) for rank in range(2)]
    assert [halves[i % 2][i // 2] for i in range(6)] == whole


def test_whole_views_of_photographs_in_motion() -> None:
    task = VideoTask(samples=8, share=1, resolution=(16, 48), frames=(4, 8), strides=((1, 3),))
    sources = Sources(videos=(MovingImages(MadeImages("photos", 6)),))
    found = {
        (s.height, s.frames) for _, s, *_ in items(batches(sources, stage(video_recon=task)).batch("video_recon", 0))
    }
    assert len(found) > 2
