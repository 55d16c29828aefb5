"""Images and clips with captions: the published files, every layout of the media, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import pytest

from harness.data import open_clips, open_images
from harness.data.captioned import captions_of, captions_sha256
from harness.data.check import check, inspect
from harness.data.clip_samples import CLIPS
from harness.data.samples import PHOTOGRAPHS
from harness.errors import BenchError
from tests.harness.data.conftest import MakeImage, grey_frames, write_clip

A, B = "COCO_val2014_000000000042.jpg", "COCO_val2014_000000000073.jpg"


def karpathy(root: Path, images: list[dict[str, Any]], file: str = "dataset_coco.json") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps({"images": images, "dataset": "coco"}))
    return root


def entry(name: str, captions: list[str], split: str = "test", cocoid: int | None = None) -> dict[str, Any]:
    sentences = [{"tokens": text.split(), "raw": text, "sentid": number} for number, text in enumerate(captions)]
    return {"filepath": "val2014", "filename": name, "split": split, "cocoid": cocoid, "sentences": sentences}


SIX = ["a dog", "A dog.", "a dog", "the dog runs ", "dog", "a brown dog"]
IMAGES = [
    entry(B, ["a motorcycle"] * 5, cocoid=73),
    entry(A, SIX, cocoid=42),
    entry("COCO_val2014_000000000099.jpg", ["x"], split="restval", cocoid=99),
]


def put(root: Path, data: bytes, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


@pytest.mark.parametrize(
    "names",
    [
        [f"val2014/{A}", f"val2014/{B}", "val2014/COCO_val2014_000000000099.jpg"],
        [A, B],
        ["coco/images/train2017/000000000042.jpg", "coco/images/val2017/000000000073.jpg"],
        [f"val2014/{A}", f"val2014/{B}", f"small/{A}"],
    ],
)
def test_coco_in_every_layout(tmp_path: Path, image_bytes: MakeImage, names: list[str]) -> None:
    put(karpathy(tmp_path, IMAGES), image_bytes(7, "JPEG"), *names)
    dataset = open_images("coco-karpathy", tmp_path)
    assert [sample.id for sample in dataset.samples] == [A, B]
    assert captions_of(dataset) == (tuple(SIX), ("a motorcycle",) * 5)  # as they are, all of them
    assert dataset.read(1).pixels.mean() == 7
    assert dataset.expected == 5000
    assert dataset.notes == (
        "captions: 11 of 2 images, 5 to 6 of each",
        "captions: the published file has 25,010, this one 11",
        "its file lists 2 images, and the published one 5,000",
    )
    assert captions_of(pickle.loads(pickle.dumps(dataset))) == captions_of(dataset)


def test_the_file_may_lie_above_the_images(tmp_path: Path, image_bytes: MakeImage) -> None:
    karpathy(tmp_path / "caption_datasets", IMAGES)
    put(tmp_path, image_bytes(7, "JPEG"), f"val2014/{A}")
    dataset = open_images("coco-karpathy", tmp_path)
    assert dataset.notes[-1] == f"not here: 1 of the 2 images ({B})"
    report = inspect(dataset)
    assert (report.missing, report.unexpected, report.whole) == ((B,), (), False)


def test_flickr30k_and_a_part_of_it(tmp_path: Path, image_bytes: MakeImage, capsys: pytest.CaptureFixture[str]) -> None:
    images = [entry(f"{number}.jpg", [f"text {number} {i}" for i in range(5)]) for number in range(3)]
    karpathy(tmp_path / "f", images, "dataset_flickr30k.json")
    put(tmp_path / "f", image_bytes(1, "JPEG"), *(f"flickr30k-images/{number}.jpg" for number in range(3)))
    dataset = open_images("flickr30k", tmp_path / "f")
    assert dataset.notes[0] == "captions: 15 of 3 images, 5 of each"
    (tmp_path / "some.txt").write_text("2.jpg\n0.jpg\n")
    part = open_images("flickr30k", tmp_path / "f", only=tmp_path / "some.txt")
    assert [texts[0] for texts in captions_of(part)] == ["text 0 0", "text 2 0"]
    assert check(f"flickr30k={tmp_path / 'f'}") == 1
    assert "3 readable images of 1,000 expected" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], r"dataset_coco.json: has no images of the split 'test'; fetch Karpathy's file again"),
        ([entry(A, SIX, split="train")], "has no images of the split 'test'"),
        ([entry(A, [])], f"{A} has no caption"),
        ([entry(A, ["a", "  "])], f"{A} has an empty caption"),
        ([entry(A, ["a"]), entry(A, ["b"])], f"lists {A} twice"),
        ([{"split": "test", "filename": A}], "an image without filename or sentences"),
        ([{"filename": A}], "no list of images by split"),
    ],
)
def test_what_is_no_file_of_karpathys(
    tmp_path: Path, image_bytes: MakeImage, images: list[dict[str, Any]], message: str
) -> None:
    put(karpathy(tmp_path, images), image_bytes(), A)
    with pytest.raises(BenchError, match=message):
        open_images("coco-karpathy", tmp_path)


def test_folders_without_file_or_images_are_refused(tmp_path: Path, image_bytes: MakeImage) -> None:
    with pytest.raises(BenchError, match="no such folder"):
        open_images("coco-karpathy", tmp_path / "none")
    with pytest.raises(BenchError, match=r"holds no dataset_coco.json; put the published file beside"):
        open_images("coco-karpathy", tmp_path)
    karpathy(tmp_path, IMAGES)
    with pytest.raises(BenchError, match=rf"holds none of the 2 images of dataset_coco.json \({B}, ...\)"):
        open_images("coco-karpathy", tmp_path)
    (tmp_path / "dataset_coco.json").write_text("{")
    with pytest.raises(BenchError, match=r"dataset_coco\.json: no list of images by split"):
        open_images("coco-karpathy", tmp_path)
    karpathy(tmp_path / "more", IMAGES)
    with pytest.raises(BenchError, match=r"holds dataset_coco.json and more/dataset_coco.json; remove one"):
        open_images("coco-karpathy", tmp_path)


def test_one_image_in_two_folders_is_refused(tmp_path: Path, image_bytes: MakeImage) -> None:
    put(karpathy(tmp_path, IMAGES), image_bytes(), f"a/{A}", f"b/{A}")
    with pytest.raises(BenchError, match=f"a/{A} and b/{A} are both {A}; remove one"):
        open_images("coco-karpathy", tmp_path)


def videos(root: Path, *names: str) -> Path:
    clip = write_clip(root.parent / "clip.mkv", grey_frames(2)).read_bytes()
    put(root, clip, *names)
    return root


ROWS = "key,vid_key,video_id,sentence\nret0,msr9770,video9770,a person, talking\n".replace(
    "a person, talking", '"a person, talking"'
)


def test_msrvtt(tmp_path: Path) -> None:
    root = videos(tmp_path / "m", "videos/all/video9770.mkv", "videos/all/video7020.mkv", "videos/all/video1.mkv")
    (root / "MSRVTT_JSFUSION_test.csv").write_text(ROWS + "ret1,msr7020,video7020,a cat\nret2,m,video8,none\n")
    dataset = open_clips("msrvtt-1ka", root)
    assert [sample.id for sample in dataset.samples] == ["video7020", "video9770"]
    assert captions_of(dataset) == (("a cat",), ("a person, talking",))
    assert dataset.notes == (
        "captions: 3 of 3 videos, 1 of each",
        "captions: the published file has 1,000, this one 3",
        "its file lists 3 videos, and the published one 1,000",
        "not here: 1 of the 3 videos (video8)",
    )
    assert sum(len(block) for block in dataset.open(1).blocks(16)) == 2
    assert inspect(dataset).missing == ("video8",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key,video\n1,2\n", "has no video_id and sentence in every line"),
        (ROWS + "ret1,msr,video7\n", "video7 has an empty caption"),
        (ROWS + "ret1,msr\n", "has no video_id and sentence in every line"),
        (ROWS + ROWS.splitlines()[1], "lists video9770 twice"),
        ("key,vid_key,video_id,sentence\nret0,m,video3,x\n", r"none of the 1 videos of .*csv \(video3.mp4, ...\)"),
        ("key,vid_key,video_id,sentence\n", "holds none of the 0 videos"),
    ],
)
def test_what_is_no_list_of_msrvtt(tmp_path: Path, text: str, message: str) -> None:
    root = videos(tmp_path / "m", "video9770.mkv")
    (root / "MSRVTT_JSFUSION_test.csv").write_text(text)
    with pytest.raises(BenchError, match=message):
        open_clips("msrvtt-1ka", root)


def test_a_video_in_two_formats_is_refused(tmp_path: Path) -> None:
    root = videos(tmp_path / "m", "video9770.mkv", "video9770.mp4")
    (root / "MSRVTT_JSFUSION_test.csv").write_text(ROWS)
    with pytest.raises(BenchError, match=r"video9770.mkv and video9770.mp4 are both video9770"):
        open_clips("msrvtt-1ka", root)


CAPTIONS = {"a_1_2": [["a", "man"], ["someone"]], "b_3_4": [["a", "cat"]], "other": [["x"]]}


def msvd(root: Path, captions: object = CAPTIONS, listed: str = "b_3_4\na_1_2\n") -> Path:
    videos(root, "YouTubeClips/a_1_2.avi", "YouTubeClips/b_3_4.avi", "YouTubeClips/other.avi")
    (root / "test_list.txt").write_text(listed)
    (root / "raw-captions.pkl").write_bytes(pickle.dumps(captions))
    return root


def test_msvd(tmp_path: Path) -> None:
    dataset = open_clips("msvd", msvd(tmp_path / "m"))
    assert [sample.id for sample in dataset.samples] == ["a_1_2", "b_3_4"]
    assert captions_of(dataset) == (("a man", "someone"), ("a cat",))
    assert dataset.notes[0] == "captions: 3 of 2 videos, 1 to 2 of each"
    assert dataset.expected == 670


@pytest.mark.parametrize("container", [OrderedDict, lambda captions: defaultdict(list, captions)])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_containers_of_other_scripts_are_read(tmp_path: Path, container: Any, protocol: int) -> None:
    root = msvd(tmp_path / "m")
    (root / "raw-captions.pkl").write_bytes(pickle.dumps(container(CAPTIONS), protocol=protocol))
    assert captions_of(open_clips("msvd", root)) == (("a man", "someone"), ("a cat",))


def test_a_cut_pickle_is_refused(tmp_path: Path) -> None:
    root = msvd(tmp_path / "m")
    for data in (b"", pickle.dumps(CAPTIONS)[:-5], b"\xff\x00"):
        (root / "raw-captions.pkl").write_bytes(data)
        with pytest.raises(BenchError, match=r"raw-captions\.pkl: no pickle of captions alone"):
            open_clips("msvd", root)


class Harmful:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch harmed",)


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        (Harmful(), r"no pickle of captions alone \(it wants to run \w+.system\)"),
        ({"a_1_2": [Harmful()], "b_3_4": [["a"]]}, r"it wants to run \w+.system"),
        (["a"], "holds a list, not captions by video"),
        ({"a_1_2": ["a man"], "b_3_4": [["a"]]}, "'a_1_2' has no lists of words"),
        ({"a_1_2": [["a", 3]], "b_3_4": [["a"]]}, "'a_1_2' has no lists of words"),
        ({"b_3_4": [["a"]]}, "has no captions of a_1_2, which test_list.txt lists"),
        ({"a_1_2": [], "b_3_4": [["a"]]}, "a_1_2 has no caption"),
        ({"a_1_2": [[]], "b_3_4": [["a"]]}, "a_1_2 has an empty caption"),
    ],
)
def test_a_pickle_that_is_not_captions_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, captions: object, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BenchError, match=message):
        open_clips("msvd", msvd(tmp_path / "m", captions))
    assert not (tmp_path / "harmed").exists()


def test_lists_of_msvd_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"test_list\.txt: lists a_1_2 twice"):
        open_clips("msvd", msvd(tmp_path / "m", listed="a_1_2\na_1_2\n"))
    (tmp_path / "m" / "raw-captions.pkl").unlink()
    with pytest.raises(BenchError, match=r"holds no raw-captions\.pkl"):
        open_clips("msvd", tmp_path / "m")
    with pytest.raises(BenchError, match="holds none of the 0 videos"):
        open_clips("msvd", msvd(tmp_path / "n", listed="\n"))


def test_the_samples_say_what_they_show() -> None:
    images = open_images("samples")
    shown = {photograph.file: (photograph.subject,) for photograph in PHOTOGRAPHS}
    assert list(captions_of(images)) == [shown[sample.id] for sample in images.samples]
    try:
        clips = open_clips("samples")
    except BenchError as error:
        pytest.skip(str(error))
    assert list(captions_of(clips)) == [(clip.subject,) for clip in CLIPS]


def test_a_set_without_captions_is_no_set_for_retrieval(tmp_path: Path, image_bytes: MakeImage) -> None:
    put(tmp_path, image_bytes(), "a.jpg")
    with pytest.raises(BenchError, match=r"has no captions, and retrieval needs them; take one of coco-karpathy"):
        captions_of(open_images("folder", tmp_path))


def test_the_hash_of_captions_sees_order_and_borders() -> None:
    sets = [[("a", "b")], [("b", "a")], [("a",), ("b",)], [("ab",)], [("a", "b", "")]]
    assert len({captions_sha256(captions) for captions in sets}) == len(sets)
