"""Subsets by a list of ids, of images and of clips."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from harness.data import open_clips, open_images
from harness.data.check import check, inspect
from harness.data.fingerprint import ids_sha256
from harness.errors import BenchError
from tests.harness.data.conftest import MakeImage, grey_frames, write_clip
from tests.harness.data.test_image_datasets import ids, levels, write_folder
from tests.harness.data.test_videos import frames_of


@pytest.fixture
def pictures(tmp_path: Path, image_bytes: MakeImage) -> Path:
    return write_folder(tmp_path / "pictures", {f"{name}.png": image_bytes(ord(name)) for name in "abcde"})


def listing(folder: Path, text: str) -> Path:
    file = folder / "some.txt"
    file.write_text(text, encoding="utf-8")
    return file


def test_of_images(tmp_path: Path, pictures: Path) -> None:
    whole = open_images("folder", pictures)
    part = open_images("folder", pictures, only=listing(tmp_path, "# the paper's\n d.png \n\na.png\r\ne.png"))
    assert ids(part) == ["a.png", "d.png", "e.png"]
    assert levels(part) == [ord("a"), ord("d"), ord("e")]
    assert [part.stamp(index) for index in range(3)] == [whole.stamp(index) for index in (0, 3, 4)]
    assert (part.name, part.title, part.expected) == ("folder", "3 of pictures by some.txt", None)
    assert (part.modality, part.credits) == ("image", whole.credits)
    assert ids(pickle.loads(pickle.dumps(part))) == ids(part)
    report = inspect(part)
    assert report.whole
    assert report.ids_sha256 == ids_sha256(ids(part))


def test_of_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        write_clip(tmp_path / "clips" / f"{number}.mkv", grey_frames(number + 1))
    file = listing(tmp_path, "2.mkv\n0.mkv")
    part = open_clips("folder", tmp_path / "clips", only=file)
    assert ids(part) == ["0.mkv", "2.mkv"]
    assert [len(frames_of(part, index)) for index in range(2)] == [1, 3]
    assert check(f"folder={tmp_path / 'clips'}", kind="video", only=file) == 0
    assert "2 of clips by some.txt (folder): 2 readable clips\nframes: 4\n" in capsys.readouterr().out


def test_listed_samples_that_this_copy_lacks_are_counted(tmp_path: Path) -> None:
    for name in ("0114bdd0-f317da84", "0129ed1d-d8572c11"):
        write_clip(tmp_path / "tb" / f"{name}.mkv", grey_frames(1))
    file = listing(tmp_path, "bdd_100_0114bdd0-f317da84\nbdd_100_02086f50-c1e5d802")
    part = open_clips("tokenbench", tmp_path / "tb", only=file)
    assert ids(part) == ["bdd_100_0114bdd0-f317da84"]
    assert (part.title, part.expected) == ("2 of TokenBench by some.txt", 500)
    assert part.notes[-1].startswith("1 of the 2 listed are missing: ")
    assert inspect(part).missing == ("bdd_100_02086f50-c1e5d802",)
    file.write_text("bdd_100_02086f50-c1e5d802")
    with pytest.raises(BenchError, match=r"some.txt: this copy of TokenBench has none of the 1 listed"):
        open_clips("tokenbench", tmp_path / "tb", only=file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png\nf.png", r"some.txt: f.png is not in pictures .folder.; its ids are like a.png"),
        ("a\nb\nc\nd\ne\nf\ng", "a, b, c, d, e and 2 more are not in pictures"),
        ("a.png\nb.png\na.png", "some.txt: a.png is listed more than once"),
        ("# nothing\n\n", "some.txt: lists no ids"),
    ],
)
def test_a_list_that_does_not_fit(tmp_path: Path, pictures: Path, text: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        open_images("folder", pictures, only=listing(tmp_path, text))


def test_a_list_that_cannot_be_read(tmp_path: Path, pictures: Path) -> None:
    with pytest.raises(BenchError, match=r"nowhere.txt: No such file or directory; give a file with one id a line"):
        open_images("folder", pictures, only=tmp_path / "nowhere.txt")
    (tmp_path / "some.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BenchError, match=r"some.txt: is no UTF-8 text"):
        open_images("folder", pictures, only=tmp_path / "some.txt")
