"""Decoding against PIL and against files whose right answer is known by construction."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from atoken.media import MediaError, is_asset, is_image, is_video, list_media, read_image

NOISE = np.random.default_rng(0)


def pixels(*shape: int) -> np.ndarray:
    return NOISE.integers(0, 256, shape, dtype=np.uint8)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_kinds_give_the_pixels_back(kind: str) -> None:
    image = pixels(5, 7, 3)
    read = read_image(saved(Image.fromarray(image), kind))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, image)
    read[:] = 0  # writable: torch.from_numpy would warn otherwise


@pytest.mark.parametrize(
    ("mode", "kind"),
    [(mode, kind) for mode in ("1", "L", "LA", "RGBA", "P") for kind in ("PNG", "TIFF")]
    + [("L", "JPEG"), ("CMYK", "JPEG"), ("CMYK", "TIFF")],
)
def test_other_modes_are_what_pil_converts_them_to(mode: str, kind: str) -> None:
    bands = {"1": 1, "L": 1, "LA": 2, "P": 1}.get(mode, 4)
    array = pixels(8, 8, bands) if bands > 1 else pixels(8, 8)
    image = Image.fromarray(array).convert("1") if mode == "1" else Image.frombytes(mode, (8, 8), array.tobytes())
    if mode == "P":
        image.putpalette(pixels(768).tobytes())
    data = saved(image, kind)
    np.testing.assert_array_equal(read_image(data), np.asarray(opened(data).convert("RGB")))


@pytest.mark.parametrize("transparency", [1, b"\x00\x80"])
def test_transparency_of_a_palette_is_dropped(transparency: int | bytes) -> None:
    image = Image.new("P", (3, 2), 1)
    image.putpalette([1, 2, 3, 4, 5, 6])
    read = read_image(saved(image, transparency=transparency))
    np.testing.assert_array_equal(read, np.broadcast_to(np.uint8([4, 5, 6]), (2, 3, 3)))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PGM"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    grey = np.concatenate([np.uint16([0, 255, 256, 32768, 65535]), NOISE.integers(0, 65536, 11, dtype=np.uint16)])[None]
    data = b"P5 16 1 65535\n" + grey.astype(">u2").tobytes() if kind == "PGM" else saved(Image.fromarray(grey), kind)
    read = read_image(data)
    for band in range(3):
        np.testing.assert_array_equal(read[..., band], grey >> 8)


def test_an_8_bit_picture_widened_to_16_bits_comes_back() -> None:
    values = np.arange(256, dtype=np.uint16)[None]
    for factor in (256, 257):
        np.testing.assert_array_equal(read_image(saved(Image.fromarray(values * np.uint16(factor))))[..., 0], values)


@pytest.mark.parametrize("values", [np.float32([[0.5]]), np.int32([[-5]]), np.int32([[70000]])])
def test_pixels_without_a_defined_white_are_refused(values: np.ndarray) -> None:
    with pytest.raises(MediaError, match=r"^odd\.tif: .*8 or 16 bits"):
        read_image(saved(Image.fromarray(values), "TIFF"), "odd.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(pixels(4, 6, 3)), exif=exif)
    np.testing.assert_array_equal(read_image(data), np.asarray(ImageOps.exif_transpose(opened(data))))


def test_a_damaged_exif_block_does_not_cost_the_picture() -> None:
    image = Image.fromarray(pixels(16, 16, 3))
    data = saved(image, "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff\xff")
    np.testing.assert_array_equal(read_image(data), np.asarray(opened(data)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.9])
def test_truncated_files_are_named(kind: str, part: float) -> None:
    data = saved(Image.fromarray(pixels(64, 64, 3)), kind)
    with pytest.raises(MediaError, match=r"^photo\.x: .+") as caught:
        read_image(data[: int(len(data) * part)], "photo.x")
    assert "\n" not in str(caught.value)
    assert ("empty" in str(caught.value)) == (part == 0.0)


@given(st.data())
def test_damaged_bytes_give_an_image_or_a_media_error(data: st.DataObject) -> None:
    file = bytearray(saved(Image.new("RGB", (9, 9), (200, 30, 7)), data.draw(st.sampled_from(["PNG", "JPEG", "GIF"]))))
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = read_image(bytes(file))
    except MediaError:
        return
    assert read.ndim == 3
    assert read.shape[2] == 3


def test_a_decompression_bomb_is_refused_unopened() -> None:
    with pytest.raises(MediaError, match=r"bomb\.png: more than .* pixels"):
        read_image(saved(Image.new("1", (20000, 20000))), "bomb.png")


def test_a_file_cannot_choose_the_postscript_reader() -> None:
    with pytest.raises(MediaError, match="not an image"):
        read_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n", "x.png")


def test_paths_and_open_files(tmp_path: Path) -> None:
    image = pixels(3, 4, 3)
    path = tmp_path / "a.png"
    Image.fromarray(image).save(path)
    np.testing.assert_array_equal(read_image(path), image)
    with path.open("rb") as file:
        np.testing.assert_array_equal(read_image(file), image)
        assert not file.closed
    with pytest.raises(MediaError, match="No such file"):
        read_image(tmp_path / "b.png")
    with pytest.raises(MediaError, match="directory"):
        read_image(tmp_path)


def test_folders_expand_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.JPG", "a.mp4", "b/.hidden.png", "notes.txt", ".thumbs/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    inside = [path.relative_to(tmp_path).as_posix() for path in list_media([tmp_path])]
    assert inside == ["a.mp4", "b/10.JPG", "b/2.png"]
    assert list_media([tmp_path / "b/2.png", tmp_path / "notes.txt"]) == [tmp_path / "b/2.png", tmp_path / "notes.txt"]
    assert is_image("x.JPG")
    assert is_video("x.MOV")
    assert not is_image("x.mp4")


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"gone: no such file or folder"):
        list_media([tmp_path / "gone"])
    with pytest.raises(MediaError, match="holds no image and no video"):
        list_media([tmp_path])


def test_assets_are_told_by_name_and_zips_by_being_files(tmp_path: Path) -> None:
    (tmp_path / "folder.zip").mkdir()
    (tmp_path / "file.zip").write_bytes(b"PK")
    for name in ("a.glb", "a.GLTF", "a.obj", "a.ply", "a.stl", "file.zip", "file.zip/sub/a.obj"):
        assert is_asset(tmp_path / name)
    for name in ("a.png", "a.mp4", "folder.zip", "folder.zip/a.png", "gone.zip", "obj"):
        assert not is_asset(tmp_path / name)


def test_folders_give_models_that_are_whole_by_themselves(tmp_path: Path) -> None:
    for name in ("a.png", "b.glb", "c.obj", "d.gltf", "e.stl", ".f.glb", "g.ply"):
        (tmp_path / name).touch()
    assert [path.name for path in list_media([tmp_path], assets=True)] == ["a.png", "b.glb", "e.stl", "g.ply"]
    assert [path.name for path in list_media([tmp_path])] == ["a.png"]
