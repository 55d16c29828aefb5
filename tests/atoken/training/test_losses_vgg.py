"""The perceptual trunk: which files it takes, and which it refuses with one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from atoken.checkpoint import sha256_file
from atoken.errors import ATokenError, CheckpointError
from atoken.training.losses import VGG16Trunk, vgg

CLASSIFIER = {"0": (4096, 512 * 7 * 7), "3": (4096, 4096), "6": (1000, 4096)}


def _state(*, classifier: bool) -> dict[str, Tensor]:
    """torchvision's layout; each tensor one number, repeated, so that a file is small."""
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in VGG16Trunk(random_for_tests=0).state_dict().items()}
    if classifier:
        for index, shape in CLASSIFIER.items():
            shapes |= {f"classifier.{index}.weight": shape, f"classifier.{index}.bias": shape[:1]}
    return {key: torch.tensor(0.01 * place).expand(shape) for place, (key, shape) in enumerate(shapes.items())}


def _written(path: Path, state: object, *, vouched: bool = True) -> Path:
    torch.save(state, path)
    if vouched:
        path.with_name(path.name + ".sha256").write_text(f"{sha256_file(path).upper()}  {path.name}\n")
    return path


@pytest.mark.parametrize("classifier", [True, False])
def test_a_vouched_file_is_taken_with_and_without_its_classifier(tmp_path: Path, classifier: bool) -> None:
    state = _state(classifier=classifier)
    path = _written(tmp_path / "mine.pth", state)
    trunk = VGG16Trunk(path)
    assert not trunk.official
    assert trunk.sha256 == sha256_file(path)
    assert list(trunk.state_dict()) == [key for key in state if key.startswith("features.")]
    for key, value in trunk.state_dict().items():
        assert torch.equal(value, state[key])
    assert not any(weight.requires_grad for weight in trunk.parameters())


def test_the_published_file_is_known_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _written(tmp_path / "any-name.pth", _state(classifier=True), vouched=False)
    monkeypatch.setattr(vgg, "SHA256", sha256_file(path))
    assert VGG16Trunk(path).official


def test_the_published_hash_begins_as_the_files_name_says() -> None:
    assert f"vgg16-{vgg.SHA256[:8]}.pth" == vgg.FILE
    assert len(vgg.SHA256) == 64


def test_another_file_is_refused_unless_vouched_for(tmp_path: Path) -> None:
    path = _written(tmp_path / "mine.pth", _state(classifier=False), vouched=False)
    with pytest.raises(CheckpointError, match=r"mine\.pth: its SHA-256 is .*write its SHA-256 into mine\.pth\.sha256"):
        VGG16Trunk(path)
    path.with_name("mine.pth.sha256").write_text("")
    with pytest.raises(CheckpointError, match="get the file again"):
        VGG16Trunk(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"features.0.bias": None}, r"missing features\.0\.bias"),
        ({"features.31.weight": torch.zeros(2)}, r"unexpected features\.31\.weight"),
        ({"features.2.bias": torch.zeros(65)}, r"features\.2\.bias is \[65\], not \[64\]"),
        ({"classifier.6.bias": torch.zeros(10)}, r"classifier\.6\.bias is \[10\], not \[1000\]"),
        ({"features.2.bias": torch.full((64,), torch.nan)}, r"features\.2\.bias holds NaN"),
    ],
)
def test_wrong_contents_are_named(tmp_path: Path, change: dict[str, Tensor | None], told: str) -> None:
    state = {key: value for key, value in {**_state(classifier=True), **change}.items() if value is not None}
    with pytest.raises(CheckpointError, match=rf"mine\.pth: .*{told}"):
        VGG16Trunk(_written(tmp_path / "mine.pth", state))


def test_what_is_no_file_of_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ATokenError, match=r"gone\.pth: no such file; .*vgg16-397923af\.pth"):
        VGG16Trunk(tmp_path / "gone.pth")
    with pytest.raises(ATokenError, match="more than tensors"):
        VGG16Trunk(_written(tmp_path / "code.pth", {"features.0.weight": Path}))


def test_random_weights_come_only_when_asked_for() -> None:
    with pytest.raises(ValueError, match="a seed for tests"):
        VGG16Trunk()
    trunk = VGG16Trunk(random_for_tests=3)
    assert not trunk.official
    assert trunk.sha256 is None
    again = VGG16Trunk(random_for_tests=3)
    assert all(torch.equal(x, y) for x, y in zip(trunk.parameters(), again.parameters(), strict=True))


def test_the_maps_have_the_sizes_that_lpips_takes() -> None:
    images = torch.rand(2, 3, 48, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    maps = VGG16Trunk(random_for_tests=0)(images)
    assert [tuple(features.shape) for features in maps] == [
        (2, channels, 48 >> place, 32 >> place) for place, channels in enumerate(vgg.CHANNELS)
    ]
    assert all((features >= 0).all() for features in maps)
