"""The rows of 3D assets: identity, voxel-colour and AToken; and the check that any adapter of assets must pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from atoken.assets.asset import Asset
from atoken.assets.cameras import Camera, four_views, orbit
from atoken.assets.gaussian_decoder import GaussianDecoder, GaussianDecoderConfig
from atoken.assets.gaussians import SH_DEGREE_0
from atoken.assets.mesh import Mesh
from atoken.assets.mesh_to_asset import Recipe
from atoken.assets.render import RenderSettings, render_views
from atoken.assets.splat import render
from atoken.assets.voxels import occupied_by_mesh
from atoken.checkpoint import sha256_file
from atoken.config import ATokenConfig, FSQConfig, TransformerConfig
from atoken.errors import CheckpointError
from atoken.tokenizer import AToken
from harness import registry
from harness.errors import BenchError
from harness.metrics.asset_base import premultiplied
from harness.tokenizers import atoken as atoken_row
from harness.tokenizers.asset import AssetTokenizer, EncodedAsset, InputViews, Rendered
from harness.tokenizers.asset_contract import SMALL, asset_faults, box
from harness.tokenizers.base import Adapter, LatentMode
from harness.tokenizers.contract import check_adapter
from harness.tokenizers.identity import create as create_identity
from harness.tokenizers.voxel_colour import VoxelColour, create, mean_colours
from tests.harness.asset_fakes import Dim

INPUTS = InputViews(12, 96)
HALF = TransformerConfig(width=32, blocks=1, heads=2, mlp=48)


def named(spec: str) -> Adapter:
    return registry.create_tokenizer(spec, ckpt=None, preset=None, device="cpu", dtype="float32")


@pytest.mark.parametrize("spec", ["identity", "voxel-colour"])
def test_rows_hold_the_contract(spec: str) -> None:
    assert check_adapter(named(spec)) == []
    with pytest.raises(BenchError, match="takes no argument, got '3'"):
        named(f"{spec}:3")


def test_identity_draws_what_the_original_is_drawn_by() -> None:
    row, mesh = create_identity(None, device="cpu", dtype="float32"), box()
    rendered = row.decode_asset(row.encode_asset(mesh, INPUTS, latent="mean", seed=0))
    cameras = four_views()
    views = render_views(mesh, cameras, RenderSettings(height=40, width=40))
    pictures = list(rendered.pictures(cameras, 40))
    for colours, camera, picture in zip(views.colours, cameras, pictures, strict=True):
        assert torch.equal(rendered.render(camera, 40), premultiplied(colours, torch.device("cpu")))
        assert torch.equal(picture, rendered.render(camera, 40))


def test_tokens_of_identity_are_voxels_and_not_faces() -> None:
    row, coarse = create_identity(None, device="cpu", dtype="float32"), box()
    # The same box, each face cut in four.
    corners = coarse.vertices[coarse.faces]
    middles = (corners + np.roll(corners, -1, axis=1)) / 2
    a, b, c, p, q, r = (*corners.transpose(1, 0, 2), *middles.transpose(1, 0, 2))
    fine = np.concatenate([np.stack(part, axis=1) for part in ((a, p, r), (p, b, q), (r, q, c), (p, q, r))])
    faces = np.arange(3 * len(fine), dtype=np.int32).reshape(-1, 3)
    cut = replace(coarse, vertices=fine.reshape(-1, 3), faces=faces, material_of_face=np.zeros(len(fine), np.int32))
    counts = {row.encode_asset(mesh, INPUTS, latent="mean", seed=0).tokens for mesh in (coarse, cut)}
    (count,) = counts
    assert count == len(occupied_by_mesh(coarse)) > 10_000


# voxel-colour.


def test_a_voxel_has_the_mean_of_the_pixels_that_show_it() -> None:
    views = INPUTS.render(box(sides=SMALL))
    coords, colours = mean_colours(views)
    assert coords.dtype == np.int32
    assert len(np.unique(coords, axis=0)) == len(coords)
    # By hand, pixel by pixel, for the voxel that most pixels show.
    found: dict[tuple[int, ...], list[np.ndarray]] = {}
    for view, camera in enumerate(views.cameras):
        turn, shift = camera.world_to_camera[:3, :3], camera.world_to_camera[:3, 3]
        for row, column in np.argwhere(views.depth[view] >= 0):
            u, v = (column + 0.5) / 96, (row + 0.5) / 96
            local = np.linalg.inv(camera.intrinsics) @ [u, v, 1] * views.depth[view, row, column]
            place = np.floor((turn.T @ (local - shift) + 0.5) * 64).clip(0, 63).astype(int)
            found.setdefault(tuple(place.tolist()), []).append(views.colours[view, row, column, :3])
    assert abs(len(found) - len(coords)) <= 3  # pixels on a border may fall either way
    index = {tuple(place): number for number, place in enumerate(coords.tolist())}
    for place in sorted(found, key=lambda place: -len(found[place]))[:20]:
        np.testing.assert_allclose(colours[index[place]], np.mean(found[place], axis=0) / 255, atol=0.02)


def test_a_model_comes_back_in_its_colours_and_the_right_way_round() -> None:
    mesh = box(sides=(1, 0.4, 0.7))
    row = VoxelColour("cpu")
    encoded = row.encode_asset(mesh, INPUTS, latent="mean", seed=0)
    assert encoded.tokens == encoded.voxels == len(encoded.payload[0])
    rendered = row.decode_asset(encoded)
    assert len(rendered.gaussians) == encoded.tokens
    settings = RenderSettings(height=64, width=64)
    # From the side of a face, above and oblique: mirrored or turned it would be off by tens of levels.
    for camera in (orbit(0.5, 0.3), orbit(2.5, 0.6), orbit(4.2, -0.4)):
        original = premultiplied(render_views(mesh, [camera], settings).colours[0], torch.device("cpu"))
        again = rendered.render(camera, 64)
        error = float((original - again).abs().mean())
        assert error < 0.06
        for wrong in (again.flip(0), again.flip(1), again[..., [2, 1, 0, 3]]):
            assert float((original - wrong).abs().mean()) > 2 * error


def test_a_model_that_nothing_shows_is_refused() -> None:
    mesh = box()
    clear = tuple(replace(material, alpha="blend", colour=(1, 1, 1, 0)) for material in mesh.materials)
    with pytest.raises(Exception, match="no view shows anything of it"):
        create(None, device="cpu", dtype="float32").encode_asset(
            replace(mesh, materials=clear), INPUTS, latent="mean", seed=0
        )


# AToken.


@pytest.fixture(scope="module", params=["continuous", "quantized"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    quantizer = FSQConfig() if request.param == "quantized" else None
    config = ATokenConfig(name=f"tiny-{request.param}", encoder=HALF, decoder=HALF, quantizer=quantizer)
    path = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    AToken(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("gaussians")
    GaussianDecoder(GaussianDecoderConfig(width=48, blocks=1, heads=2)).save_pretrained(path)
    return path


def adapter(folder: Path, **options: str) -> AssetTokenizer:
    return atoken_row.create(str(folder), device="cpu", dtype="float32", **options)  # type: ignore[return-value]


def test_without_a_gaussian_decoder_the_row_says_so_and_counts(folder: Path) -> None:
    row = adapter(folder)
    assert row.unrendered is not None
    assert row.unrendered.startswith("the model has no Gaussian decoder, and Gaussians of random weights are no result")
    assert "asset" in row.card.modalities
    asset = Asset.from_mesh(box(sides=SMALL), Recipe(views=12, size=96))
    encoded = row.encode_asset(box(sides=SMALL), INPUTS, latent="mean", seed=0)
    assert encoded.tokens == encoded.voxels == len(asset)
    assert asset_faults(row, trained=False) == []


def test_the_row_is_the_librarys_own_calls(folder: Path, decoder: Path) -> None:
    row = adapter(folder, gaussians=str(decoder))
    assert row.unrendered is None
    model = AToken.from_pretrained(folder, gaussians=decoder)
    asset = Asset.from_mesh(box(sides=SMALL), Recipe(views=12, size=96))
    (expected,) = model.decode(model.encode([asset]))
    rendered = row.decode_asset(row.encode_asset(box(sides=SMALL), INPUTS, latent="mean", seed=0))
    assert rendered.gaussians is not None
    torch.testing.assert_close(rendered.gaussians.means, expected.means, rtol=0, atol=1e-6)
    camera = four_views()[0]
    torch.testing.assert_close(rendered.render(camera, 32), render(expected, camera, 32, 32), rtol=0, atol=1e-3)
    assert asset_faults(row, trained=False) == []


def test_the_card_names_the_decoder_and_the_way(folder: Path, decoder: Path) -> None:
    plain = adapter(folder).card
    card = adapter(folder, gaussians=str(decoder), gathering="average").card
    file = decoder / "gaussians.safetensors"
    assert card.weights_sha256 == plain.weights_sha256 | {file.name: sha256_file(file)}
    assert plain.settings["assets"] == {"occupancy": "depth", "gathering": "nearest"}
    assert card.settings["assets"] == {"occupancy": "depth", "gathering": "average"}
    assert card.title == f"{plain.title} (gathering average)"


def test_a_model_is_shown_what_it_was_trained_on(folder: Path, tmp_path: Path) -> None:
    model = AToken.from_pretrained(folder)
    model.config = replace(model.config, gathering="visible")
    model.save_pretrained(tmp_path / "visible")
    plain = adapter(tmp_path / "visible").card
    assert plain.settings["assets"] == {"occupancy": "depth", "gathering": "visible"}
    assert "gathering" not in plain.title
    assert adapter(tmp_path / "visible", gathering="nearest").card.title.endswith("(gathering nearest)")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"gathering": "all"}, BenchError, "--option gathering is nearest or average or visible, not 'all'"),
        ({"occupancy": "rays"}, BenchError, "--option occupancy is depth or mesh, not 'rays'"),
        ({"gaussians": "none.pt"}, CheckpointError, "none.pt"),
    ],
)
def test_wrong_options_are_refused(folder: Path, options: dict[str, str], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        adapter(folder, **options)


# The check.


class Faulty(Dim):
    """Holds the contract but for one thing."""

    def __init__(self, what: str) -> None:
        super().__init__(1.0)
        self.card = replace(self.card, latent_modes=("mean",))
        self.what = what
        self.seen = 0

    def encode_asset(self, mesh: Mesh, inputs: InputViews, *, latent: LatentMode, seed: int) -> EncodedAsset:
        self.seen += 1
        if self.what == "writes":
            mesh.vertices[0] *= 0.5
        tokens = 0 if self.what == "empty" else 5
        return EncodedAsset(payload=(mesh, self.seen), tokens=tokens, voxels=None)

    def decode_asset(self, encoded: EncodedAsset) -> Rendered:
        mesh, seen = encoded.payload
        return _Faulty(super().decode_asset(EncodedAsset(payload=(mesh, 1.0), tokens=1)), self.what, seen)


class _Faulty(Rendered):
    def __init__(self, inner: Rendered, what: str, seen: int) -> None:
        self.inner, self.what, self.seen = inner, what, seen

    def render(self, camera: Camera, size: int) -> Tensor:
        view = self.inner.render(camera, size)
        match self.what:
            case "random":
                return view * (0.9 + 0.1 * torch.rand(1))
            case "remembers":
                return view * (0.9 if self.seen > 2 else 1.0)
            case "range":
                return view * 255
            case "swapped":
                return view[..., [2, 1, 0, 3]]
            case "signed":
                return torch.cat([2 * view[..., :3] - 1, view[..., 3:]], dim=-1)
            case "rgb":
                return view[..., :3]
            case "nan":
                return view / 0
        return view


@pytest.mark.parametrize(
    ("what", "fault"),
    [
        ("random", "mean: a second call, under another global random state, gives another result"),
        ("remembers", "mean: an asset changes with the asset before it"),
        ("range", "mean: alpha reaches from 0 to 255; 0 to 1"),
        ("swapped", "a red box comes back as (0.00, 0.00, 1.00, 1.00) in RGBA; sRGB times alpha in 0..1 is wanted"),
        ("signed", "a red box comes back as (1.00, -1.00, -1.00, 1.00) in RGBA; sRGB times alpha in 0..1 is wanted"),
        ("rgb", "mean: views come as torch.float32 (48, 48, 3); float32 (48, 48, 4) is wanted"),
        ("nan", "mean: views hold NaN or infinite values"),
        ("empty", "mean: a box takes 0 tokens and None voxels"),
        ("writes", "mean: writes into the mesh that it is given"),
    ],
)
def test_the_check_finds(what: str, fault: str) -> None:
    assert f"asset: {fault}" in check_adapter(Faulty(what))


def test_the_check_passes_what_is_right() -> None:
    assert check_adapter(Faulty("")) == []


def test_colours_of_gaussians_are_spherical_harmonics() -> None:
    row = VoxelColour("cpu")
    coords, colours = np.array([[32, 32, 32]], np.int32), np.array([[0.2, 0.5, 0.9]], np.float32)
    rendered = row.decode_asset(EncodedAsset(payload=(coords, colours), tokens=1, voxels=1))
    assert rendered.gaussians is not None
    np.testing.assert_allclose(rendered.gaussians.features_dc * SH_DEGREE_0 + 0.5, colours, atol=1e-6)
    np.testing.assert_allclose(rendered.gaussians.means, [[0.5 / 64] * 3])
