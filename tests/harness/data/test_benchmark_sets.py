"""ImageNet val and COCO val2017: every layout gives one dataset, and what is not it is refused with the mend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from harness.data import open_images
from harness.data.check import inspect
from harness.errors import BenchError
from tests.harness.data.conftest import MakeImage
from tests.harness.data.test_image_datasets import Files, ids, levels, write_folder, write_tar, write_zip

WNIDS = [f"n{number:08d}" for number in range(3, 3003, 3)]


def val(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


@pytest.fixture
def flat(image_bytes: MakeImage) -> Files:
    return {val(number): image_bytes(number, "JPEG") for number in (1, 2, 5, 9)}


def test_each_layout_of_imagenet_has_one_fingerprint(tmp_path: Path, flat: Files) -> None:
    classes = {f"n0144076{index % 2}/{name}": data for index, (name, data) in enumerate(flat.items())}
    places = (
        write_folder(tmp_path / "flat", flat),
        write_folder(tmp_path / "classes", classes),
        write_tar(tmp_path / "ILSVRC2012_img_val.tar", flat),
    )
    datasets = [open_images("imagenet-val", place) for place in places]
    for dataset in datasets:
        assert ids(dataset) == list(flat)
        assert dataset.expected == 50_000
        assert np.abs(np.subtract(levels(dataset), [1, 2, 5, 9])).max() <= 1
    reports = [inspect(dataset) for dataset in datasets]
    assert len({(report.ids_sha256, report.content_sha256) for report in reports}) == 1


def test_a_label_is_the_place_of_the_wnid_among_all_thousand(tmp_path: Path, image_bytes: MakeImage) -> None:
    data = image_bytes(0, "JPEG")
    number = dict(zip(WNIDS, np.random.default_rng(0).permutation(1000) + 1, strict=True))
    root = write_folder(tmp_path / "val", {f"{wnid}/{val(number[wnid])}": data for wnid in WNIDS})
    labels = {sample.id: sample.label for sample in open_images("imagenet-val", root).samples}
    assert labels == {val(number[wnid]): place for place, wnid in enumerate(WNIDS)}


def test_places_among_fewer_class_folders_are_no_labels(tmp_path: Path, flat: Files) -> None:
    root = write_folder(tmp_path / "val", {f"n01440764/{name}": data for name, data in flat.items()})
    dataset = open_images("imagenet-val", root)
    assert {sample.label for sample in dataset.samples} == {None}
    assert "no labels: 1 class folders of 1000, so their places are not known" in inspect(dataset).lines()


@pytest.fixture
def devkit(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """The devkit's two files as MATLAB writes them, with an inner node of WordNet behind the 1,000 classes."""
    order = np.random.default_rng(1).permutation(1000)
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    synsets = np.zeros((1001, 1), fields)
    for row, place in enumerate(order):
        synsets[row, 0] = (row + 1, WNIDS[place], 0)
    synsets[1000, 0] = (1001, "n99999999", 7)
    folder = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    folder.mkdir(parents=True)
    savemat(folder / "meta.mat", {"synsets": synsets})
    numbers = np.random.default_rng(2).integers(1, 1001, 50_000)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{n}\n" for n in numbers))
    return folder, order[numbers - 1]


@pytest.mark.parametrize("kind", ["flat", "tar"])
def test_the_devkit_beside_a_flat_layout_labels_it(
    tmp_path: Path, flat: Files, devkit: tuple[Path, np.ndarray], kind: str
) -> None:
    _, truth = devkit
    place = write_folder(tmp_path / "val", flat) if kind == "flat" else write_tar(tmp_path / "val.tar", flat)
    labels = [sample.label for sample in open_images("imagenet-val", place).samples]
    assert labels == [truth[number - 1] for number in (1, 2, 5, 9)]


def test_a_ground_truth_without_its_numbering_labels_nothing(
    tmp_path: Path, flat: Files, devkit: tuple[Path, np.ndarray]
) -> None:
    folder, _ = devkit
    root = write_folder(tmp_path / "val", flat)
    (folder / "meta.mat").unlink()
    dataset = open_images("imagenet-val", root)
    assert {sample.label for sample in dataset.samples} == {None}
    assert any("numbers classes by the devkit's meta.mat" in line for line in inspect(dataset).lines())


