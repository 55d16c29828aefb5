"""Our I3D against torch's and torchvision's parts, and against the same layers said in another way."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from i3d_files import Other, Program, random_state, save_program, small_program, vouched
from metric_inputs import images
from torch import Tensor
from torch.nn import functional
from torchvision.models import googlenet

from harness.errors import BenchError
from harness.metrics.i3d import FEATURES, MIN_FRAMES, SIDE, I3d, _MaxPool, _same, crop
from harness.metrics.i3d_detectors import load_detector, load_network, load_script

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return random_state()


@pytest.fixture(scope="module")
def state_file(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("i3d") / "i3d_pretrained_400.pt"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def clip() -> Tensor:
    return crop(images(MIN_FRAMES, 40, 56))


# --- the frames -------------------------------------------------------------------------------------------------


def textbook_crop(frame: np.ndarray) -> np.ndarray:
    """Bilinear with half-pixel centres, centre crop and scaling, by their definitions in float64. ``[3, H, W]``."""
    height, width = frame.shape[1:]
    scale = 224 / min(height, width)
    size = (224, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), 224)
    out = frame / 255.0
    for axis, (old, new) in enumerate(zip((height, width), size, strict=True), start=1):
        at = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, old - 1)
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        out = out.take(low, axis=axis) * (1 - share) + out.take(high, axis=axis) * share
    top, left = (size[0] - 224) // 2, (size[1] - 224) // 2
    return (out[:, top : top + 224, left : left + 224] - 0.5) * 2


@pytest.mark.parametrize(("height", "width"), [(48, 65), (225, 224), (224, 224), (231, 400), (301, 77), (211, 211)])
def test_crop_is_bilinear_resizing_of_the_shorter_side_and_the_centre(height: int, width: int) -> None:
    frames = images(2, height, width)
    found = crop(frames)
    assert found.dtype == torch.float32
    expected = np.stack([textbook_crop(frame.numpy().astype(np.float64)) for frame in frames])
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)


def test_crop_is_torchs_resizing_of_the_whole_clip_at_once() -> None:
    """Channels first and all frames in one call, divided in float64: how TokenBench lays it out."""
    frames = images(19, 50, 91)
    whole = torch.from_numpy(frames.permute(1, 0, 2, 3).numpy() / 255.0).float()
    size = (SIDE, math.ceil(91 * (SIDE / 50)))
    left = (size[1] - SIDE) // 2
    expected = (functional.interpolate(whole, size=size, mode="bilinear")[..., left : left + SIDE] - 0.5) * 2
    assert torch.equal(crop(frames), expected.transpose(0, 1))


def test_every_grey_value_is_divided_as_in_float64() -> None:
    grey = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(-1, 3, 1, 1)
    expected = (torch.from_numpy(np.arange(256) / 255.0).float() - 0.5) * 2
    assert torch.equal(crop(grey)[:, 0, 100, 100], expected)


# --- the layers -------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=3, max_size=3),
    st.lists(st.integers(1, 7), min_size=3, max_size=3),
    st.lists(st.integers(1, 3), min_size=3, max_size=3),
)
def test_padding_is_tensorflows_same(sizes: list[int], kernels: list[int], strides: list[int]) -> None:
    """Its definition: outputs are ceil(size / stride), and of what that wants beyond the input half lies before."""
    kernel, stride = (kernels[0], kernels[1], kernels[2]), (strides[0], strides[1], strides[2])
    x = torch.rand(1, 2, *sizes)
    padded = _same(x, kernel, stride)
    pooled = _MaxPool(kernel, stride)(x)
    assert pooled.shape[2:] == tuple(-(-size // step) for size, step in zip(sizes, stride, strict=True))
    for axis in range(3):
        total = padded.shape[2 + axis] - sizes[axis]
        # Never a zero that no window sees, but where windows skip inputs.
        assert total == max((pooled.shape[2 + axis] - 1) * strides[axis] + kernels[axis] - sizes[axis], 0)
    corner = tuple((p - s) // 2 for p, s in zip(padded.shape[2:], sizes, strict=True))
    inside = (slice(None), slice(None), *(slice(c, c + s) for c, s in zip(corner, sizes, strict=True)))
    assert torch.equal(padded[inside], x)
    assert padded.sum() == pytest.approx(x.sum().item(), rel=1e-5)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_padding_is_torchs_own_same_where_the_stride_is_one(kernel: int) -> None:
    x, weight = torch.rand(1, 2, 5, 6, 7), torch.rand(3, 2, kernel, kernel, kernel)
    expected = functional.conv3d(x, weight, padding="same")
    torch.testing.assert_close(functional.conv3d(_same(x, (kernel,) * 3, (1, 1, 1)), weight), expected)


def test_widths_are_googlenets() -> None:
    """I3D is Inception-v1 inflated: the same channels in every branch as torchvision's."""
    with torch.device("meta"):
        ours = I3d().state_dict()
        theirs = googlenet(init_weights=False, aux_logits=False).state_dict()
    branches = {
        "b0": "branch1",
        "b1a": "branch2.0",
        "b1b": "branch2.1",
        "b2a": "branch3.0",
        "b2b": "branch3.1",
        "b3b": "branch4.1",
    }
    names = {"Conv3d_1a_7x7": "conv1", "Conv3d_2b_1x1": "conv2", "Conv3d_2c_3x3": "conv3"}
    for block in ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c"):
        # Tensorflow counts the pooling before a group as its "a".
        inception = f"inception{block[0]}{chr(ord(block[1]) - 1)}"
        names |= {f"Mixed_{block}.{ours_}": f"{inception}.{theirs_}" for ours_, theirs_ in branches.items()}
    for name, other in names.items():
        inflated = ours[f"{name}.conv3d.weight"].shape
        assert inflated[:2] == theirs[f"{other}.conv.weight"].shape[:2], name
        assert len(set(inflated[2:])) == 1
    assert len(names) + 1 == sum(name.endswith("conv3d.weight") for name in ours)
    # The parameters and stored statistics of piergiaj's pytorch-i3d, counted there.
    assert sum(value.numel() for value in ours.values()) == 12_711_824


