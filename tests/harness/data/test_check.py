"""``data check`` and ``data fingerprint``: every missing and broken file by name, and an honest exit status."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import get_args

import pytest

from harness.cli_options import Kind
from harness.data import open_clips, open_images
from harness.data.check import check, fingerprint, inspect
from harness.data.fingerprint import clip_sha256, content_sha256, ids_sha256
from harness.errors import BenchError
from harness.experiment import Modality
from tests.harness.data.conftest import MakeImage, grey_frames, write_clip, write_sequence
from tests.harness.data.test_benchmark_sets import val
from tests.harness.data.test_image_datasets import write_folder


@pytest.fixture
def three_broken(tmp_path: Path, image_bytes: MakeImage) -> Path:
    files = {f"{number}.png": image_bytes(number, size=(number + 1, 7)) for number in range(10)}
    files |= {"2.png": b"", "4.png": files["4.png"][:40], "6.png": b"<html>not found</html>"}
    return write_folder(tmp_path / "ten", files)


def test_three_of_ten_are_broken(three_broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = open_images("folder", three_broken)
    report = inspect(dataset)
    assert [name for name, _ in report.broken] == ["2.png", "4.png", "6.png"]
    assert (report.found, report.sizes, report.whole) == (10, ((1, 7), (10, 7)), False)
    readable = [i for i in range(10) if i not in (2, 4, 6)]
    assert report.content_sha256 == content_sha256((f"{i}.png", dataset.read(i).sha256) for i in readable)
    assert report.ids_sha256 == ids_sha256(f"{i}.png" for i in range(10))

    assert check(f"folder={three_broken}") == 1
    out = capsys.readouterr().out
    assert "ten (folder): 7 readable images\n" in out
    assert "broken: 2.png: the file is empty\n" in out
    assert fingerprint(f"folder={three_broken}") == 0
    assert capsys.readouterr().out == (
        f"count: 7\nids sha256: {report.ids_sha256}\ncontent sha256: {report.content_sha256}\n"
    )


def test_progress_counts_every_sample_once(three_broken: Path) -> None:
    steps: list[int] = []
    inspect(open_images("folder", three_broken), progress=steps.append)
    assert steps == [1] * 10


def test_missing_and_foreign_imagenet_files_are_named(tmp_path: Path, image_bytes: MakeImage) -> None:
    data = image_bytes(0, "JPEG")
    have = [number for number in range(1, 61) if number not in (7, 33)] + [50_001]
    root = write_folder(tmp_path / "val", {val(number): data for number in have})
    report = inspect(open_images("imagenet-val", root))
    assert len(report.missing) == 50_000 - 58
    assert report.missing[:3] == (val(7), val(33), val(61))
    assert report.unexpected == (val(50_001),)
    lines = report.lines()
    assert "ImageNet-1k val (imagenet-val): 59 readable images of 50,000 expected" in lines
    assert f"not of this set: 1: {val(50_001)}" in lines
    (missing,) = (line for line in lines if line.startswith("missing"))
    assert missing.startswith(f"missing: 49,942: {val(7)}, {val(33)}, {val(61)}")
    assert missing.endswith(", and 49,922 more")


def test_a_long_list_of_broken_files_is_cut(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d", {f"{number:02d}.png": b"" for number in range(25)})
    report = inspect(open_images("folder", root))
    assert report.sizes is None
    assert sum(line.startswith("broken: ") for line in report.lines()) == 21
    assert "broken: and 5 more" in report.lines()


def test_the_samples_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert check("samples") == 0
    assert "16 readable images of 16 expected" in capsys.readouterr().out


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    root = tmp_path / "clips"
    write_clip(root / "a.mkv", grey_frames(3), rate=Fraction(30000, 1001))
    write_clip(root / "b.mkv", grey_frames(4, (64, 80)))
    write_sequence(root / "c", grey_frames(5, (10, 20)))
    (root / "c" / "00004.png").write_bytes(b"")
    (root / "d.mp4").touch()
    return root


def test_clips_are_read_to_their_last_frame(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(f"folder={clips}", kind="video") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "clips (folder): 2 readable clips",
        "frames: 7",
        "sizes: 48 x 32 to 80 x 64 pixels",
        "frames per second: 25, 29.97",
    ]
    assert [line for line in lines if line.startswith("broken: ")] == [
        "broken: c: 00004.png: the file is empty",
        "broken: d.mp4: the file is empty",
    ]
    assert not any(line.startswith("labels") for line in lines)
    assert fingerprint(f"folder={clips}", kind="video") == 0
    content = content_sha256((name, clip_sha256(clips / name)) for name in ("a.mkv", "b.mkv"))
    assert capsys.readouterr().out == (
        f"count: 2\nids sha256: {ids_sha256(['a.mkv', 'b.mkv', 'c', 'd.mp4'])}\ncontent sha256: {content}\n"
    )


def test_progress_counts_every_clip_once(clips: Path) -> None:
    steps: list[int] = []
    inspect(open_clips("folder", clips), progress=steps.append)
    assert steps == [1] * 4


def test_the_help_names_every_kind_that_is_taken() -> None:
    (option,) = Kind.__metadata__  # type: ignore[attr-defined]
    assert option.metavar == "|".join(get_args(Modality))


def test_a_name_of_both_kinds_means_images_unless_the_kind_is_said(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="holds none of the 50 sequences of DAVIS"):
        check(f"davis={clips}")  # only videos have that name
    with pytest.raises(BenchError, match="no image dataset 'davis'"):
        check(f"davis={clips}", kind="image")
    with pytest.raises(BenchError, match="--kind film: not one of image, video, asset"):
        check("samples", kind="film")
    with pytest.raises(BenchError, match=r"no dataset 'films'; there are: samples, imagenet-val, .*tokenbench"):
        check("films")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchError, match="holds no images"):
        check(f"folder={tmp_path / 'empty'}")
    with pytest.raises(BenchError, match="holds no clips"):
        check(f"folder={tmp_path / 'empty'}", kind="video")