def test_a_damaged_devkit_is_named(tmp_path: Path, flat: Files, devkit: tuple[Path, np.ndarray]) -> None:
    folder, _ = devkit
    root = write_folder(tmp_path / "val", flat)
    truth = folder / "ILSVRC2012_validation_ground_truth.txt"
    whole = truth.read_text()
    for text, message in ((whole[:100], "lines, not 50,000"), (whole.replace("7", "x"), "not a list of class numbers")):
        truth.write_text(text)
        with pytest.raises(BenchError, match=f"ground_truth.txt: .*{message}.*fetch the devkit again"):
            open_images("imagenet-val", root)
    (folder / "meta.mat").write_bytes(b"MATLAB 5.0 no more")
    with pytest.raises(BenchError, match=r"meta.mat: not the devkit's meta.mat .*fetch the devkit again"):
        open_images("imagenet-val", root)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("n01440764/n01440764_10026.JPEG", "is ImageNet's training set"),
        ("ILSVRC2012_test_00000001.JPEG", "is ImageNet's test set"),
        ("beach.jpg", r"beach.jpg is not named ILSVRC2012_val_NNNNNNNN.JPEG; .* --data folder=PATH"),
        (f"val/{val(1)}", r"lies neither flat nor in a class folder .*; is .*root/val the folder to give\?"),
        (f"val/n01440764/{val(1)}", r"is .*root/val the folder to give\?"),
        (f"dogs/{val(1)}", "neither flat nor in a class folder"),
    ],
)
def test_another_set_or_layout_is_told_from_the_validation_set(
    tmp_path: Path, image_bytes: MakeImage, name: str, message: str
) -> None:
    with pytest.raises(BenchError, match=message):
        open_images("imagenet-val", write_folder(tmp_path / "root", {name: image_bytes()}))


def test_mixed_layouts_and_twins_are_refused(tmp_path: Path, image_bytes: MakeImage) -> None:
    data = image_bytes(0, "JPEG")
    mixed = write_folder(tmp_path / "mixed", {val(1): data, f"n01440764/{val(2)}": data})
    with pytest.raises(BenchError, match="1 images lie in class folders and 1 beside them"):
        open_images("imagenet-val", mixed)
    twins = write_folder(tmp_path / "twins", {f"n01440764/{val(2)}": data, f"n01440765/{val(2)}": data})
    with pytest.raises(BenchError, match=f"n01440764/{val(2)} and n01440765/{val(2)} are both {val(2)}; remove one"):
        open_images("imagenet-val", twins)


def test_folder_and_zip_of_coco_are_one_dataset(tmp_path: Path, image_bytes: MakeImage) -> None:
    files = {f"{number:012d}.jpg": image_bytes(number % 256, "JPEG") for number in (139, 285, 632)}
    folder = open_images("coco-val2017", write_folder(tmp_path / "val2017", files))
    inner = {f"val2017/{name}": data for name, data in files.items()}
    archive = open_images("coco-val2017", write_zip(tmp_path / "val2017.zip", inner))
    assert ids(folder) == ids(archive) == list(files)
    assert inspect(folder).content_sha256 == inspect(archive).content_sha256
    assert folder.expected == 5_000


def test_another_set_is_told_from_val2017(tmp_path: Path, image_bytes: MakeImage) -> None:
    data = image_bytes(0, "JPEG")
    outer = write_folder(tmp_path / "coco", {"val2017/000000000139.jpg": data})
    with pytest.raises(BenchError, match=r"the images lie in subfolders \(val2017\); give .*coco/val2017"):
        open_images("coco-val2017", outer)
    both = write_zip(tmp_path / "c.zip", {"val2017/000000000139.jpg": data, "train2017/000000000009.jpg": data})
    with pytest.raises(BenchError, match=r"holds several folders of images \(train2017, val2017\)"):
        open_images("coco-val2017", both)
    with pytest.raises(BenchError, match=r"cat.jpg is not named like COCO's images"):
        open_images("coco-val2017", write_folder(tmp_path / "cats", {"cat.jpg": data}))
    train = tmp_path / "train"
    train.mkdir()
    for number in range(5_001):
        (train / f"{number:012d}.jpg").touch()
    with pytest.raises(BenchError, match="holds 5,001 images, and val2017 has 5,000; is it another split"):
        open_images("coco-val2017", train)


@pytest.mark.parametrize("kind", ["flat", "tar"])
@pytest.mark.parametrize("name", ["imagenet_2012_validation_synset_labels.txt", "LOC_val_solution.csv"])
def test_a_list_of_wnids_beside_a_flat_layout_labels_it(tmp_path: Path, flat: Files, kind: str, name: str) -> None:
    truth = np.random.default_rng(3).permutation(np.repeat(np.arange(1000), 50))
    wnids = [WNIDS[label] for label in truth]
    if name.endswith(".txt"):
        text = "".join(f"{wnid}\n" for wnid in wnids)
    else:
        rows = [
            f"{val(number).removesuffix('.JPEG')},{wnid} 1 2 3 4 {WNIDS[0]} 5 6 7 8"
            for number, wnid in enumerate(wnids, 1)
        ]
        text = "\n".join(["ImageId,PredictionString", *np.random.default_rng(4).permutation(rows)])
    (tmp_path / name).write_text(text)
    place = write_folder(tmp_path / "val", flat) if kind == "flat" else write_tar(tmp_path / "val.tar", flat)
    dataset = open_images("imagenet-val", place)
    assert [sample.label for sample in dataset.samples] == [truth[number - 1] for number in (1, 2, 5, 9)]
    assert dataset.notes == ()
    (tmp_path / name).write_text("\n".join(text.splitlines()[:49_000]))
    with pytest.raises(BenchError, match=r"lists 1,000 wnids of 4\d,\d+ images, not 1,000 of 50,000; fetch it again"):
        open_images("imagenet-val", place)
