"""Every step of a pipeline against the library that defines it, pixel for pixel."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import PIL
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from atoken.patches import pack_pixels, to_uint8, unpack_pixels
from harness.data import geometry
from harness.data.prepare import Pipeline, eight_bit, to_unit_range
from harness.errors import BenchError
from harness.protocol import EightBitRule

RULES: tuple[EightBitRule, ...] = ("half-up", "half-even", "floor")
MODES = {
    "bicubic": InterpolationMode.BICUBIC,
    "bilinear": InterpolationMode.BILINEAR,
    "lanczos": InterpolationMode.LANCZOS,
    "box": InterpolationMode.BOX,
}
PILLOW = {name: Image.Resampling[name.upper()] for name in MODES}
# Odd, tiny and very long shapes; crops of 16 and 33 pixels stand for 256 (the arithmetic knows no scale).
sides = st.one_of(st.integers(1, 8), st.integers(9, 70), st.sampled_from([128, 255, 257, 600]))
shapes = st.tuples(sides, sides)
crops = st.sampled_from([1, 16, 33, 64])


def noise(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Noise with full black and white in it: bicubic overshoot is clipped there."""
    image = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image[::3] = np.where(image[::3] > 127, 255, 0)
    return image


def columns_first(picture: Image.Image, size: tuple[int, int], kernel: Image.Resampling) -> Image.Image:
    """What Pillow up to 12 gives; Pillow 13 gives it or, for tall images, the rows-first result."""
    whole = picture.resize(size, kernel)
    wanted = picture.resize((size[0], picture.height), kernel).resize(size, kernel)
    if np.array_equal(np.asarray(whole), np.asarray(wanted)):
        return whole
    rows_first = picture.resize((picture.width, size[1]), kernel).resize(size, kernel)
    assert int(PIL.__version__.partition(".")[0]) >= 13
    assert picture.height > picture.width
    np.testing.assert_array_equal(np.asarray(whole), np.asarray(rows_first))
    return wanted


@settings(deadline=None, max_examples=60)
@given(shapes, crops, crops, st.sampled_from(list(MODES)))
def test_resize_and_crop_are_torchvisions_on_pil(shape: tuple[int, int], size: int, crop: int, kernel: str) -> None:
    image = noise(shape)
    resized = transforms.Resize(size, MODES[kernel])(Image.fromarray(image))
    resized = columns_first(Image.fromarray(image), resized.size, PILLOW[kernel])
    cropped = transforms.CenterCrop(crop)(resized)
    np.testing.assert_array_equal(Pipeline.parse(f"rgb|resize_short({size},{kernel})")(image), np.asarray(resized))
    pipeline = Pipeline.parse(f"rgb|resize_short({size},{kernel})|center_crop({crop})")
    np.testing.assert_array_equal(pipeline(image), np.asarray(cropped))


@settings(deadline=None, max_examples=60)
@given(shapes, crops)
def test_center_crop_is_torchvisions(shape: tuple[int, int], crop: int) -> None:
    image = noise(shape)
    wanted = np.asarray(transforms.CenterCrop(crop)(Image.fromarray(image)))
    np.testing.assert_array_equal(Pipeline.parse(f"rgb|center_crop({crop})")(image), wanted)


