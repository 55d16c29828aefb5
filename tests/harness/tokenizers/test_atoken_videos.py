"""The atoken row on videos against the library's own call on the whole clip, and its options."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from atoken.config import ATokenConfig, FSQConfig, TransformerConfig
from atoken.errors import ATokenError, InputError
from atoken.tokenizer import AToken
from harness import registry
from harness.data.base import ClipShape
from harness.errors import BenchError
from harness.tokenizers import atoken as atoken_module
from harness.tokenizers.atoken import ATokenVideoAdapter, Published, create
from harness.tokenizers.contract import check_adapter
from harness.tokenizers.frames import FrameByFrame
from harness.tokenizers.specimens import clip
from harness.tokenizers.video import EncodedPart, VideoTokenizer

HALF = TransformerConfig(width=32, blocks=1, heads=2, mlp=48)
FRAMES = clip(0, 37, 40, 56)
SHAPE = ClipShape(height=40, width=56, rate=Fraction(25))


@pytest.fixture(scope="module", params=["continuous", "quantized"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    quantizer = FSQConfig() if request.param == "quantized" else None
    config = ATokenConfig(name=f"tiny-{request.param}", encoder=HALF, decoder=HALF, quantizer=quantizer)
    path = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    AToken(config).save_pretrained(path)
    return path


def build(folder: Path, **options: str) -> ATokenVideoAdapter:
    adapter = create(str(folder), device="cpu", dtype="float32", **options)
    assert isinstance(adapter, ATokenVideoAdapter)
    return adapter


@torch.inference_mode()
def through(adapter: VideoTokenizer, *, cut: int = 16, **how: Any) -> tuple[Tensor, list[EncodedPart]]:
    parts: list[EncodedPart] = []

    def passing() -> Iterator[EncodedPart]:
        for part in adapter.encode_clip(iter(FRAMES.split(cut)), SHAPE, **{"latent": "mean", "seed": 3, **how}):
            parts.append(part)
            yield part

    return torch.cat(list(adapter.decode_clip(passing(), SHAPE))), parts


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_holds_the_contract(folder: Path, dtype: str, tolerance: float) -> None:
    options = {"stride_frames": "12", "cache_frames": "4", "space_tiles": "32x32+16"}
    for given in ({}, options):
        tokenizer = registry.create_tokenizer(
            f"atoken:{folder}", ckpt=None, preset=None, device="cpu", dtype=dtype, options=given
        )
        assert check_adapter(tokenizer, trained=False, tolerance=tolerance) == []


@pytest.mark.cuda
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_holds_the_contract_on_cuda(folder: Path, dtype: str, tolerance: float) -> None:
    tokenizer = create(str(folder), device="cuda", dtype=dtype, cache_frames="4", stride_frames="12")
    assert check_adapter(tokenizer, trained=False, tolerance=tolerance) == []


@pytest.mark.parametrize("options", [{}, {"stride_frames": "12", "cache_frames": "4"}, {"stride_frames": "8"}])
def test_reconstructs_as_the_library_does_at_once(folder: Path, options: dict[str, str]) -> None:
    model = AToken.from_pretrained(folder)
    adapter = build(folder, **options)
    back, parts = through(adapter)
    latents = model.encode([FRAMES])
    numbers = {name: int(text) for name, text in options.items()}
    codes = None if model.config.quantizer is None else model.quantize(latents)
    whole = model.decode_pixels(latents if codes is None else codes, **numbers)[0]
    torch.testing.assert_close(back, whole, atol=1e-5, rtol=0)
    assert [part.tokens for part in parts] == [4 * 12, 4 * 12, 2 * 12]
    if codes is None:
        assert all(part.bits is None and part.codes is None for part in parts)
    else:
        assert sum(part.bits or 0 for part in parts) == 120 * 8 * 12
        assert torch.equal(torch.cat([part.codes for part in parts if part.codes is not None]), codes.features)


def test_a_sample_is_the_clips_own_whatever_the_blocks(folder: Path) -> None:
    adapter = build(folder)
    if adapter.card.token_type != "VAE":
        return
    one, two = through(adapter, latent="sample")[0], through(adapter, latent="sample", cut=5)[0]
    assert torch.equal(one, two)
    model = AToken.from_pretrained(folder)
    whole = model.decode_pixels(model.encode([FRAMES]).sample(3))[0]
    torch.testing.assert_close(one, whole, atol=1e-5, rtol=0)


def test_the_cut_changes_the_result_and_is_in_the_card(folder: Path) -> None:
    plain = build(folder)
    assert plain.card.modalities == ("image", "video", "asset")
    assert (plain.card.frames, plain.card.tile) == ((4, 0), (16, None, None))
    cut = {"stride_frames": 16, "cache_frames": 0, "space_tiles": None}
    assert {name: plain.card.settings[name] for name in cut} == cut
    for option, text, tile, said in (
        ("stride_frames", "8", (8, None, None), "stride 8"),
        ("stride_frames", "12", (None, None, None), "stride 12"),
        ("cache_frames", "4", (16, None, None), "cache 4"),
        ("space_tiles", "32x48+16", (16, 32, 48), "tiles 32x48+16"),
        ("space_tiles", "32x32", (16, 32, 32), "tiles 32x32+0"),
    ):
        other = build(folder, **{option: text})
        assert other.card.tile == tile
        assert other.card.title == f"{plain.card.title} ({said})"
        assert not torch.equal(through(other)[0], through(plain)[0])
    both = build(folder, stride_frames="12", cache_frames="4").card
    assert both.title.endswith("(stride 12, cache 4)")
    # What is asked for by its default is the default.
    assert build(folder, stride_frames="16", cache_frames="0").card == plain.card


def test_searched_codes_are_told_of_and_closer(folder: Path) -> None:
    plain = build(folder)
    if plain.card.token_type == "VAE":
        with pytest.raises(InputError, match="no codes to search for"):
            build(folder, search="3")
        return
    found = build(folder, search="3")
    assert found.card.title == f"{plain.card.title} (search 3)"
    assert (plain.card.settings["search"], found.card.settings["search"]) == (0, 3)
    assert build(folder, search="0").card == plain.card
    near, far = (through(adapter)[0] - (FRAMES / 127.5 - 1) for adapter in (found, plain))
    assert float(near.square().sum()) < float(far.square().sum())
    # Images and assets too.
    model, image = AToken.from_pretrained(folder), FRAMES[0].permute(2, 0, 1) / 127.5 - 1
    wanted = model.quantize(model.encode([image.permute(1, 2, 0)], search=3)).features
    assert torch.equal(found.encode([image], latent="mean", seeds=[0]).payload.features, wanted)
    assert check_adapter(found, trained=False, tolerance=1e-4) == []
    with pytest.raises(InputError, match="leave out the search or the tiles"):
        build(folder, search="3", space_tiles="32x32")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"search": "some"}, "search=some: give a number of steps"),
        ({"stride_frames": "10"}, "stride_frames=10: give frames as a multiple of 4, from 4 on"),
        ({"stride_frames": "0"}, "stride_frames=0"),
        ({"stride_frames": "-4"}, "stride_frames=-4"),
        ({"cache_frames": "many"}, "cache_frames=many: give frames as a multiple of 4, from 0 on"),
        ({"cache_frames": "3"}, "cache_frames=3"),
        ({"space_tiles": "512"}, r"space_tiles=512: write HEIGHTxWIDTH\+OVERLAP in pixels"),
        ({"space_tiles": "512x512+64px"}, "space_tiles=512x512"),
        ({"space_tiles": "40x64"}, "multiples of the 16x16 patch"),
        ({"space_tiles": "64x64+64"}, "smaller than the tile"),
        ({"space_tiles": "0x64"}, "spatial tiles of 0x64"),
    ],
)
def test_malformed_options(folder: Path, options: dict[str, str], said: str) -> None:
    with pytest.raises((BenchError, InputError), match=said) as raised:
        create(str(folder), device="cpu", dtype="float32", **options)
    assert isinstance(raised.value, ATokenError)


def test_a_model_of_images_takes_videos_frame_by_frame(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the paper counts Stage 1, whose 4-frame patches it prints as 1."""
    config = AToken.from_pretrained(folder).config
    monkeypatch.setitem(atoken_module.PRESETS, config.name, config)
    published = Published(title="Tiny", row="Tiny", compression=(1, 16, 16), images_only=True)
    monkeypatch.setitem(atoken_module.PUBLISHED, config.name, published)
    adapter = create(str(folder), device="cpu", dtype="float32")
    assert not isinstance(adapter, VideoTokenizer)
    assert adapter.card.modalities == ("image",)
    assert check_adapter(adapter, trained=False) == []
    assert FrameByFrame(adapter).card.compression == (1, 16, 16)
    if adapter.card.token_type == "FSQ":
        found, image = (
            create(str(folder), device="cpu", dtype="float32", search="3"),
            FRAMES[0].permute(2, 0, 1) / 127.5 - 1,
        )
        assert (found.card.title, found.card.paper_row) == ("Tiny (search 3)", None)
        codes = [a.encode([image], latent="mean", seeds=[0]).payload.features for a in (found, adapter)]
        assert not torch.equal(*codes)
    with pytest.raises(BenchError, match="cache_frames cuts nothing"):
        create(str(folder), device="cpu", dtype="float32", cache_frames="4")
    monkeypatch.setitem(atoken_module.PUBLISHED, config.name, replace(published, images_only=False))
    # The paper's figures are those of the defaults.
    assert create(str(folder), device="cpu", dtype="float32").card.paper_row == "Tiny"
    assert create(str(folder), device="cpu", dtype="float32", cache_frames="4").card.paper_row is None


def test_the_packaged_model_says_what_it_has_seen() -> None:
    card = create(None, device="cpu", dtype="float32").card
    assert card.modalities == ("image", "video", "asset")
    assert "bikes and bigbuckbunny but not carphone" in card.source
    assert card.paper_row is None
