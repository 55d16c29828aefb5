"""Codec rows against Pillow's own files, and the search for a rate against trying every quality."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from atoken.errors import InputError
from harness.errors import BenchError
from harness.tokenizers import codecs
from harness.tokenizers.codecs import Codec, create_jpeg, create_webp, largest_within

Factory = Callable[..., Codec]


def build(factory: Factory, argument: str | None) -> Codec:
    return factory(argument, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    """Crops of real photographs of several sizes."""
    sources = (data.astronaut(), data.coffee(), data.cat())
    return [source[40 : 40 + 8 * k + 64, 60 : 60 + 96 + k] for k, source in enumerate(sources * 2)]


def as_input(pixels: np.ndarray) -> torch.Tensor:
    return torch.tensor(pixels).permute(2, 0, 1).float() / 127.5 - 1


def pillow_file(pixels: np.ndarray, name: str, quality: int) -> bytes:
    options = {"JPEG": {"subsampling": 2, "optimize": True}, "WEBP": {"method": 4}}[name]
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, name, quality=quality, **options)
    return file.getvalue()


@pytest.mark.parametrize(("factory", "name"), [(create_jpeg, "JPEG"), (create_webp, "WEBP")])
@pytest.mark.parametrize("quality", [5, 75])
def test_files_are_pillows(factory: Factory, name: str, quality: int, photos: list[np.ndarray]) -> None:
    tokenizer = build(factory, str(quality))
    encoded = tokenizer.encode([as_input(x) for x in photos], latent="mean", seeds=[0] * len(photos))
    files = [pillow_file(x, name, quality) for x in photos]
    assert encoded.bits == [8 * len(file) for file in files]
    for file, output in zip(files, tokenizer.decode(encoded), strict=True):
        with Image.open(io.BytesIO(file)) as image:
            expected = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(((output + 1) * 127.5).permute(1, 2, 0).numpy().round(), expected)


def test_card_names_encoder_and_subsampling() -> None:
    settings = build(create_jpeg, "75").card.settings
    assert settings["quality"] == 75
    assert settings["subsampling"] == "4:2:0"
    assert "Pillow" in settings["encoder"]
    assert "None" not in settings["encoder"] + build(create_webp, "75").card.settings["encoder"]


@given(
    rates=st.lists(st.floats(0.01, 10), min_size=1, max_size=40),
    target=st.floats(0.005, 11),
    rising=st.booleans(),
)
def test_search_finds_the_largest_quality_within(rates: list[float], target: float, rising: bool) -> None:
    if rising:
        rates = sorted(rates)
    probes: list[int] = []

    def rate(quality: int) -> float:
        probes.append(quality)
        return rates[quality - 1]

    quality, achieved = largest_within(rate, target, 1, len(rates))
    assert achieved == rates[quality - 1]
    within = [q for q, value in enumerate(rates, 1) if value <= target]
    if not within:
        assert achieved == min(rates)
    elif rising:
        assert quality == max(within)
        assert len(probes) <= len(rates).bit_length() + 1
    else:
        assert achieved <= target
    assert len(set(probes)) == len(probes)


def test_search_tries_everything_when_the_probes_contradict_it() -> None:
    rates = [1.0, 5.0, 2.0, 3.0, 1.5, 2.5, 9.0]  # bisection meets 3, 2.5 and 9: falling once
    assert largest_within(lambda q: rates[q - 1], 2.6, 1, 7) == (6, 2.5)


@pytest.mark.parametrize(("factory", "name"), [(create_jpeg, "JPEG"), (create_webp, "WEBP")])
def test_rate_is_the_largest_within_the_target(factory: Factory, name: str, photos: list[np.ndarray]) -> None:
    target = 2.0
    tokenizer = build(factory, f"@{target}")
    assert tokenizer.needs_prepare
    assert tokenizer.card.settings["target_bits_per_pixel"] == target
    assert "quality" not in tokenizer.card.settings
    tokenizer.prepare(iter(photos))

    def rate(quality: int) -> float:
        return float(np.mean([8 * len(pillow_file(x, name, quality)) / x[..., 0].size for x in photos]))

    best = max(q for q in range(1, 96) if rate(q) <= target)
    assert tokenizer.card.settings["quality"] == best
    assert tokenizer.card.settings["searched_bits_per_pixel"] == pytest.approx(rate(best), rel=1e-12)
    assert tokenizer.card.settings["searched_on"] == f"{len(photos)} of {len(photos)} images"

    other = build(factory, f"@{target}")
    other.restore(tokenizer.card.settings)
    inputs = [as_input(photos[0])]
    assert other.card == tokenizer.card
    assert (
        other.encode(inputs, latent="mean", seeds=[0]).bits == tokenizer.encode(inputs, latent="mean", seeds=[0]).bits
    )


def test_a_big_set_is_searched_on_an_even_selection(photos: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    # Flat images everywhere but at every 4th place: the quality tells which ones were looked at.
    flat = np.zeros_like(photos[0])
    many = [photos[0] if index % 4 == 0 else flat for index in range(50)]
    monkeypatch.setattr(codecs, "SEARCH_BYTES", 20 * flat.nbytes)
    whole = build(create_jpeg, "@2.5")
    whole.prepare(iter(many))
    assert whole.card.settings["searched_on"] == "13 of 50 images (every 4th)"
    few = build(create_jpeg, "@2.5")
    few.prepare(iter(many[:13:4]))
    assert whole.card.settings["quality"] == few.card.settings["quality"]


def test_an_image_that_the_format_cannot_hold(photos: list[np.ndarray]) -> None:
    long = np.zeros((2, 16400, 3), np.uint8)
    tokenizer = build(create_webp, "50")
    with pytest.raises(InputError, match="at most 16383 pixels a side, the image has 16400x2"):
        tokenizer.encode([as_input(long)], latent="mean", seeds=[0])
    searched = build(create_webp, "@1.5")
    searched.prepare([long, *photos])
    assert searched.card.settings["searched_on"] == f"{len(photos)} of {len(photos)} images"


def test_a_rate_out_of_reach_says_what_is_in_reach(photos: list[np.ndarray]) -> None:
    with pytest.raises(BenchError, match=r"jpeg@0.001: even quality \d+ takes [\d.]+ bit/pixel"):
        build(create_jpeg, "@0.001").prepare(photos)


def test_a_rate_needs_images(photos: list[np.ndarray]) -> None:
    tokenizer = build(create_jpeg, "@1")
    with pytest.raises(BenchError, match="prepare"):
        tokenizer.encode([as_input(photos[0])], latent="mean", seeds=[0])
    with pytest.raises(BenchError, match="no image"):
        tokenizer.prepare([])


@pytest.mark.parametrize("argument", [None, "", "0", "96", "-5", "7.5", "x", "@", "@0", "@-1", "@nan", "@inf", "@25"])
def test_bad_arguments(argument: str | None) -> None:
    with pytest.raises(BenchError, match="jpeg"):
        build(create_jpeg, argument)
