"""Folders, zips and tars of images: what is found, in which order, and what is refused or reported by name."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from atoken.media import is_image
from harness.data import open_images
from harness.data.base import Dataset, SampleError
from harness.data.samples import PHOTOGRAPHS
from harness.data.stores import ZipStore
from harness.errors import BenchError
from tests.harness.data.conftest import MakeImage

Files = dict[str, bytes]


def write_folder(root: Path, files: Files) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def write_tar(path: Path, files: Files) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_zip(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def ids(dataset: Dataset) -> list[str]:
    return [sample.id for sample in dataset.samples]


def levels(dataset: Dataset) -> list[int]:
    return [int(dataset.read(index).pixels[0, 0, 0]) for index in range(len(dataset))]


@pytest.fixture
def pictures(image_bytes: MakeImage) -> Files:
    """Given out of order, with what must be passed over."""
    return {
        "b/2.png": image_bytes(20),
        "a.jpg": image_bytes(10, "JPEG"),
        "b/10.WEBP": image_bytes(30, "WEBP"),
        "notes.txt": b"not an image",
        ".hidden.png": image_bytes(99),
        ".cache/x.png": image_bytes(99),
        "__MACOSX/._a.jpg": b"resource fork",
    }


def test_a_folder_is_read_with_subfolders_in_the_order_of_ids(tmp_path: Path, pictures: Files) -> None:
    dataset = open_images("folder", write_folder(tmp_path / "pictures", pictures))
    assert ids(dataset) == ["a.jpg", "b/10.WEBP", "b/2.png"]
    assert levels(dataset) == [10, 30, 20]
    assert (dataset.name, dataset.title, dataset.expected) == ("folder", "pictures", None)
    read = dataset.read(2)
    assert (read.pixels.shape, read.pixels.dtype) == ((6, 9, 3), np.uint8)
    assert read.sha256 == hashlib.sha256(pictures["b/2.png"]).hexdigest()


def test_a_tar_holds_the_same(tmp_path: Path, pictures: Files) -> None:
    folder = open_images("folder", write_folder(tmp_path / "pictures", pictures))
    archive = open_images("tar", write_tar(tmp_path / "pictures.tar", pictures))
    assert ids(archive) == ids(folder)
    for index in range(len(folder)):
        assert archive.read(index).sha256 == folder.read(index).sha256


def test_tar_shards_and_webdataset_labels(tmp_path: Path, image_bytes: MakeImage) -> None:
    write_tar(tmp_path / "1.tar", {"x.v1.png": image_bytes(1), "x.cls": b"7\n", "y.png": image_bytes(2), "y.cls": b""})
    write_tar(tmp_path / "0.tar", {"d/x.png": image_bytes(3), "d/x.cls": b"12", "d/x.json": b"{}"})
    dataset = open_images("tar", tmp_path)
    assert [(sample.id, sample.label) for sample in dataset.samples] == [
        ("0.tar/d/x.png", 12),
        ("1.tar/x.v1.png", 7),
        ("1.tar/y.png", None),
    ]
    assert levels(dataset) == [3, 1, 2]
    assert dataset.notes == ("1 .cls members hold no class number",)  # type: ignore[attr-defined]


def test_of_two_members_with_one_name_the_later_counts(tmp_path: Path, image_bytes: MakeImage) -> None:
    """As tar itself extracts an archive that was appended to."""
    path = write_tar(tmp_path / "a.tar", {"x.png": image_bytes(1)})
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("x.png")
        member.size = len(image_bytes(2))
        archive.addfile(member, io.BytesIO(image_bytes(2)))
    assert levels(open_images("tar", path)) == [2]


def test_broken_files_are_named_and_the_others_read(tmp_path: Path, image_bytes: MakeImage) -> None:
    files = {f"{i}.png": image_bytes(i) for i in range(10)}
    whole = image_bytes(9, "JPEG", size=(64, 64))
    files |= {"3.png": b"", "5.png": b"text", "7.png": files["7.png"][:50]}
    files["trunc.jpg"] = whole[: len(whole) - 40]
    root = write_folder(tmp_path / "d", files)
    (root / "link.png").symlink_to("nowhere.png")
    os.mkfifo(root / "pipe.png")
    dataset = open_images("folder", root)
    broken = {}
    for index in range(len(dataset)):
        try:
            dataset.read(index)
        except SampleError as error:
            broken[error.sample_id] = error.reason
    assert sorted(broken) == ["3.png", "5.png", "7.png", "link.png", "pipe.png", "trunc.jpg"]
    assert broken["3.png"] == "the file is empty"
    assert broken["link.png"] == "a link that leads nowhere"
    assert broken["pipe.png"] == "not a regular file"
    assert not any(str(tmp_path) in reason or "\n" in reason for reason in broken.values())


def test_a_file_that_vanishes_is_named(tmp_path: Path, image_bytes: MakeImage) -> None:
    dataset = open_images("folder", write_folder(tmp_path, {"x.png": image_bytes()}))
    (tmp_path / "x.png").unlink()
    with pytest.raises(SampleError, match=r"^x.png: the file is gone$"):
        dataset.read(0)


def test_link_loops_end_and_linked_folders_count_once(tmp_path: Path, image_bytes: MakeImage) -> None:
    root = write_folder(tmp_path / "root", {"a/x.png": image_bytes(1)})
    outside = write_folder(tmp_path / "outside", {"y.png": image_bytes(2)})
    (root / "a" / "loop").symlink_to(root)
    (root / "l1").symlink_to(outside)
    (root / "l2").symlink_to(outside)
    assert ids(open_images("folder", root)) == ["a/x.png", "l1/y.png"]


def test_a_name_that_is_no_text_becomes_an_id(tmp_path: Path, image_bytes: MakeImage) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(image_bytes(4))
    dataset = open_images("folder", tmp_path)
    assert ids(dataset) == ["caf\\xe9.png"]
    assert levels(dataset) == [4]
    ids(dataset)[0].encode()


@pytest.mark.parametrize("name", ["folder", "imagenet-val", "coco-val2017"])
def test_a_missing_and_an_empty_folder_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.md").touch()
    with pytest.raises(BenchError, match=r"empty: holds no images \(files named \.jpg"):
        open_images(name, tmp_path / "empty")
    with pytest.raises(BenchError, match="nowhere: no such f"):
        open_images(name, tmp_path / "nowhere")


def test_wrong_places_are_named(tmp_path: Path, image_bytes: MakeImage) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(image_bytes())
    for name, place, message in (
        ("folder", file, r"x.png: is not a folder"),
        ("tar", tmp_path, r"holds no .tar; give a tar of images"),
        ("tar", file, r"x.png: not a tar archive, or damaged"),
        ("tar", tmp_path / "no.tar", r"no.tar: no such file"),
        ("coco-val2017", file, r"x.png: not a zip archive, or damaged"),
    ):
        with pytest.raises(BenchError, match=message):
            open_images(name, place)


def test_names_and_paths_are_checked() -> None:
    known = "samples, imagenet-val, imagenet-v2, coco-val2017"
    with pytest.raises(BenchError, match=f"no image dataset 'cifar'; there are: {known}"):
        open_images("cifar")
    with pytest.raises(
        BenchError, match=r"imagenet-val needs a path: --data imagenet-val=PATH.*ILSVRC2012_img_val.tar"
    ):
        open_images("imagenet-val")
    with pytest.raises(BenchError, match="samples ships with the installation and takes no path, but got photos"):
        open_images("samples", "photos")


def test_compressed_and_cut_archives_say_what_to_do(tmp_path: Path, image_bytes: MakeImage) -> None:
    plain = write_tar(tmp_path / "a.tar", {f"{i}.png": image_bytes(i, size=(40, 40)) for i in range(5)})
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(plain, "a.png")
    with pytest.raises(BenchError, match=r"a.tar.gz: is compressed, .*; unpack it with gunzip"):
        open_images("tar", tmp_path / "a.tar.gz")
    whole = plain.read_bytes()
    for end in (2048, 2100, 2600, 2600 - 512):  # between two members, in a header, in a member's bytes
        (tmp_path / "cut.tar").write_bytes(whole[:end])
        with pytest.raises(BenchError, match=r"cut.tar: cut off or damaged after \d members .*; fetch it again"):
            open_images("tar", tmp_path / "cut.tar")
    (tmp_path / "bad.tar").write_bytes(whole[:1100] + b"?" + whole[1101:])  # in a header: its checksum tells
    with pytest.raises(BenchError, match=r"bad.tar: cut off or damaged after 1 members"):
        open_images("tar", tmp_path / "bad.tar")
    (tmp_path / "v.zip").write_bytes(write_zip(tmp_path / "w.zip", {"000000000139.jpg": b"x"}).read_bytes()[:40])
    with pytest.raises(BenchError, match=r"v.zip: not a zip archive, or damaged"):
        open_images("coco-val2017", tmp_path / "v.zip")


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "a/../../x.png"])
def test_archives_that_reach_outside_are_refused(tmp_path: Path, name: str, image_bytes: MakeImage) -> None:
    with pytest.raises(BenchError, match="would lie outside the archive"):
        open_images("tar", write_tar(tmp_path / "a.tar", {name: image_bytes()}))
    with pytest.raises(BenchError, match="would lie outside the archive"):
        open_images("coco-val2017", write_zip(tmp_path / "a.zip", {name: image_bytes()}))


def test_links_in_a_tar_are_not_followed(tmp_path: Path, image_bytes: MakeImage) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(image_bytes(1))
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("x.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
    with pytest.raises(BenchError, match="holds no images"):
        open_images("tar", path)


def test_a_damaged_zip_member_is_named(tmp_path: Path, image_bytes: MakeImage) -> None:
    names = ("000000000139.jpg", "000000000285.jpg")
    path = write_zip(tmp_path / "val2017.zip", {f"val2017/{name}": image_bytes(8, "JPEG") for name in names})
    data = bytearray(path.read_bytes())
    data[data.index(b"\xff\xd8") + 30] ^= 0xFF
    path.write_bytes(data)
    dataset = open_images("coco-val2017", path)
    with pytest.raises(SampleError, match=r"000000000139.jpg: in val2017.zip: Bad CRC-32"):
        dataset.read(0)
    assert dataset.read(1).pixels.shape == (6, 9, 3)


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_and_threads_read_what_the_parent_reads(
    tmp_path: Path, kind: str, start: str, image_bytes: MakeImage
) -> None:
    """Many readers at once after the parent has the archive open: no file position may be shared."""
    files = {f"{i:012d}.jpg": image_bytes(i, "PNG", size=(3 + i % 5, 200)) for i in range(24)}
    dataset = {
        "folder": lambda: open_images("folder", write_folder(tmp_path / "f", files)),
        "tar": lambda: open_images("tar", write_tar(tmp_path / "f.tar", files)),
        "zip": lambda: open_images("coco-val2017", write_zip(tmp_path / "f.zip", files)),
    }[kind]()
    here = [dataset.read(index).sha256 for index in range(len(dataset))]
    order = list(range(len(dataset))) * 4
    wanted = [here[index] for index in order]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda index: dataset.read(index).sha256, order)) == wanted
    with ProcessPoolExecutor(2, mp_context=get_context(start)) as processes:
        assert list(processes.map(sha_of, [dataset] * len(order), order, chunksize=8)) == wanted


def sha_of(dataset: Dataset, index: int) -> str:
    return dataset.read(index).sha256


def test_errors_travel_from_workers(tmp_path: Path) -> None:
    error = pickle.loads(pickle.dumps(SampleError("a/x.png", "cut off")))
    assert (error.sample_id, error.reason, str(error)) == ("a/x.png", "cut off", "a/x.png: cut off")


def test_the_samples_are_what_the_list_says() -> None:
    dataset = open_images("samples")
    assert len(dataset) == dataset.expected == 16
    for index, photograph in enumerate(PHOTOGRAPHS):
        read = dataset.read(index)
        assert dataset.samples[index].id == photograph.file
        assert read.pixels.shape == (photograph.height, photograph.width, 3)
        assert read.sha256 == photograph.sha256


def test_another_scikit_image_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release with a retouched or dropped photograph would silently move every figure on the samples."""
    import harness.data.samples as module

    spec = module.find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    fake = tmp_path / "skimage"
    fake.mkdir()
    (fake / "data").symlink_to(Path(spec.origin).parent / "data")
    monkeypatch.setattr(module, "find_spec", lambda name: type("Spec", (), {"origin": str(fake / "__init__.py")})())
    assert len(open_images("samples")) == 16
    (fake / "data").unlink()
    (fake / "data").mkdir()
    with pytest.raises(BenchError, match=r"astronaut.png of the installed scikit-image .* \(the file is gone\)"):
        open_images("samples")
    (fake / "data" / "astronaut.png").write_bytes(b"retouched")
    with pytest.raises(BenchError, match=r"astronaut.png .* is not the one that figures are compared on"):
        open_images("samples")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(BenchError, match="not installed: pip install scikit-image"):
        open_images("samples")


def test_the_list_of_datasets_imports_nothing_heavy() -> None:
    """`atoken-bench list` answers within half a second."""
    code = (
        "import sys; from harness.data import DATASETS; print([m for m in ('numpy','torch','PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_a_stamp_follows_the_bytes_and_not_the_copy(tmp_path: Path, pictures: Files, kind: str) -> None:
    def stamps(where: str, files: Files) -> list[str]:
        path = tmp_path / where
        if kind == "folder":
            dataset = open_images("folder", write_folder(path, files))
        elif kind == "tar":
            dataset = open_images("tar", write_tar(path.with_suffix(".tar"), files))
        else:
            store = ZipStore(write_zip(path.with_suffix(".zip"), files))
            return [pickle.loads(pickle.dumps(store)).stamp(name) for name in store.names() if is_image(name)]
        return [pickle.loads(pickle.dumps(dataset)).stamp(index) for index in range(len(dataset))]

    changed = {**pictures, "a.jpg": pictures["a.jpg"] + b"\0"}
    first, copy, other = stamps("a", pictures), stamps("b", pictures), stamps("c", changed)
    assert first == copy
    assert sum(one != two for one, two in zip(first, other, strict=True)) == 1