def test_network_equals_its_layers_said_one_by_one(state_file: Path, state: dict[str, Tensor], clip: Tensor) -> None:
    """With torch's batch norm, and minus infinity around what is pooled, as Tensorflow has it."""

    def around(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], value: float) -> Tensor:
        for axis, (k, s) in enumerate(zip(kernel, stride, strict=True), start=2):
            size = x.shape[axis]
            total = max(k - s if size % s == 0 else k - size % s, 0)
            edges = [(0, 0), (0, 0), (0, 0)]
            edges[axis - 2] = (total // 2, total - total // 2)
            x = functional.pad(x, [edge for pair in reversed(edges) for edge in pair], value=value)
        return x

    def unit(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.conv3d.weight"]
        x = functional.conv3d(around(x, weight.shape[2:], (stride,) * 3, 0), weight, stride=stride)
        norm = [state[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return functional.relu(functional.batch_norm(x, *norm, eps=1e-3))

    def pool(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
        return functional.max_pool3d(around(x, kernel, stride, -math.inf), kernel, stride)

    def mixed(x: Tensor, name: str) -> Tensor:
        return torch.cat(
            [
                unit(x, f"{name}.b0"),
                unit(unit(x, f"{name}.b1a"), f"{name}.b1b"),
                unit(unit(x, f"{name}.b2a"), f"{name}.b2b"),
                unit(pool(x, (3, 3, 3), (1, 1, 1)), f"{name}.b3b"),
            ],
            dim=1,
        )

    x = unit(clip.transpose(0, 1)[None], "Conv3d_1a_7x7", 2)
    x = unit(unit(pool(x, (1, 3, 3), (1, 2, 2)), "Conv3d_2b_1x1"), "Conv3d_2c_3x3")
    x = mixed(mixed(pool(x, (1, 3, 3), (1, 2, 2)), "Mixed_3b"), "Mixed_3c")
    x = pool(x, (3, 3, 3), (2, 2, 2))
    for block in "bcdef":
        x = mixed(x, f"Mixed_4{block}")
    x = mixed(mixed(pool(x, (2, 2, 2), (2, 2, 2)), "Mixed_5b"), "Mixed_5c")
    x = functional.avg_pool3d(x, (2, 7, 7), stride=1)
    weight, bias = state["logits.conv3d.weight"], state["logits.conv3d.bias"]
    expected = torch.einsum("fc,nct->nft", weight[:, :, 0, 0, 0], x[:, :, :, 0, 0]) + bias[None, :, None]
    found = load_detector("state-dict", vouched(state_file), CPU)(clip)
    assert found.shape == (FEATURES,)
    assert found.std() > 0.1
    np.testing.assert_allclose(found, expected[0].mean(dim=1).numpy(), atol=2e-5 * found.std(), rtol=1e-4)


def test_nine_frames_are_the_fewest() -> None:
    with torch.device("meta"):
        network = I3d().eval().requires_grad_(False)
        for frames in (MIN_FRAMES, 10, 16, 17, 300):
            assert network(torch.empty(1, 3, frames, SIDE, SIDE)).shape == (1, FEATURES)
        with pytest.raises(RuntimeError):
            network(torch.empty(1, 3, MIN_FRAMES - 1, SIDE, SIDE))


# --- the files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("counters", [True, False])
def test_state_dicts_of_both_lineages_load(
    state: dict[str, Tensor], tmp_path: Path, *, archive: bool, counters: bool
) -> None:
    """VideoGPT's was written without the counters that newer torch adds; older files are pickles, not archives."""
    content = dict(state)
    if counters:
        content |= {
            name.replace("running_mean", "num_batches_tracked"): torch.tensor(7)
            for name in state
            if name.endswith("running_mean")
        }
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=archive)
    loaded = load_network(vouched(tmp_path / "x.pt")).state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('the file ran code')",)


def test_wrong_state_dicts_get_one_line(state: dict[str, Tensor], state_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    renamed = {f"module.{name}": value for name, value in state.items()}
    missing = {name: value for name, value in state.items() if name != "logits.conv3d.bias"}
    flow = {**state, "Conv3d_1a_7x7.conv3d.weight": torch.zeros(64, 2, 7, 7, 7)}
    cases: list[tuple[object, str]] = [
        (renamed, "not the weights it is called after"),
        (missing, "missing logits.conv3d.bias"),
        (flow, r"Conv3d_1a_7x7.conv3d.weight is \(64, 2, 7, 7, 7\), not \(64, 3, 7, 7, 7\)"),
        ([1], "holds a list, not a state dict"),
    ]
    for content, reason in cases:
        torch.save(content, path)
        with pytest.raises(BenchError, match=reason) as caught:
            load_network(vouched(path))
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)
    for broken in (b"", state_file.read_bytes()[:100_000], pickle.dumps(_Code(), protocol=2)):
        path.write_bytes(broken)
        with pytest.raises(BenchError, match="not a weights file that can be read safely") as caught:
            load_network(vouched(path))
        assert "\n" not in str(caught.value)


def test_program_is_called_as_tokenbench_calls_it(tmp_path: Path, clip: Tensor) -> None:
    file = small_program(tmp_path / "i3d_torchscript.pt")
    detect = load_detector("styleganv", file, CPU)
    found = detect(clip)
    assert found.shape == (FEATURES,)
    assert found.dtype == np.float32
    assert found[-2:].tolist() == [0, 1]
    torch.manual_seed(0)
    expected = Program()(clip.transpose(0, 1)[None])[0].detach().numpy()
    np.testing.assert_allclose(found[:-2], expected[:-2], rtol=1e-5, atol=1e-6)
    # The third call is the one that torch would optimise by what it saw in the first two.
    assert all(np.array_equal(detect(clip), found) for _ in range(3))


def test_only_the_bytes_that_were_vouched_for_are_run(tmp_path: Path) -> None:
    path = tmp_path / "i3d_torchscript.pt"
    file = small_program(path)
    small_program(path, seed=1)
    with pytest.raises(BenchError, match=r"i3d_torchscript\.pt: has changed since it was checked"):
        load_script(file)


def test_wrong_programs_get_one_line(state_file: Path, tmp_path: Path, clip: Tensor) -> None:
    path = tmp_path / "x.pt"
    whole = small_program(path).path.read_bytes()
    for content in (
        b"",
        b"no archive",
        whole[: len(whole) // 2],
        state_file.read_bytes(),
        pickle.dumps(_Code(), protocol=2),
    ):
        path.write_bytes(content)
        with pytest.raises(BenchError, match=r"x\.pt: no TorchScript program") as caught:
            load_script(vouched(path))
        assert "\n" not in str(caught.value)
    with pytest.raises(BenchError, match=r"not StyleGAN-V's I3D: it takes \(x\), not \(x, rescale, resize, return_fe"):
        load_script(save_program(Other(), path))
    few = load_detector("styleganv", save_program(Program(features=7), path), CPU)
    with pytest.raises(BenchError, match=r"x\.pt: gave \(1, 7\) for a clip, not 400 features"):
        few(clip)
