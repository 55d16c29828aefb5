"""Sets with classes: folders, Parquet, ImageNet-V2, Toys4k and the furniture; what a label means, what is refused."""

from __future__ import annotations

import pickle
import re
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from harness.data import open_images
from harness.data.asset_samples import MODELS
from harness.data.base import Dataset
from harness.data.catalog import open_assets
from harness.data.check import check, inspect
from harness.errors import BenchError
from tests.harness.data.conftest import MakeImage
from tests.harness.data.test_asset_sets import OBJ, put


def meaning(dataset: Dataset) -> dict[str, str]:
    """Id -> the name of its class."""
    names = dataset.class_names
    assert names is not None
    return {sample.id: names[sample.label] for sample in dataset.samples if sample.label is not None}


def write(root: Path, data: bytes, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


# Folders.


def test_folders_are_classes(tmp_path: Path, image_bytes: MakeImage, capsys: pytest.CaptureFixture[str]) -> None:
    root = write(tmp_path / "pets", image_bytes(3), "tabby_cat/b.png", "dog/x/a.png", "dog/b.png", "cover.png")
    dataset = open_images("classes", root)
    assert meaning(dataset) == {"dog/b.png": "dog", "dog/x/a.png": "dog", "tabby_cat/b.png": "tabby cat"}
    assert dataset.notes == ("classes: 2", "passed over: 1 images that lie in no class folder")
    assert (dataset.title, dataset.expected) == ("pets", None)
    assert meaning(pickle.loads(pickle.dumps(dataset))) == meaning(dataset)
    assert check(f"classes={root}") == 0
    assert "labels: 3 of 3" in capsys.readouterr().out
    (tmp_path / "list.txt").write_text("tabby_cat/b.png\n")
    assert meaning(open_images("classes", root, only=tmp_path / "list.txt")) == {"tabby_cat/b.png": "tabby cat"}


def test_a_list_names_folders_of_wordnets_numbers(tmp_path: Path, image_bytes: MakeImage) -> None:
    root = write(tmp_path, image_bytes(), "n01443537/images/a.png", "n02123045/images/a.png")
    with pytest.raises(BenchError, match=r"n01443537 is called by its number in WordNet.*; put words.txt beside it"):
        open_images("classes", root)
    (root / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\nn02123045\ttabby, tabby cat\nn0\tx\n")
    assert list(meaning(open_images("classes", root)).values()) == ["goldfish", "tabby"]
    (root / "words.txt").write_text("n01443537\tgoldfish\n")
    with pytest.raises(BenchError, match=r"words.txt: does not name the class n02123045; add a line"):
        open_images("classes", root)
    (root / "words.txt").write_text("goldfish\n")
    with pytest.raises(BenchError, match=r"words.txt: not lines of folder, tab and name"):
        open_images("classes", root)


def test_folders_that_are_no_classes(tmp_path: Path, image_bytes: MakeImage) -> None:
    with pytest.raises(BenchError, match="no such folder"):
        open_images("classes", tmp_path / "none")
    write(tmp_path, image_bytes(), "one/a.png")
    with pytest.raises(BenchError, match="holds 1 class folders; give a folder with one for each class"):
        open_images("classes", tmp_path)
    (tmp_path / "two").mkdir()
    with pytest.raises(BenchError, match="the class folder two holds no images; fill it or remove it"):
        open_images("classes", tmp_path)
    write(tmp_path, image_bytes(), "two/a.png", "___/a.png")
    with pytest.raises(BenchError, match="the class '___' has no name; rename its folder"):
        open_images("classes", tmp_path)


def test_two_classes_of_one_name_are_said(tmp_path: Path, image_bytes: MakeImage) -> None:
    dataset = open_images("classes", write(tmp_path, image_bytes(), "a_crane/a.png", "a crane/b.png", "c/c.png"))
    assert dataset.notes[-1] == "classes that have one name: a crane"


# Parquet.

Columns = dict[str, list[Any]]


def table(path: Path, columns: Columns, rows_in_group: int = 2) -> Path:
    parquet.write_table(pa.table(columns), path, row_group_size=rows_in_group)
    return path


def pictures(image_bytes: MakeImage, count: int = 5) -> Columns:
    return {
        "file": [f"val_{number}.JPEG" for number in range(count)][::-1],
        "image": [image_bytes(10 * number) for number in range(count)],
        "label": [number % 2 for number in range(count)],
        "class_name": [("goldfish, Carassius", "a_cat")[number % 2] for number in range(count)],
    }


def test_rows_of_parquet(tmp_path: Path, image_bytes: MakeImage) -> None:
    dataset = open_images("parquet", table(tmp_path / "set.parquet", pictures(image_bytes)))
    names = ["val_0.JPEG", "val_1.JPEG", "val_2.JPEG", "val_3.JPEG", "val_4.JPEG"]
    assert meaning(dataset) == dict(zip(names, ["goldfish", "a cat", "goldfish", "a cat", "goldfish"], strict=True))
    assert [dataset.read(index).pixels.mean() for index in range(5)] == [40, 30, 20, 10, 0]
    assert (dataset.title, dataset.notes) == ("set", ("classes: 2",))
    assert len({dataset.stamp(index) for index in range(5)}) == 5
    report = inspect(pickle.loads(pickle.dumps(dataset)))
    assert report.whole
    assert report.labelled == 5


def test_structures_several_files_and_no_names(tmp_path: Path, image_bytes: MakeImage) -> None:
    columns = pictures(image_bytes)
    del columns["file"]
    columns["image"] = [{"bytes": data, "path": None} for data in columns["image"]]
    table(tmp_path / "b.parquet", columns)
    table(tmp_path / "a.parquet", columns)
    dataset = open_images("parquet", tmp_path)
    assert [sample.id for sample in dataset.samples][3:6] == [
        "a.parquet/row 000003",
        "a.parquet/row 000004",
        "b.parquet/row 000000",
    ]
    assert dataset.read(9).pixels.mean() == 40


def test_threads_may_read_rows_in_any_order(tmp_path: Path, image_bytes: MakeImage) -> None:
    dataset = open_images("parquet", table(tmp_path / "set.parquet", pictures(image_bytes, 25), 1))
    order = [(7 * index) % 25 for index in range(25)] * 4
    with ThreadPoolExecutor(8) as pool:
        levels = list(pool.map(lambda index: dataset.read(index).pixels.mean(), order))
    number = [int(sample.id.removeprefix("val_").removesuffix(".JPEG")) for sample in dataset.samples]
    assert levels == [10 * (24 - number[index]) for index in order]


def test_gaps_between_labels_are_closed_and_a_row_without_image_is_broken(
    tmp_path: Path, image_bytes: MakeImage
) -> None:
    columns = pictures(image_bytes) | {"label": [3, 17, 3, 17, 3]}
    columns["image"][1] = b""
    dataset = open_images("parquet", table(tmp_path / "set.parquet", columns))
    assert [sample.label for sample in dataset.samples] == [0, 1, 0, 1, 0]
    assert dataset.notes[1] == "labels: 3 to 17 in the file, closed up to 0 to 1"
    assert inspect(dataset).broken == (("val_3.JPEG", "the row holds no bytes of an image"),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": [0, None, 0, 1, 0]}, r"val_3.JPEG has the label None"),
        ({"class_name": ["a", "", "a", "b", "a"]}, r"the class name ''; mend or remove it"),
        ({"class_name": ["a", "b", "c", "b", "a"]}, "label 0 is called a and c; give it one name"),
        ({"label": [0] * 5, "class_name": ["a"] * 5}, "has 1 classes; a classification needs two"),
        ({"file": ["x"] * 5}, "4 rows have the name of another; give each its own"),
        ({"label": None}, "has no column label; it needs image, label, class_name"),
    ],
)
def test_tables_that_are_no_classes(
    tmp_path: Path, image_bytes: MakeImage, change: dict[str, Any], message: str
) -> None:
    columns = {name: values for name, values in (pictures(image_bytes) | change).items() if values is not None}
    with pytest.raises(BenchError, match=message):
        open_images("parquet", table(tmp_path / "set.parquet", columns))


def test_files_that_are_no_parquet(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"no such file\); give another file"):
        open_images("parquet", tmp_path / "none.parquet")
    with pytest.raises(BenchError, match=r"holds no \.parquet"):
        open_images("parquet", tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and more")
    with pytest.raises(BenchError, match=r"a\.parquet: cannot be read as Parquet"):
        open_images("parquet", tmp_path)


def test_tiny_imagenet(shared: Path) -> None:
    dataset = open_images("parquet", shared / "data" / "tiny-imagenet-val.parquet")
    assert dataset.class_names is not None
    assert (len(dataset), len(dataset.class_names)) == (2000, 200)
    assert meaning(dataset)["val_0.JPEG"] == "go-kart"
    assert dataset.read(0).pixels.shape == (64, 64, 3)


# ImageNet-V2.


def test_imagenet_v2_counts_folders_as_numbers(tmp_path: Path, image_bytes: MakeImage) -> None:
    root = tmp_path / "imagenetv2-matched-frequency-format-val"
    write(root, image_bytes(5), "2/aa.jpeg", "10/bb.jpeg", "999/cc.jpeg")
    for location in (root, tmp_path):
        dataset = open_images("imagenet-v2", location)
        # The folders as texts would be 10, 2, 999.
        assert {sample.id: sample.label for sample in dataset.samples} == {
            "10/bb.jpeg": 10,
            "2/aa.jpeg": 2,
            "999/cc.jpeg": 999,
        }
        assert dataset.notes == ("classes without their 10 images: 1,000 (0: 0, 1: 0, 2: 1, ...)",)
    assert dataset.expected == 10_000
    with tarfile.open(tmp_path / "v2.tar", "w") as archive:
        archive.add(root, root.name)
    assert [sample.id for sample in open_images("imagenet-v2", tmp_path / "v2.tar").samples] == [
        "10/bb.jpeg",
        "2/aa.jpeg",
        "999/cc.jpeg",
    ]


def test_a_whole_imagenet_v2_has_no_note(tmp_path: Path) -> None:
    names = [f"v2/{label}/{number}.jpeg" for label in range(1000) for number in range(10)]
    with tarfile.open(tmp_path / "v2.tar", "w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    dataset = open_images("imagenet-v2", tmp_path / "v2.tar")
    assert (len(dataset), dataset.notes) == (10_000, ())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imagenetv2-threshold0.7-format-val/0/a.jpeg", "is ImageNet-V2's choice 'threshold'"),
        ("imagenetv2-top-images-format-val/0/a.jpeg", "is ImageNet-V2's choice 'top-images'"),
        ("n01440764/a.jpeg", "lies in no folder of a class number"),
        ("1000/a.jpeg", "lies in no folder of a class number"),
        ("007/a.jpeg", "lies in no folder of a class number"),
        ("a.jpeg", "lies in no folder of a class number"),
    ],
)
def test_what_is_not_imagenet_v2(tmp_path: Path, image_bytes: MakeImage, name: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        open_images("imagenet-v2", write(tmp_path / "set", image_bytes(), name))


# Assets.


def test_the_categories_of_toys4k_are_the_published_ones() -> None:
    text = (resources.files("harness.data") / "lists" / "toys4k.csv").read_text(encoding="utf-8")
    assert re.search(r"github\.com/rehg-lab/lowshot-shapebias at commit [0-9a-f]{12}", text)
    rows = [line.split(",") for line in text.splitlines() if not line.startswith("#")][1:]
    assert (len(rows), sum(int(models) for _, models in rows)) == (105, 4000)
    assert [name for name, _ in rows] == sorted(name for name, _ in rows)


def test_toys4k_is_labelled_by_the_105_even_where_most_are_missing(tmp_path: Path) -> None:
    put(tmp_path, "ice_cream/ice_cream_000/mesh.obj", "violin/violin_001/mesh.obj", "own/own_000/mesh.obj", text=OBJ)
    dataset = open_assets("toys4k", tmp_path)
    assert meaning(dataset) == {"ice_cream/ice_cream_000": "ice cream", "violin/violin_001": "violin"}
    assert dataset.class_names is not None
    assert len(dataset.class_names) == 105
    assert dataset.samples[1].label is None
    assert dataset.notes == (
        "2 of 105 categories, 2 of 4,000 models",
        "no categories of Toys4k, so without labels: own",
    )


def test_the_furniture_has_its_catalogues_categories(shared: Path) -> None:
    dataset = open_assets("samples")
    with zipfile.ZipFile(shared / "data/assets/furniture-cc0.zip") as whole:
        (name,) = (name for name in whole.namelist() if name.endswith("PluginFurnitureCatalog.properties"))
        catalogue = whole.read(name).decode("latin-1")
    found = meaning(dataset)
    for model in MODELS:
        (category,) = re.findall(rf"^category#{model.number}=(.*?)\s*$", catalogue, re.MULTILINE)
        assert found[model.id] == category.lower()
    assert dataset.class_names == tuple(sorted({*found.values()}))
