"""Images where they lie: folders, tars, Parquet; their captions; and what is told of those that cannot be used."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from atoken.training.data import Sources, open_sources
from atoken.training.data import images as images_module
from atoken.training.data import parquet as parquet_module
from atoken.training.data.images import DecodedImages, ImageFolder, decoded
from atoken.training.data.parquet import ParquetImages
from atoken.training.data.source import ImageSource, SampleError
from atoken.training.data.tars import TarImages
from atoken.training.errors import TrainingError
from tests.atoken.training.pictures import picture
from tests.atoken.training.samples import MadeImages


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(seed)).save(file, "PNG")
    return file.getvalue()


def write_images(folder: Path, count: int = 4) -> Path:
    (folder / "sub").mkdir(parents=True)
    for seed in range(count):
        (folder / f"sub/p{seed}.png").write_bytes(png(seed))
    return folder


def captions_of(source: ImageSource) -> list[str | None]:
    return [source.caption(index, np.random.default_rng(0)) for index in range(len(source))]


def opened(*specs: object, cache: Path | None = None) -> Sources:
    return open_sources({"images": [str(spec) for spec in specs]}, cache=cache)


# -- Folders ---------------------------------------------------------------------------------


def test_a_folder_of_images(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "notes.md").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    source = ImageFolder(tmp_path)
    assert [source.sample_id(i) for i in range(len(source))] == [f"{tmp_path}/sub/p{seed}.png" for seed in range(4)]
    np.testing.assert_array_equal(source.image(2), picture(2))
    assert not source.captioned
    assert captions_of(source) == [None] * 4


def test_captions_beside_the_images(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "sub/p1.txt").write_text(" a red\n bus ")
    source = ImageFolder(tmp_path)
    assert source.captioned
    assert captions_of(source) == [None, "a red bus", None, None]
    assert list(source.texts()) == ["a red bus"]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_captions_in_one_file(tmp_path: Path, kind: str) -> None:
    write_images(tmp_path)
    rows = [("sub/p0.png", "one, with a comma"), ("./sub/p2.png", "two"), ("sub/p2.png", "three"), ("gone.png", "four")]
    if kind == "csv":
        text = "licence,file,caption\n" + "".join(f'x,{file},"{caption}"\n' for file, caption in rows)
    else:
        text = "".join(json.dumps({"file": file, "caption": caption}) + "\n" for file, caption in rows)
    (tmp_path / f"captions.{kind}").write_text(text)
    source = ImageFolder(tmp_path)
    assert captions_of(source)[:2] == ["one, with a comma", None]
    drawn = {source.caption(2, np.random.default_rng(seed)) for seed in range(20)}
    assert drawn == {"two", "three"}
    assert list(source.texts()) == ["one, with a comma", "two", "three"]


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("captions.csv", "name,caption\na,b\n", "its first line must name the columns file and caption; lacks file"),
        ("captions.csv", "file,caption\nsub/p0.png\n", 'line 2 lacks a text for "file" or "caption"'),
        ("captions.csv", "", "lacks file"),
        ("captions.jsonl", '{"file": "sub/p0.png"}\n', "line 1 is no"),
        ("captions.jsonl", '\n{"file": "sub/p0.png", "caption": 3}\n', "lacks a text"),
        ("captions.jsonl", "[1]\n", "line 1 is no"),
        ("captions.csv", "file,caption\nother.png,x\n", "names none of its samples .*other.png"),
    ],
)
def test_caption_files_that_cannot_be_used(tmp_path: Path, name: str, text: str, line: str) -> None:
    write_images(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(TrainingError, match=line):
        ImageFolder(tmp_path)


def test_caption_files_that_are_no_text(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "sub/p0.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(SampleError, match=r"its caption sub/p0.txt cannot be read \(no UTF-8\)"):
        ImageFolder(tmp_path).caption(0, np.random.default_rng(0))
    (tmp_path / "captions.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(TrainingError, match=r"captions.csv: no UTF-8 text"):
        ImageFolder(tmp_path)


def test_the_fingerprint_is_of_names_sizes_and_captions_not_of_the_place(tmp_path: Path) -> None:
    one, two = write_images(tmp_path / "one"), write_images(tmp_path / "two")
    assert ImageFolder(one).fingerprint == ImageFolder(two).fingerprint
    (two / "captions.csv").write_text("file,caption\nsub/p0.png,x\n")
    assert ImageFolder(one).fingerprint != ImageFolder(two).fingerprint
    (one / "sub/p3.png").unlink()
    assert ImageFolder(one).fingerprint != ImageFolder(write_images(tmp_path / "three")).fingerprint


def test_small_sources_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path)
    (tmp_path / "sub/p1.png").write_bytes(png(1)[:200])
    source, used = decoded(ImageFolder(tmp_path), 10**6)
    assert used == 3 * picture(0).nbytes
    monkeypatch.setattr(images_module, "read_image", None)
    np.testing.assert_array_equal(source.image(2), picture(2))
    with pytest.raises(SampleError, match="truncated"):
        source.image(1)
    assert source.fingerprint == ImageFolder(tmp_path).fingerprint
    assert source.sample_id(3).endswith("sub/p3.png")


def test_large_sources_are_not_held() -> None:
    source = MadeImages("large", 100)
    assert decoded(source, 100 * 72 * 96) == (source, 0)
    # Told only while they are decoded: those that are looked at first are small.
    source = MadeImages("mixed", 100)
    sizes = [source.image(index).nbytes for index in range(100)]
    held, used = decoded(source, sum(sizes))
    assert isinstance(held, DecodedImages)
    assert used == sum(sizes)


# -- Parquet ---------------------------------------------------------------------------------


def write_table(path: Path, images: list[object], *, struct: bool = False, group: int = 3, **columns: object) -> Path:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary()
    cells = [{"bytes": data, "path": "x"} for data in images] if struct else images
    table = pa.table({"index": list(range(len(images))), "image": pa.array(cells, kind), **columns})
    pq.write_table(table, path, row_group_size=group)
    return path


@pytest.mark.parametrize("struct", [True, False])
@pytest.mark.parametrize("held", [True, False])
def test_images_in_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, struct: bool, held: bool) -> None:
    if not held:
        monkeypatch.setattr(parquet_module, "HELD_BYTES", 0)
        monkeypatch.setattr(parquet_module, "_GROUPS", 2)
    words = [f" caption\n {seed}" for seed in range(10)]
    path = write_table(tmp_path / "a.parquet", [png(seed) for seed in range(10)], struct=struct, caption=words)
    source = ParquetImages(path)
    assert len(source) == 10
    for index in (9, 0, 5, 3, 8, 0):
        np.testing.assert_array_equal(source.image(index), picture(index))
    assert captions_of(source) == [f"caption {seed}" for seed in range(10)]
    assert source.sample_id(7) == f"{path} row 7"
    assert sorted(source.texts()) == sorted(f"caption {seed}" for seed in range(10))


def test_class_names_become_sentences(tmp_path: Path) -> None:
    images = [png(seed) for seed in range(3)]
    path = write_table(tmp_path / "a.parquet", images, class_name=["tench", "great_white  shark", None])
    source = ParquetImages(path)
    sentences = {source.caption(1, np.random.default_rng(seed)) for seed in range(60)}
    assert len(sentences) > 3
    assert all("great white shark" in str(sentence) for sentence in sentences)
    assert captions_of(source)[2] is None
    assert sentences < set(source.texts())


def test_shards_of_parquet(tmp_path: Path) -> None:
    for shard in range(3):
        write_table(tmp_path / f"s{shard}.parquet", [png(4 * shard + n) for n in range(4)])
    source = opened(tmp_path).images[0]
    assert len(source) == 12
    np.testing.assert_array_equal(source.image(9), picture(9))
    assert source.sample_id(9) == f"{tmp_path}/s2.parquet row 1"
    assert not source.captioned


def test_broken_cells_of_parquet(tmp_path: Path) -> None:
    source = ParquetImages(write_table(tmp_path / "a.parquet", [None, b"", b"no image", png(0)]))
    for index, reason in enumerate(["no bytes of an image", "no bytes of an image", "not an image"]):
        with pytest.raises(SampleError, match=reason):
            source.image(index)
    np.testing.assert_array_equal(source.image(3), picture(0))


def test_tables_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"label": [1, 2]}), path)
    with pytest.raises(TrainingError, match=r"a.parquet: no column holds images .* it has label"):
        opened(path)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(TrainingError, match=r"a.parquet: no Parquet file that can be read"):
        opened(path)
    write_table(path, [])
    with pytest.raises(TrainingError, match=r"a.parquet: holds no rows"):
        opened(path)
    with pytest.raises(TrainingError, match=r"b.parquet: no such file"):
        opened(tmp_path / "b.parquet")


# -- Tars ------------------------------------------------------------------------------------


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def shard(start: int) -> dict[str, bytes]:
    """Two samples with a caption each, one with a class, one with no words."""
    return {
        f"d/{start}.png": png(start),
        f"d/{start}.txt": f"text {start}".encode(),
        f"d/{start + 1}.seg.json": json.dumps({"caption": f"json {start + 1}", "width": 3}).encode(),
        f"d/{start + 1}.seg.png": png(start + 1),
        f"d/{start + 2}.cls": b"7",
        f"d/{start + 2}.png": png(start + 2),
    }


@pytest.mark.parametrize("cached", [True, False])
def test_webdataset_shards(tmp_path: Path, cached: bool) -> None:
    folder, cache = tmp_path / "shards", tmp_path / "cache" if cached else None
    folder.mkdir()
    for number in range(3):
        write_tar(folder / f"{number:05}.tar", shard(3 * number))
    for _ in range(2):
        source = opened(folder, cache=cache).images[0]
        assert len(source) == 9
        for index in (8, 0, 4):
            np.testing.assert_array_equal(source.image(index), picture(index))
        assert captions_of(source)[:4] == ["text 0", "json 1", None, "text 3"]
        assert source.sample_id(3) == f"{folder}/00001.tar/d/3.png"
    assert len(list((tmp_path / "cache").rglob("*.json"))) == (3 if cached else 0)
    assert [len(source) for source in opened(folder / "00000.tar", folder / "00001.tar").images] == [3, 3]


def test_the_index_of_a_tar_is_made_anew_when_the_tar_changes(tmp_path: Path) -> None:
    path, cache = tmp_path / "a.tar", tmp_path / "cache"
    write_tar(path, shard(0))
    assert len(TarImages(path, cache)) == 3
    write_tar(path, shard(0) | shard(3))
    assert len(TarImages(path, cache)) == 6
    for index in cache.rglob("*.json"):
        index.write_text("[[1")
    assert len(TarImages(path, cache)) == 6


def test_names_in_tars_lead_nowhere(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"../../up.png": png(0), "/etc/abs.png": png(1)})
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        hard = tarfile.TarInfo("hard.png")
        hard.type, hard.linkname = tarfile.LNKTYPE, "../../up.png"
        archive.addfile(hard)
    before = sorted(tmp_path.rglob("*"))
    source = TarImages(path, None)
    assert len(source) == 2
    np.testing.assert_array_equal(source.image(0), picture(0))
    assert sorted(tmp_path.rglob("*")) == before


def test_broken_tars(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", shard(0))
    source = TarImages(path, None)
    os.truncate(path, 600)
    with pytest.raises(SampleError, match="the archive is cut off"):
        source.image(2)
    write_tar(path, {"a.png": b"no image", "a.json": b"{", "b.png": png(0), "b.json": b"[1, 2]"})
    source = TarImages(path, None)
    with pytest.raises(SampleError, match="not an image"):
        source.image(0)
    with pytest.raises(SampleError, match=r"its caption a.json cannot be read"):
        source.caption(0, np.random.default_rng(0))
    assert source.caption(1, np.random.default_rng(0)) is None
    for data, line in ((b"x" * 2000, "no .tar that can be read"), (b"", "no .tar that can be read")):
        path.write_bytes(data)
        with pytest.raises(TrainingError, match=f"a.tar: {line}"):
            TarImages(path, None)
    write_tar(path, shard(0), "w:gz")
    with pytest.raises(TrainingError, match="compressed ones must be unpacked"):
        TarImages(path, None)
    write_tar(path, {"a.txt": b"x"})
    with pytest.raises(TrainingError, match="holds no image"):
        TarImages(path, None)


# -- All kinds -------------------------------------------------------------------------------


def test_the_kind_is_told_by_what_lies_there_or_by_a_prefix(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "folder")
    write_tar(folder / "also.tar", shard(0))
    assert len(opened(folder).images[0]) == 3
    assert len(opened(f"images:{folder}").images[0]) == 4
    odd = write_tar(tmp_path / "odd.bin", shard(0))
    assert len(opened(f"tar:{odd}").images[0]) == 3


@pytest.mark.parametrize(
    ("specs", "line"),
    [
        ({"images": ["nowhere"]}, "nowhere: no such file or folder"),
        ({"images": ["zip:nowhere"]}, "zip is no kind of images; kinds: images:PATH, tar:PATH, parquet:PATH"),
        ({"images": ["moving:nowhere"]}, "moving is no kind of images"),
        ({"videos": ["moving:nowhere"]}, "nowhere: no such file or folder"),
        ({"assets": ["nowhere"]}, "nowhere: no such file or folder"),
        ({"sounds": ["nowhere"]}, "sounds: no kind of data; give images, videos, assets"),
        ({"images": ["."]}, ".: holds no image"),
        ({"videos": ["."]}, ".: holds no video and no folder of numbered frames"),
        ({"assets": ["."]}, "meshes need a cache"),
        ({"images": ["file.txt"]}, "file.txt: no folder, .tar or .parquet file of images"),
    ],
)
def test_places_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, specs: dict[str, list[str]], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(TrainingError, match=line):
        open_sources(specs, cache=None)


def test_images_that_also_move_are_read_once(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "folder")
    sources = open_sources({"images": [str(folder)], "videos": [f"moving:{folder}"]}, cache=None)
    assert sources.videos[0]._images is sources.images[0]  # type: ignore[attr-defined]


def test_a_weight_makes_a_source_count_several_times(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "folder")
    sources = open_sources({"images": [f"3x:{folder}"], "videos": [f"2x:moving:{folder}"]}, cache=None)
    assert sources.images == (sources.images[0],) * 3
    assert sources.videos == (sources.videos[0],) * 2
    assert (len(sources.images[0]), len(sources.videos[0])) == (4, 4)