@settings(deadline=None, max_examples=60)
@given(shapes, st.sampled_from([1, 2, 16]))
def test_the_largest_centre_crop_with_sides_that_n_divides(shape: tuple[int, int], multiple: int) -> None:
    """The index of each pixel that is kept: whole multiples, fewer than one cut off, floor of half of it in front."""
    rows, columns = np.indices(shape)
    image = np.stack([rows % 256, columns % 256, rows // 256], -1).astype(np.uint8)
    pipeline = Pipeline.parse(f"rgb|center_crop_multiple({multiple})")
    if min(shape) < multiple:
        with pytest.raises(geometry.ShapeError, match=f"a side is below {multiple}, and nothing is left to crop"):
            pipeline(image)
        return
    got = pipeline(image)
    for axis in (0, 1):
        over = shape[axis] - got.shape[axis]
        assert got.shape[axis] % multiple == 0
        assert 0 <= over < multiple
    top, left = ((side - new) // 2 for side, new in zip(shape, got.shape, strict=False))
    np.testing.assert_array_equal(got, image[top : top + got.shape[0], left : left + got.shape[1]])


def test_the_crop_is_the_one_that_atoken_itself_makes() -> None:
    """What the tokenizer keeps of a picture under ``fit="crop"`` is what the protocol compares it with."""
    image = noise((135, 40))  # 7 rows over; of 1080 it is 8
    (kept,) = unpack_pixels(pack_pixels([image], fit="crop"))
    got = Pipeline.parse("rgb|center_crop_multiple(16)")(image)
    assert got.shape == (128, 32, 3)
    np.testing.assert_array_equal(got, to_uint8(kept[0]).numpy())


@settings(deadline=None, max_examples=60)
@given(shapes, crops, st.sampled_from(list(MODES)))
def test_only_larger_frames_are_resized_and_by_tokenbenchs_rule(shape: tuple[int, int], size: int, kernel: str) -> None:
    image = noise(shape)
    got = Pipeline.parse(f"rgb|resize_short_above({size},{kernel})")(image)
    height, width = shape
    if min(shape) <= size:
        np.testing.assert_array_equal(got, image)
        return
    landscape = height <= width
    sides = (int(width * size / height + 0.5), size) if landscape else (size, int(height * size / width + 0.5))
    wanted = columns_first(Image.fromarray(image), sides, PILLOW[kernel])
    np.testing.assert_array_equal(got, np.asarray(wanted))


def test_tokenbenchs_rule_rounds_where_torchvision_truncates() -> None:
    image = noise((33, 60))
    assert Pipeline.parse("rgb|resize_short_above(16,lanczos)")(image).shape == (16, 29, 3)  # 29.09
    assert Pipeline.parse("rgb|resize_short_above(32,lanczos)")(noise((33, 61))).shape == (32, 59, 3)  # 59.15
    assert Pipeline.parse("rgb|resize_short_above(16,lanczos)")(noise((34, 73))).shape == (16, 34, 3)  # 34.35
    assert Pipeline.parse("rgb|resize_short_above(16,lanczos)")(noise((32, 73))).shape == (16, 37, 3)  # 36.5
    assert Pipeline.parse("rgb|resize_short(16,lanczos)")(noise((32, 73))).shape == (16, 36, 3)


def adm_reference(image: np.ndarray, size: int) -> np.ndarray:
    """guided-diffusion's recipe, told with whole images: no part is left out before the last line."""
    picture = Image.fromarray(image)
    while min(picture.size) >= 2 * size:
        picture = columns_first(picture, (picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    factor = size / min(picture.size)
    sides = round(picture.width * factor), round(picture.height * factor)
    picture = columns_first(picture, sides, Image.Resampling.BICUBIC)
    top, left = (picture.height - size) // 2, (picture.width - size) // 2
    return np.asarray(picture)[top : top + size, left : left + size]


@settings(deadline=None, max_examples=60)
@given(shapes, crops)
def test_adm_center_crop(shape: tuple[int, int], size: int) -> None:
    image = noise(shape)
    got = Pipeline.parse(f"rgb|adm_center_crop({size})")(image)
    assert got.shape == (size, size, 3)
    np.testing.assert_array_equal(got, adm_reference(image, size))


@settings(deadline=None, max_examples=60)
@given(shapes, crops.filter(lambda size: size > 1), crops)  # torch resizes to a single column wrongly, see below
def test_tensor_steps_are_torchvisions_on_tensors(shape: tuple[int, int], size: int, crop: int) -> None:
    """The order of LightningDiT's script: ToTensor, Resize, CenterCrop, Normalize."""
    image = noise(shape)
    wanted = transforms.Compose(
        [
            transforms.ToTensor(),
            transforms.Resize(size),
            transforms.CenterCrop(crop),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )(Image.fromarray(image))
    text = f"rgb|to_tensor|tensor_resize_short({size},bilinear,antialias)|center_crop({crop})|normalize"
    got = Pipeline.parse(text)(image)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, wanted.permute(1, 2, 0).numpy())


def test_a_single_column_is_resized_like_a_single_row() -> None:
    column = noise((9, 1)).astype(np.float32)
    row = geometry.tensor_bilinear(column.transpose(1, 0, 2), (1, 40))
    np.testing.assert_array_equal(geometry.tensor_bilinear(column, (40, 1)), row.transpose(1, 0, 2))


@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (256, 256), (1, 300), (90, 2000), (2000, 90), (1100, 1280)])
def test_at_the_size_of_the_benchmarks(shape: tuple[int, int]) -> None:
    image = noise(shape)
    picture = Image.fromarray(image)
    resized = transforms.Resize(256, InterpolationMode.BICUBIC)(picture)
    wanted = transforms.CenterCrop(256)(columns_first(picture, resized.size, Image.Resampling.BICUBIC))
    got = Pipeline.parse("rgb|resize_short(256,bicubic)|center_crop(256)")(image)
    np.testing.assert_array_equal(got, np.asarray(wanted))
    np.testing.assert_array_equal(Pipeline.parse("rgb|adm_center_crop(256)")(image), adm_reference(image, 256))


# SHA-256 (first 16 digits) of what Pillow 10.4, 11.3 and 12.0 gave, with one call of resize on the whole image.
OLDER_PILLOW = {
    ((500, 375), "resize_short(64,bicubic)|center_crop(64)"): "32a6405403f6de14",
    ((500, 375), "resize_short(64,bilinear)|center_crop(64)"): "141f9521d0d5f25e",
    ((500, 375), "adm_center_crop(64)"): "76a6846b57407c41",
    ((640, 90), "resize_short(64,bicubic)|center_crop(64)"): "dbc8c48f275e35a6",
    ((640, 90), "resize_short(64,lanczos)|center_crop(64)"): "51f798938847fd53",
    ((640, 90), "adm_center_crop(64)"): "24150104f2fd89ae",
    ((201, 203), "resize_short(64,bicubic)|center_crop(64)"): "c617e75a550329bb",
    ((201, 203), "adm_center_crop(64)"): "95f41c3c37b7bdef",
}


@pytest.mark.parametrize(("shape", "text"), OLDER_PILLOW)
def test_the_pixels_of_published_figures_whatever_pillow(shape: tuple[int, int], text: str) -> None:
    y, x = np.indices(shape)
    channels = [(x * x * 7 + y * 31 + (x * y) % 97 * 5 + c * 50) % 256 for c in range(3)]
    got = Pipeline.parse(f"rgb|{text}")(np.stack(channels, -1).astype(np.uint8))
    assert hashlib.sha256(got.tobytes()).hexdigest()[:16] == OLDER_PILLOW[shape, text]


def test_native_leaves_every_pixel() -> None:
    image = noise((7, 1))
    np.testing.assert_array_equal(Pipeline.parse("rgb|native")(image), image)


@pytest.mark.parametrize("shape", [(20, 20_000), (20_000, 20)])
@pytest.mark.parametrize(
    "text",
    [
        "rgb|resize_short(256,bicubic)|center_crop(256)",
        "rgb|adm_center_crop(256)",
        "rgb|to_tensor|tensor_resize_short(256,bilinear,antialias)|center_crop(256)|normalize",
    ],
)
def test_extreme_shapes_in_bounded_memory(shape: tuple[int, int], text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole resized image has 65 million pixels. Strips of the ordinary and of a small limit agree."""
    image = noise(shape)
    pipeline = Pipeline.parse(text)
    areas = []
    pillow, torch_ = Image.Image.resize, torch.nn.functional.interpolate

    def spy_pillow(self: Image.Image, size: tuple[int, int], *args: object) -> Image.Image:
        areas.append(size[0] * size[1])
        return pillow(self, size, *args)  # type: ignore[arg-type]

    def spy_torch(tensor: torch.Tensor, size: tuple[int, int], **options: object) -> torch.Tensor:
        areas.append(size[0] * size[1])
        return torch_(tensor, size, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", spy_pillow)
    monkeypatch.setattr(torch.nn.functional, "interpolate", spy_torch)
    first = pipeline(image)
    assert 0 < max(areas) <= geometry.MAX_PIXELS
    monkeypatch.setattr(geometry, "MAX_PIXELS", 3_000_000)
    np.testing.assert_array_equal(pipeline(image), first)
    # The middle of the long side decides alone: a shorter middle piece gives nearly the same window
    # (its resize grid has the same phase; coefficients may differ in the last bit).
    axis = int(np.argmax(shape))
    middle = image[9_000:11_000] if axis == 0 else image[:, 9_000:11_000]
    np.testing.assert_allclose(pipeline(middle).astype(float), first, atol=1 if first.dtype == np.uint8 else 1e-3)


def test_a_large_image_is_shrunk_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "MAX_PIXELS", 1_000)
    image = noise((130, 141))
    np.testing.assert_array_equal(Pipeline.parse("rgb|adm_center_crop(16)")(image), adm_reference(image, 16))


@pytest.mark.parametrize(
    "text",
    [
        "rgb|resize_short(256,bicubic)",
        "rgb|resize_short(256,bicubic)|center_crop(300)",
        "rgb|to_tensor|tensor_resize_short(256,bilinear,antialias)|center_crop(300)|normalize",
    ],
)
def test_a_shape_that_would_fill_the_memory_is_refused(text: str) -> None:
    message = "20000 x 20 pixels would be resized to 256000 x 256: above the limit of 16777216 pixels"
    with pytest.raises(geometry.TooLargeError, match=message):
        Pipeline.parse(text)(noise((20, 20_000)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rgb|resize_long(256)", "unknown step 'resize_long.256.'.*resize_short.N,FILTER.*adm_center_crop"),
        ("", "unknown step ''"),
        ("rgb|", "unknown step ''"),
        ("rgb|resize_short(256)", r"not of the form resize_short\(N,FILTER\), with FILTER one of bicubic, bilinear"),
        ("rgb|resize_short(256,nearest)", "not of the form"),
        ("rgb|center_crop(0)", "not of the form"),
        ("rgb|center_crop(256", "not of the form"),
        ("rgb(3)", r"not of the form rgb or rgb\(ffmpeg\)"),
        ("rgb|rgb(ffmpeg)", "rgb can only be the first step"),
        ("rgb|resize_short_above(1080)", r"not of the form resize_short_above\(N,FILTER\)"),
        ("rgb|center_crop_multiple(0)", r"not of the form center_crop_multiple\(N\)"),
        ("rgb|to_tensor|resize_short_above(9,box)", r"resize_short_above takes 8-bit pixels, but gets \[0, 1\]"),
        ("center_crop(256)", "first step must be rgb"),
        ("rgb|to_tensor|resize_short(256,bicubic)", r"resize_short takes 8-bit pixels, but gets \[0, 1\]"),
        ("rgb|normalize", r"normalize takes \[0, 1\] pixels, but gets 8-bit"),
        ("rgb|to_tensor", r"add \|normalize"),
    ],
)
def test_a_wrong_pipeline_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        Pipeline.parse(text)


def test_pipelines_travel_to_worker_processes() -> None:
    image = noise((40, 50))
    for text in ("rgb|resize_short(16,box)|center_crop(16)", "rgb|to_tensor|center_crop(16)|normalize"):
        pipeline = Pipeline.parse(text)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(pipeline))(image), pipeline(image))


@pytest.mark.parametrize("rule", RULES)
def test_every_grey_level_comes_back(rule: EightBitRule) -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    torch.testing.assert_close(eight_bit(to_unit_range(levels), rule), levels, rtol=0, atol=0)


@pytest.mark.parametrize("rule", RULES)
def test_every_grey_level_comes_back_from_another_way_to_the_unit_range(rule: EightBitRule) -> None:
    """ToTensor and Normalize round otherwise than u / 127.5 - 1."""
    levels = torch.arange(256, dtype=torch.uint8)
    torch.testing.assert_close(eight_bit((levels.float() / 255 - 0.5) / 0.5, rule), levels, rtol=0, atol=0)


@given(st.floats(-1.5, 1.5, width=32))
def test_rules_in_exact_arithmetic(value: float) -> None:
    """Against the definition in float64, away from the edges where float32 cannot tell."""
    level = 127.5 * (value + 1.0)
    images = torch.tensor([value])
    for rule, wanted, edge in (
        ("half-up", np.floor(level + 0.5), level + 0.5),
        ("half-even", np.round(level), level + 0.5),
        ("floor", np.floor(level), level),
    ):
        if abs(edge - np.round(edge)) > 2e-3:
            assert eight_bit(images, rule).item() == np.clip(wanted, 0, 255)  # type: ignore[arg-type]


def test_ties_go_as_the_rule_says() -> None:
    # 127.5 (x + 1) is exactly 127.5 at 0 and 0.5 + 2k nowhere else that float32 holds exactly.
    tie = torch.zeros(1)
    assert [eight_bit(tie, rule).item() for rule in RULES] == [128, 128, 127]
    # 63.75 + 127.5 = 191.25 and 31.875: no ties, where half-up and half-even agree.
    assert eight_bit(torch.tensor([0.5, -0.75]), "half-even").tolist() == [191, 32]


def test_out_of_range_is_clamped() -> None:
    for rule in RULES:
        assert eight_bit(torch.tensor([-9.0, 9.0, -float("inf"), float("inf")]), rule).tolist() == [0, 255, 0, 255]


def test_half_precision_is_widened_first() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    half = to_unit_range(levels).half()
    torch.testing.assert_close(eight_bit(half, "half-even"), eight_bit(half.float(), "half-even"))


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="half-down"):
        eight_bit(torch.zeros(1), "half-down")  # type: ignore[arg-type]
