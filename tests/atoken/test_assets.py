"""Assets as items beside images and videos: the same network, an asset's own result, Gaussians where asked for."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from atoken import Asset, AToken, GaussianDecoder, Gaussians, ItemSpec, Latents, SparseTokens, VoxelFeatures
from atoken.assets.gaussian_decoder import GaussianDecoderConfig
from atoken.errors import CheckpointError, InputError
from atoken.patches import check_raster, pack_pixels, unpack_pixels
from tests.atoken.conftest import build, tiny_config

TOLERANCE = 2e-5
SMALL = GaussianDecoderConfig(width=24, blocks=2, heads=3, mlp=32, gaussians=4)
Noise = Callable[..., np.ndarray[Any, Any]]
relaxed = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def some_asset(voxels: int, seed: int = 0, *, low: int = 0, high: int = 64) -> Asset:
    random = np.random.default_rng([seed, voxels])
    side = high - low
    cells = random.choice(side**3, size=voxels, replace=False)
    coords = np.stack(np.unravel_index(cells, (side,) * 3), axis=1) + low
    return Asset(random.random((voxels, 768), dtype=np.float32), coords)


def gaussian_decoder() -> GaussianDecoder:
    torch.manual_seed(3)
    decoder = GaussianDecoder(SMALL).eval()
    with torch.no_grad():
        decoder.offset_perturbation.uniform_(-1, 1)
    return decoder


@pytest.fixture(scope="module")
def with_gaussians() -> AToken:
    model = build(tiny_config())
    model.attach_gaussians(gaussian_decoder())
    return model


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=0, atol=TOLERANCE)


def same(got: Gaussians, want: Gaussians) -> None:
    for part in ("means", "features_dc", "log_scales", "quaternions", "opacity_logits"):
        close(getattr(got, part), getattr(want, part))


def test_a_voxel_is_laid_out_as_an_images_patch(noise: Noise) -> None:
    patch = noise(16, 16)
    asset = Asset(patch.reshape(1, -1).astype(np.float32) / 255, np.array([[3, 5, 9]]))
    tokens, image = pack_pixels([asset]), pack_pixels([patch])
    close(tokens.features, image.features)
    assert not tokens.features[:, 768:].any()
    assert tokens.coords.tolist() == [[0, 3, 5, 9]]
    assert tokens.items == (ItemSpec.of_voxels(1),)


def test_an_asset_that_lies_in_a_plane_is_an_image_to_the_network(tiny: AToken, noise: Noise) -> None:
    image = noise(48, 80)
    patches = image.reshape(3, 16, 5, 16, 3).swapaxes(1, 2).reshape(15, 768)
    coords = [(x, y, 0) for x in range(3) for y in range(5)]
    latents = tiny.encode([image, Asset(patches.astype(np.float32) / 255, np.array(coords))])
    flat, solid = latents.split()
    close(solid.mean.features, flat.mean.features)
    close(solid.logvar, flat.logvar)
    (picture, voxels) = tiny.decode(latents, output="float")
    rows = picture.reshape(3, 16, 5, 16, 3).swapaxes(1, 2).reshape(15, 768)
    close(voxels.features, torch.from_numpy(rows.copy()))


@relaxed
@given(
    kinds=st.lists(st.sampled_from(["asset", "asset", "image", "video"]), min_size=2, max_size=4),
    voxels=st.integers(1, 60),
    data=st.data(),
)
def test_neither_mates_nor_order_matter(
    with_gaussians: AToken, noise: Noise, kinds: list[str], voxels: int, data: st.DataObject
) -> None:
    model = with_gaussians
    made = {
        "asset": lambda seed: some_asset(voxels + seed, seed),
        "image": lambda seed: noise(20 + seed, 33, seed=seed),
        "video": lambda seed: noise(9, 17, 20, seed=seed),
    }
    items = [made[kind](seed) for seed, kind in enumerate(kinds)]
    order = data.draw(st.permutations(range(len(items))))
    mixed = [items[i] for i in order]
    latents, embedded, features = model.encode(mixed), model.embed(mixed), model.features(mixed).split()
    samples, decoded = latents.sample(5).split(), model.decode(latents, output="float")
    for place, i in enumerate(order):
        alone = model.encode([items[i]])
        together = latents.split()[place]
        close(together.mean.features, alone.mean.features)
        close(together.logvar, alone.logvar)
        close(samples[place].features, alone.sample(5).features)
        close(embedded[place], model.embed([items[i]])[0])
        close(features[place].features, model.features([items[i]]).features)
        (rebuilt,) = model.decode(alone, output="float")
        if kinds[i] == "asset":
            same(decoded[place], rebuilt)
            same(decoded[place], model.decode_gaussians(alone)[0])
            assert len(rebuilt) == len(items[i]) * SMALL.gaussians
        else:
            np.testing.assert_allclose(decoded[place], rebuilt, rtol=0, atol=TOLERANCE)


@relaxed
@given(voxels=st.integers(2, 80), seed=st.integers(0, 99))
def test_permuting_voxels_permutes_what_becomes_of_them(with_gaussians: AToken, voxels: int, seed: int) -> None:
    model, asset = with_gaussians, some_asset(voxels, seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(voxels))
    turned = Asset(asset.features[order], asset.coords[order])
    plain, moved = model.encode([asset]), model.encode([turned])
    close(moved.mean.features, plain.mean.features[order])
    close(moved.logvar, plain.logvar[order])
    assert torch.equal(moved.mean.coords, plain.mean.coords[order])
    close(model.embed([turned]), model.embed([asset]))
    close(model.decode_voxels(moved)[0].features, model.decode_voxels(plain)[0].features[order])
    rows = (order[:, None] * SMALL.gaussians + torch.arange(SMALL.gaussians)).flatten()
    same(model.decode_gaussians(moved)[0], model.decode_gaussians(plain)[0][rows])


def test_every_voxel_sees_every_other(tiny: AToken) -> None:
    asset = some_asset(30)
    changed = asset.features.clone()
    changed[7] = 1 - changed[7]
    moved = tiny.encode([Asset(changed, asset.coords)]).mean.features - tiny.encode([asset]).mean.features
    assert (moved.abs().amax(dim=1) > 1e-4).all()


def test_the_releases_t_of_1_changes_nothing(with_gaussians: AToken) -> None:
    mean = with_gaussians.encode([some_asset(20)]).mean
    later = replace(mean, coords=mean.coords + torch.tensor([1, 0, 0, 0], dtype=torch.int32))
    same(with_gaussians.decode(later)[0], with_gaussians.decode(mean)[0])


def test_codes_of_a_quantized_model(tiny_fsq: AToken, noise: Noise) -> None:
    latents = tiny_fsq.encode([some_asset(12), noise(16, 16)])
    codes = tiny_fsq.quantize(latents)
    assert codes.features.dtype == torch.int32
    by_codes, by_latents = tiny_fsq.decode(codes), tiny_fsq.decode(latents)
    assert isinstance(by_codes[0], VoxelFeatures)
    close(by_codes[0].features, by_latents[0].features)
    assert torch.equal(by_codes[0].coords, some_asset(12).coords)
    assert np.array_equal(by_codes[1], by_latents[1])


def test_voxel_features_are_the_first_frame_unclamped(tiny: AToken) -> None:
    latents = tiny.encode([some_asset(9)])
    rebuilt = tiny.forward_decoder(latents.mean).detach()
    (voxels,) = tiny.decode(latents)
    assert torch.equal(voxels.features, rebuilt[:, :768])
    assert torch.equal(tiny.decode_pixels(latents)[0], rebuilt[:, :768])
    assert len(voxels) == 9


def test_half_precision_runs_through(with_gaussians: AToken) -> None:
    asset = some_asset(25)
    half = build(tiny_config())
    half.attach_gaussians(gaussian_decoder())
    half.to(torch.bfloat16)
    (rough,), (fine,) = (model.decode(model.encode([asset])) for model in (half, with_gaussians))
    assert rough.means.dtype == torch.float32
    assert 0 < (rough.means - fine.means).abs().max() < 0.01
    assert 0 < (rough.colours - fine.colours).abs().max() < 0.2


# -- A Gaussian decoder beside the tokenizer -------------------------------------------------


def test_both_are_saved_and_loaded_together(tmp_path: Path, with_gaussians: AToken) -> None:
    with_gaussians.save_pretrained(tmp_path / "both")
    names = {"config.json", "model.safetensors", "gaussians.json", "gaussians.safetensors"}
    assert {path.name for path in (tmp_path / "both").iterdir()} == names
    again = AToken.from_pretrained(tmp_path / "both")
    assert again.gaussian_decoder is not None
    assert not again.gaussian_decoder.training
    assert again.gaussian_decoder.config == SMALL
    for key, value in with_gaussians.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    latents = again.encode([some_asset(10)])
    same(again.decode(latents)[0], with_gaussians.decode(latents)[0])
    # The tokenizer's own file is what it is without a Gaussian decoder.
    plain = build(tiny_config())
    plain.save_pretrained(tmp_path / "plain")
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("both", "plain")]
    assert files[0] == files[1]
    alone = AToken.from_pretrained(tmp_path / "plain")
    assert alone.gaussian_decoder is None
    given = AToken.from_pretrained(tmp_path / "plain", gaussians=tmp_path / "both")
    same(given.decode(latents)[0], again.decode(latents)[0])


def test_a_decoder_stored_in_half_precision_keeps_its_constants(tmp_path: Path, with_gaussians: AToken) -> None:
    with_gaussians.save_pretrained(tmp_path, dtype=torch.bfloat16)
    loaded = GaussianDecoder.from_pretrained(tmp_path)
    wanted = gaussian_decoder()
    assert torch.equal(loaded.offset_perturbation, wanted.offset_perturbation)
    assert torch.equal(loaded.out_layer.weight, wanted.out_layer.weight.bfloat16().float())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "no config of a Gaussian decoder"),
        ("[1", "no config of a Gaussian decoder"),
        ('{"width": "wide"}', "no config|width is 'wide'"),
    ],
)
def test_a_broken_config_is_named(tmp_path: Path, text: str, said: str) -> None:
    gaussian_decoder().save_pretrained(tmp_path)
    (tmp_path / "gaussians.json").write_text(text)
    with pytest.raises(CheckpointError, match=said) as caught:
        GaussianDecoder.from_pretrained(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "gaussians.json"))


def test_what_has_no_gaussians_says_so(tiny: AToken, with_gaussians: AToken, noise: Noise, tmp_path: Path) -> None:
    latents = tiny.encode([some_asset(3)])
    with pytest.raises(InputError, match=r"tiny has no Gaussian decoder; load one with .*gaussians=PATH"):
        tiny.decode_gaussians(latents)
    mixed = tiny.encode([some_asset(3), noise(16, 16)])
    for decode in (tiny.decode_voxels, with_gaussians.decode_gaussians):
        with pytest.raises(InputError, match="item 1 is image, not asset"):
            decode(mixed)
        with pytest.raises(InputError, match="give what encode or quantize returned"):
            decode(noise(16, 16))
    with pytest.raises(CheckpointError, match="takes voxels of 12 values; tiny decodes them to 768"):
        tiny.attach_gaussians(GaussianDecoder(replace(SMALL, channels=12)))
    tiny.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"gone\.pt"):
        AToken.from_pretrained(tmp_path, gaussians=tmp_path / "gone.pt")


# -- Bad input ------------------------------------------------------------------------------

GOOD = np.full((2, 768), 0.5, np.float32)
TWO = np.array([[0, 0, 0], [63, 63, 63]])


@pytest.mark.parametrize(
    ("features", "coords", "said"),
    [
        (GOOD[:0], TWO[:0], "the asset is empty"),
        (GOOD[:, :0], TWO, "the asset is empty"),
        (GOOD * np.nan, TWO, "finite and in"),
        (np.where(np.eye(2, 768) > 0, np.inf, GOOD).astype(np.float32), TWO, "finite and in"),
        (GOOD * 4, TWO, "finite and in"),
        (GOOD - 1, TWO, "finite and in"),
        (np.full((2, 768), 127, np.uint8), TWO, "divide pixels by 255"),
        (GOOD, TWO + 1, r"1 of 2 voxels lie outside of 0 to 63, first \[64, 64, 64\]"),
        (GOOD, TWO - 1, r"1 of 2 voxels lie outside of 0 to 63, first \[-1, -1, -1\]"),
        (GOOD, TWO * 0, r"voxel \[0, 0, 0\] occurs more than once"),
        (GOOD, TWO.astype(np.float32), "whole numbers, not torch.float32"),
        (GOOD, TWO.astype(bool), "arrays are of numbers"),
        (GOOD, torch.from_numpy(TWO) > 0, "whole numbers, not torch.bool"),
        (GOOD, TWO[:1], r"features \[L, C\] and coords \[L, 3\], got \[2, 768\], \[1, 3\]"),
        (GOOD, np.zeros((2, 4), int), r"coords \[L, 3\]"),
        (GOOD[0], TWO, r"features \[L, C\]"),
        ("pixels", TWO, "arrays or tensors, not str"),
    ],
)
def test_assets_that_are_none(features: Any, coords: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        Asset(features, coords, "chair.glb")
    assert "\n" not in str(caught.value)


def test_the_name_is_in_the_message() -> None:
    with pytest.raises(InputError, match=r"^chair\.glb: voxel \[0, 0, 0\] occurs"):
        Asset(GOOD, TWO * 0, "chair.glb")


def test_arrays_and_tensors_of_any_kind_give_the_same_asset() -> None:
    wanted = Asset(GOOD, TWO)
    frozen = GOOD.copy()
    frozen.setflags(write=False)
    for features, coords in (
        (torch.from_numpy(GOOD), torch.from_numpy(TWO)),
        (frozen, TWO.astype(np.uint8)),
        (GOOD[::-1], TWO.astype(np.int16)),
        (GOOD.astype(np.float16), np.asfortranarray(TWO)),
    ):
        got = Asset(features, coords)
        assert torch.equal(got.coords, wanted.coords)
        assert got.coords.dtype == torch.int32
        assert torch.equal(pack_pixels([got]).features, pack_pixels([wanted]).features)


def test_assets_go_to_other_processes() -> None:
    asset = Asset(GOOD, TWO, "chair")
    again = pickle.loads(pickle.dumps(asset))
    assert torch.equal(again.features, asset.features)
    assert torch.equal(again.coords, asset.coords)
    assert again.name == "chair"


def test_packing_names_the_asset_by_its_place(noise: Noise) -> None:
    with pytest.raises(InputError, match=r"item 1: an asset's voxels hold 768 values each \(16 x 16 pixels\), got 12"):
        pack_pixels([noise(16, 16), Asset(GOOD[:, :12], TWO)])
    with pytest.raises(InputError, match="for one item write"):
        pack_pixels(Asset(GOOD, TWO))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c[:-1], "5 tokens; keep all tokens"),
        (lambda c: torch.cat([c[:1], c[:-1]]), "occurs more than once"),
        (lambda c: c * torch.tensor([1, 100, 1, 1], dtype=torch.int32), "outside of 0 to 63"),
        (lambda c: c + torch.arange(6, dtype=torch.int32)[:, None] * torch.tensor([1, 0, 0, 0]).int(), "several times"),
    ],
)
def test_tokens_that_are_no_asset(tiny: AToken, change: Callable[[Tensor], Tensor], said: str) -> None:
    mean = tiny.encode([some_asset(6)]).mean
    coords = change(mean.coords)
    tokens = SparseTokens(mean.features[: len(coords)], coords, (len(coords),), mean.items)
    for refuses in (check_raster, tiny.decode, unpack_pixels):
        with pytest.raises(InputError, match=said):
            refuses(tokens)


def test_an_asset_is_no_video(tiny: AToken) -> None:
    latents = tiny.encode([some_asset(6)])
    with pytest.raises(InputError, match="an asset has voxels, no raster"):
        list(tiny.decode_video([latents]))
    with pytest.raises(InputError, match="got Asset"):
        list(tiny.encode_video([some_asset(6)]))  # type: ignore[list-item]


@pytest.mark.parametrize(
    "changes",
    [{"voxels": 0}, {"voxels": 64**3 + 1}, {"frames": 2}, {"out_width": 32}, {"top": 1}, {"kind": "image"}],
)
def test_specs_of_assets_are_of_one_form(changes: dict[str, Any]) -> None:
    spec = ItemSpec.of_voxels(5)
    assert spec.tokens((4, 16, 16)) == 5
    with pytest.raises(InputError):
        replace(spec, **changes)


def test_packs_with_assets_split_and_join(tiny: AToken, noise: Noise) -> None:
    latents = tiny.encode([some_asset(6), noise(16, 16), some_asset(4, 1)])
    again = Latents.cat(latents.split())
    assert again.mean.items == latents.mean.items
    assert torch.equal(again.mean.coords, latents.mean.coords)
    assert again.mean.lengths == (6, 1, 4)


@pytest.mark.cuda
def test_a_mixed_batch_on_cuda(noise: Noise) -> None:
    model = build(tiny_config())
    model.attach_gaussians(gaussian_decoder())
    items = [noise(20, 33), some_asset(40), noise(9, 16, 16), some_asset(7, 1)]
    wanted = model.encode(items)
    expected = model.decode(wanted, output="float")
    model.to("cuda")
    got = model.encode(items)
    torch.testing.assert_close(got.mean.features.cpu(), wanted.mean.features, rtol=0, atol=2e-4)
    for decoded, reference in zip(model.decode(got, output="float"), expected, strict=True):
        if isinstance(reference, Gaussians):
            assert decoded.means.is_cuda
            torch.testing.assert_close(decoded.means.cpu(), reference.means, rtol=0, atol=2e-4)
        else:
            np.testing.assert_allclose(decoded, reference, rtol=0, atol=1e-3)
