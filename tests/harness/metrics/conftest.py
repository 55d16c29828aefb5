"""Random trunks in the published files' format, vouched for as unofficial weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness.weights import ALEXNET, INCEPTION, VGG16


def vouch(path: Path) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{digest}  {path.name}\n")


@pytest.fixture(scope="session")
def torch_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``$TORCH_HOME`` whose cache holds random weights in the format and under the names of the real files."""
    from torch_fidelity import feature_extractor_inceptionv3
    from torchvision import models

    home = tmp_path_factory.mktemp("torch")
    cache = home / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    builders: dict[str, Callable[[], torch.nn.Module]] = {VGG16.name: models.vgg16, ALEXNET.name: models.alexnet}
    torch.manual_seed(0)
    for name, builder in builders.items():
        with torch.device("meta"):
            shapes = {key: value.shape for key, value in builder().state_dict().items()}
        # The classifier is never used: one number expanded to its shape keeps the file small.
        state = {
            key: torch.randn(shape) * (2 / max(1, shape[1:].numel())) ** 0.5
            if key.startswith("features")
            else torch.zeros(1).expand(shape)
            for key, shape in shapes.items()
        }
        torch.save(state, cache / name)
        vouch(cache / name)

    class Skeleton(feature_extractor_inceptionv3.FeatureExtractorInceptionV3):  # type: ignore[misc]
        def __init__(self) -> None:
            self.load_state_dict = lambda state: None
            super().__init__("inception-v3-compat", ["2048"], feature_extractor_weights_path=cache / VGG16.name)

    network = Skeleton()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    torch.nn.init.normal_(network.fc.weight, std=0.05)
    torch.save(network.state_dict(), cache / INCEPTION.name)
    vouch(cache / INCEPTION.name)
    return home


@pytest.fixture(scope="session")
def cache(torch_home: Path) -> Path:
    """The folder in which the random trunks lie."""
    return torch_home / "hub" / "checkpoints"
