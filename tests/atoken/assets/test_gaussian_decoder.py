"""The Gaussian decoder against the release's own outputs, its layout and the laws that it must keep."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from atoken.assets.gaussian_decoder import GaussianDecoder, GaussianDecoderConfig, Windows, voxel_positions
from atoken.errors import CheckpointError, InputError

TINY = GaussianDecoderConfig(channels=12, width=24, blocks=2, heads=3, mlp=32, gaussians=4)


@pytest.fixture(scope="module")
def tiny() -> GaussianDecoder:
    torch.manual_seed(0)
    return GaussianDecoder(TINY).eval()


def some_voxels(count: int, seed: int = 0) -> torch.Tensor:
    random = np.random.default_rng(seed)
    cells = random.choice(20**3, size=count, replace=False)
    return torch.from_numpy(np.stack(np.unravel_index(cells, (20, 20, 20)), axis=1))


def test_the_layout_is_the_released_one(shared: Path) -> None:
    manifest = json.loads((shared / "reference" / "manifest" / "3d_decode_gs.json").read_text())
    with torch.device("meta"):
        model = GaussianDecoder()
    wanted = {key: shape for key, (shape, _) in manifest["state_dict"].items() if not key.startswith("lpips_loss.")}
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == wanted
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted == manifest["counts"]["decoder_gs_without_lpips"]


@torch.inference_mode()
def test_golden_outputs(shared: Path) -> None:
    path = shared / "reference" / "golden" / "h_3d.safetensors"
    with safe_open(path, "pt") as file:
        stated = json.loads(file.metadata()["gs_cfg"])
    data = load_file(path)
    config = GaussianDecoderConfig(
        channels=stated["latent_channels"],
        width=stated["model_channels"],
        blocks=stated["num_blocks"],
        heads=stated["num_heads"],
        mlp=stated["mlp_channels"],
    )
    model = GaussianDecoder(config).eval()
    prefix = "weights_gs/"
    model.load_state_dict({k.removeprefix(prefix): v.float() for k, v in data.items() if k.startswith(prefix)})
    voxels, features = data["in/voxels"], data["out/rec_feats_768"]
    splats = model.gaussians(model(features, voxels, [len(voxels)]), voxels)
    for ours, name in (
        (splats.means, "gs_xyz"),
        (splats.features_dc, "gs_raw_features_dc"),
        (splats.scales, "gs_scaling"),
        (splats.rotations, "gs_rotation"),
        (splats.opacities, "gs_opacity"),
    ):
        torch.testing.assert_close(ours, data[f"out/{name}"].reshape(ours.shape), rtol=0, atol=2e-5)


def test_golden_sine_embedding(shared: Path) -> None:
    data = load_file(shared / "reference" / "golden" / "j_pos.safetensors")
    for width in (96, 100):
        ours = voxel_positions(data[f"in/ape_{width}/xyz"], width)
        torch.testing.assert_close(ours, data[f"out/ape_{width}/embedding"], rtol=0, atol=2e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 100))
@torch.inference_mode()
def test_batch_mates_and_order_do_not_matter(first: int, second: int, seed: int) -> None:
    torch.manual_seed(1)
    model = GaussianDecoder(TINY).eval()
    voxels = [some_voxels(first, seed), some_voxels(second, seed + 1)]
    features = [torch.randn(len(v), TINY.channels) for v in voxels]
    together = model(torch.cat(features), torch.cat(voxels), [first, second]).split([first, second])
    for alone, mate, v in zip(features, together, voxels, strict=True):
        torch.testing.assert_close(model(alone, v, [len(v)]), mate, rtol=0, atol=1e-5)
    order = torch.randperm(first)
    shuffled = model(features[0][order], voxels[0][order], [first])
    torch.testing.assert_close(shuffled, together[0][order], rtol=0, atol=1e-5)


@torch.inference_mode()
def test_only_voxels_of_one_window_see_each_other() -> None:
    torch.manual_seed(2)
    model = GaussianDecoder(GaussianDecoderConfig(channels=4, width=8, blocks=1, heads=1, mlp=8, gaussians=1)).eval()
    voxels = torch.tensor([[0, 0, 0], [7, 7, 7], [8, 7, 7]])
    features = torch.randn(3, 4)
    changed = features.clone()
    changed[2] += 1
    moved = (model(features, voxels, [3]) - model(changed, voxels, [3])).abs().amax(dim=1)
    assert moved[0] == moved[1] == 0
    assert moved[2] > 0


def test_windows_hold_each_voxel_once_and_grow_in_size() -> None:
    voxels = some_voxels(200)
    items = torch.arange(200) // 120
    windows = Windows.of(voxels, items, 8, 4)
    assert sorted(windows.order.tolist()) == list(range(200))
    assert sum(count * size for count, size in windows.runs) == 200
    assert [size for _, size in windows.runs] == sorted({size for _, size in windows.runs})


def test_splats_are_in_range(tiny: GaussianDecoder) -> None:
    voxels = some_voxels(30)
    splats = tiny.gaussians(100 * torch.randn(30, 14 * TINY.gaussians), voxels)
    centres = ((voxels + 0.5) / 64 - 0.5).repeat_interleave(TINY.gaussians, dim=0)
    assert ((splats.means - centres).abs() <= 0.75 / 64 + 1e-6).all()
    assert (splats.scales >= 9e-4 - 1e-9).all()
    torch.testing.assert_close(splats.rotations.norm(dim=1), torch.ones(120))
    assert ((splats.opacities >= 0) & (splats.opacities <= 1)).all()


def test_the_official_file_loads_without_its_perceptual_loss(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in GaussianDecoder().state_dict().items()}
    state = {key: torch.full(shape, 0.01) for key, shape in shapes.items()}
    state["offset_perturbation"] = torch.linspace(-1, 1, 96).view(32, 3)
    torch.save({**state, "lpips_loss.net.lin0.model.1.weight": torch.zeros(1, 64, 1, 1)}, tmp_path / "gs.pt")
    loaded = GaussianDecoder.from_pretrained(tmp_path / "gs.pt", dtype=torch.bfloat16)
    assert loaded.out_layer.weight.dtype == torch.bfloat16
    # A constant keeps its precision: the release rounds it too, and moves every Gaussian by that.
    assert torch.equal(loaded.offset_perturbation, state["offset_perturbation"])
    del state["out_layer.bias"]
    torch.save(state, tmp_path / "short.pt")
    with pytest.raises(CheckpointError, match=r"short\.pt.*1 missing: out_layer\.bias"):
        GaussianDecoder.from_pretrained(tmp_path / "short.pt")


@pytest.mark.parametrize(
    ("voxels", "lengths", "said"),
    [
        (torch.zeros(3, 3), [2], "lengths sum to L"),
        (torch.full((2, 3), 64), [2], "must lie in 0 to 63"),
        (torch.full((2, 3), -1), [2], "must lie in 0 to 63"),
    ],
)
def test_what_does_not_fit_is_said(tiny: GaussianDecoder, voxels: torch.Tensor, lengths: list[int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        tiny(torch.zeros(2, TINY.channels), voxels, lengths)
