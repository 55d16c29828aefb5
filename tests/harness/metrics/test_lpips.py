"""LPIPS against the package itself, with random trunks in torchvision's file format."""

from __future__ import annotations

import hashlib
import warnings
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from metric_inputs import disturbed, images, pairs_of

from harness.errors import BenchError
from harness.metrics.base import Pairs
from harness.metrics.lpips import SMALLEST, Lpips
from harness.weights import ALEXNET, VGG16, Found, WeightStore

FILES = {"vgg": VGG16, "alex": ALEXNET}
CPU = torch.device("cpu")


def unrounded(pairs: Pairs) -> Pairs:
    """The same images as a tokenizer gives them: not rounded, and in places beyond [-1, 1]."""
    noise = torch.randn(pairs.reconstruction.shape, generator=torch.Generator().manual_seed(3)) * 0.1
    return Pairs(
        reference=pairs.reference,
        reconstruction=pairs.reconstruction + noise,
        reference_u8=pairs.reference_u8,
        reconstruction_u8=pairs.reconstruction_u8,
        tokens=pairs.tokens,
    )


def metric(cache: Path, net: str, image: str = "float") -> Lpips:
    return Lpips(
        name="LPIPS", resamples=0, trunk=WeightStore([cache]).find(FILES[net]), device=CPU, net=net, input=image
    )


@pytest.mark.parametrize("net", FILES)
def test_equals_the_package(net: str, torch_home: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lpips

    monkeypatch.setenv("TORCH_HOME", str(torch_home))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = lpips.LPIPS(net=net, verbose=False)
    pairs = unrounded(pairs_of(images(3, 48, 40), disturbed(images(3, 48, 40))))
    inputs = {
        "float": (pairs.reference, pairs.reconstruction),
        "clamped": (pairs.reference, pairs.reconstruction.clamp(-1, 1)),
        "8bit": tuple(image.float() / 127.5 - 1 for image in (pairs.reference_u8, pairs.reconstruction_u8)),
    }
    seen = []
    for name, (x, y) in inputs.items():
        values = metric(cache, net, name).update(pairs)[0]["LPIPS"]
        with torch.no_grad():
            expected = [package(x[i : i + 1], y[i : i + 1]).item() for i in range(3)]
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6)
        assert min(expected) > 1e-3
        seen.append(tuple(values))
    assert len(set(seen)) == 3


@pytest.mark.parametrize("net", FILES)
def test_identity_symmetry_and_independence_of_batch_mates(net: str, cache: Path) -> None:
    a, b = images(3, 40, 44), disturbed(images(3, 40, 44))
    lpips = metric(cache, net)
    values = lpips.update(pairs_of(a, b))[0]["LPIPS"]
    np.testing.assert_array_equal(lpips.update(pairs_of(a, a))[0]["LPIPS"], 0)
    np.testing.assert_allclose(lpips.update(pairs_of(b, a))[0]["LPIPS"], values, atol=1e-6)
    alone = [lpips.update(pairs_of(a[i : i + 1], b[i : i + 1]))[0]["LPIPS"][0] for i in range(3)]
    np.testing.assert_allclose(alone, values, atol=1e-6)


@pytest.mark.parametrize("net", FILES)
def test_smallest_image_has_a_value_and_a_smaller_one_has_none(net: str, cache: Path) -> None:
    side = SMALLEST[net]
    lpips = metric(cache, net)
    for shape in ((side, side + 20), (side + 20, side)):
        a = images(1, *shape)
        assert np.isfinite(lpips.update(pairs_of(a, disturbed(a)))[0]["LPIPS"]).all()
    a = images(2, side - 1, side + 20)
    assert np.isnan(lpips.update(pairs_of(a, a))[0]["LPIPS"]).all()
    cell = lpips.cells({"LPIPS": np.array([np.nan, np.nan])}, {}, seed=0)[0]
    assert cell.absent == f"image smaller than {side}x{side}"


def test_unofficial_weights_are_named_in_cell_and_parameters(cache: Path) -> None:
    lpips = metric(cache, "alex")
    cell = lpips.cells({"LPIPS": np.array([0.1, 0.3])}, {}, seed=0)[0]
    assert cell.name == "LPIPS (unofficial weights)"
    assert cell.parameters["official"] is False
    assert cell.parameters["weights"][ALEXNET.name] == hashlib.sha256((cache / ALEXNET.name).read_bytes()).hexdigest()
    assert lpips.columns == ("LPIPS",)


def test_heads_are_those_that_taming_transformers_publishes() -> None:
    heads = (resources.files("lpips") / "weights" / "v0.1" / "vgg.pth").read_bytes()
    assert hashlib.md5(heads).hexdigest() == "d507d7349b931f0638a25a48a722f98a"


def test_wrong_files_are_refused(tmp_path: Path, cache: Path) -> None:
    def build(path: Path) -> Lpips:
        return Lpips(name="LPIPS", resamples=0, trunk=Found(path, "0", official=False), device=CPU, net="vgg")

    with pytest.raises(BenchError, match=r"alexnet.*not the weights it is called after: .*missing"):
        build(cache / ALEXNET.name)
    state = torch.load(cache / VGG16.name, weights_only=True)
    state["features.0.weight"] = state["features.0.weight"][:, :2]
    torch.save(state, tmp_path / "shape.pth")
    with pytest.raises(BenchError, match=r"shape.pth.*features\.0\.weight is \(64, 2, 3, 3\), not \(64, 3, 3, 3\)"):
        build(tmp_path / "shape.pth")
    (tmp_path / "cut.pth").write_bytes((cache / VGG16.name).read_bytes()[:1000])
    with pytest.raises(BenchError, match=r"cut\.pth: not a weights file"):
        build(tmp_path / "cut.pth")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("ran"),)  # type: ignore[return-value]


def test_a_pickle_that_wants_to_run_code_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"features.0.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(BenchError, match=r"evil\.pth: not a weights file that can be read safely"):
        Lpips(name="LPIPS", resamples=0, trunk=Found(tmp_path / "evil.pth", "0", official=False), device=CPU)
    assert not (tmp_path / "ran").exists()


def test_an_input_that_does_not_exist_is_refused(cache: Path) -> None:
    trunk = Found(cache / VGG16.name, "0", official=False)
    with pytest.raises(BenchError, match="LPIPS of input 'png'; there are: float, clamped, 8bit"):
        Lpips(name="LPIPS", resamples=0, trunk=trunk, device=CPU, input="png")
