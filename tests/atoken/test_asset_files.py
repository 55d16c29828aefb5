"""Token files that hold assets: exact, strict, and of a format of their own only where they must."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from atoken.token_files import TokenFile, TokenFileError, TokenSource, load_tokens, save_tokens
from atoken.token_stream import TokenWriter, open_tokens
from atoken.tokenizer import AToken
from atoken.tokens import Latents, SparseTokens
from tests.atoken.test_assets import some_asset

NAMES, RATES = ("sub/chair.glb", "a.png", "b.mkv"), (None, None, Fraction(24))
Load = Callable[[Path], object]


def tokens_of(model: AToken, noise: Any, kind: str) -> Latents | SparseTokens:
    latents = model.encode([some_asset(17), noise(20, 33), noise(5, 16, 32)])
    return {"posterior": latents, "sample": latents.sample(3), "codes": model.quantize(latents)}[kind]


def content(model: AToken, tokens: Latents | SparseTokens) -> TokenFile:
    return TokenFile(
        tokens=tokens, names=NAMES, rates=RATES, model="tiny", weights_sha256="0" * 64, config=model.config,
        settings={"assets": {"views": 4}},
    )  # fmt: skip


@pytest.fixture
def written(tmp_path: Path, tiny_fsq: AToken, noise: Any) -> Path:
    save_tokens(tmp_path / "t.safetensors", content(tiny_fsq, tokens_of(tiny_fsq, noise, "posterior")))
    return tmp_path / "t.safetensors"


@pytest.fixture(params=[load_tokens, open_tokens], ids=["load", "open"])
def load(request: pytest.FixtureRequest) -> Load:
    return request.param


def header_of(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["atoken_tokens"])


def rewritten(path: Path, change: Callable[[dict[str, Any]], object], **tensors: torch.Tensor) -> Path:
    header = header_of(path)
    change(header)
    save_file(load_file(path) | tensors, path, {"atoken_tokens": json.dumps(header)})
    return path


@pytest.mark.parametrize("kind", ["posterior", "sample", "codes"])
def test_round_trips_are_exact_whole_and_streamed(tmp_path: Path, tiny_fsq: AToken, noise: Any, kind: str) -> None:
    tokens = tokens_of(tiny_fsq, noise, kind)
    whole = content(tiny_fsq, tokens)
    save_tokens(tmp_path / "whole", whole)
    fields = ("model", "weights_sha256", "config", "settings")
    source = TokenSource(**{name: getattr(whole, name) for name in fields})
    with TokenWriter(tmp_path / "stream", source) as writer:
        for item, name, rate in zip(tokens.split(), NAMES, RATES, strict=True):
            with writer.item(name, rate) as add:
                add(item)
        assert (writer.count, writer.tokens) == (3, sum(whole.packed.lengths))
    assert (tmp_path / "stream").read_bytes() == (tmp_path / "whole").read_bytes()
    back = load_tokens(tmp_path / "whole")
    assert back.packed.items == whole.packed.items
    assert torch.equal(back.packed.features, whole.packed.features)
    assert torch.equal(back.packed.coords, whole.packed.coords)
    reader = open_tokens(tmp_path / "whole")
    (part,) = reader.parts(0, 4)
    first = tokens.split()[0]
    got, want = ((x.mean if isinstance(x, Latents) else x) for x in (part, first))
    assert got.items == want.items
    assert torch.equal(got.features, want.features)
    assert torch.equal(got.coords, want.coords)
    if isinstance(part, Latents) and isinstance(first, Latents):
        assert torch.equal(part.logvar, first.logvar)
    # What follows the asset is found behind it.
    (image,) = reader.parts(1, 4)
    assert torch.equal((image.mean if isinstance(image, Latents) else image).features, got_rows(tokens, 1))


def got_rows(tokens: Latents | SparseTokens, index: int) -> torch.Tensor:
    item = tokens.split()[index]
    return (item.mean if isinstance(item, Latents) else item).features


def test_only_files_with_assets_need_a_newer_reader(
    written: Path, tmp_path: Path, tiny_fsq: AToken, noise: Any
) -> None:
    header = header_of(written)
    assert header["version"] == 2
    assert [item.get("voxels") for item in header["items"]] == [17, None, None]
    latents = tiny_fsq.encode([noise(16, 16)])
    old = TokenFile(
        tokens=latents, names=("a",), rates=(None,), model="tiny", weights_sha256="0" * 64, config=tiny_fsq.config
    )
    save_tokens(tmp_path / "old", old)
    assert header_of(tmp_path / "old")["version"] == 1
    assert "voxels" not in header_of(tmp_path / "old")["items"][0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: h["items"][0].update(voxels=16), "17 tokens do not fill 16 voxels"),
        (lambda h: h["items"][0].update(voxels=10**12), "1 to 64"),
        (lambda h: h["items"][0].update(voxels=17.0), "sizes are not whole numbers"),
        (lambda h: h["items"][0].update(voxels="17"), "header is damaged"),
        (lambda h: h["items"][0].pop("voxels"), "1 to 64"),
        (lambda h: h["items"][0].update(rate="24"), "only videos have one"),
        (lambda h: h["items"][0].update(height=128, out_height=128), "in a grid of 64"),
        (lambda h: h["items"][1].update(voxels=6), "only assets have voxels"),
    ],
)
def test_headers_that_contradict_themselves(load: Load, written: Path, change: Any, words: str) -> None:
    with pytest.raises(TokenFileError, match=words) as caught:
        load(rewritten(written, change))
    assert str(caught.value).startswith(f"{written}: ")


@pytest.mark.parametrize("fault", ["twice", "outside", "late", "negative", "image"])
def test_coordinates_that_are_no_voxels(load: Load, written: Path, fault: str) -> None:
    coords = load_file(written)["coords"].clone()
    row, column, value = {
        "twice": (1, slice(None), coords[0]),
        "outside": (3, 2, 64),
        "negative": (3, 3, -1),
        "late": (slice(0, 17), 0, 1),
        "image": (18, 3, 1),
    }[fault]
    coords[row, column] = value
    with pytest.raises(TokenFileError, match="its coordinates are not those of whole images, videos and assets"):
        load(rewritten(written, lambda header: None, coords=coords))


def test_voxels_in_any_order_are_read(load: Load, written: Path) -> None:
    coords = load_file(written)["coords"].clone()
    coords[:17] = coords[np.random.default_rng(0).permutation(17)]
    load(rewritten(written, lambda header: None, coords=coords))
