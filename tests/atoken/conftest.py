"""A model small enough to run in milliseconds, items to feed it, and the golden files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from atoken.config import ATokenConfig, FSQConfig, TransformerConfig
from atoken.tokenizer import AToken

Item = np.ndarray[Any, Any]


def tiny_config(**changes: Any) -> ATokenConfig:
    half = TransformerConfig(width=32, blocks=2, heads=2, mlp=48)
    return ATokenConfig(**{"name": "tiny", "encoder": half, "decoder": half, "latent_channels": 48} | changes)


def build(config: ATokenConfig) -> AToken:
    """Seeded weights, large enough that a wrong neighbour changes a result visibly."""
    torch.manual_seed(0)
    model = AToken(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors here are tiny: threads would spend their time waiting for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny() -> AToken:
    return build(tiny_config())


@pytest.fixture(scope="session")
def tiny_fsq() -> AToken:
    return build(tiny_config(name="tiny-fsq", quantizer=FSQConfig()))


@pytest.fixture(scope="session")
def noise() -> Callable[..., Item]:
    """noise(h, w) is an image, noise(t, h, w) a video; uint8, the same for the same arguments."""

    def make(*size: int, seed: int = 0) -> Item:
        return np.random.default_rng([seed, *size]).integers(0, 256, (*size, 3), dtype=np.uint8)

    return make


@dataclass(frozen=True)
class Golden:
    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    def json(self, key: str) -> Any:
        return json.loads(self.metadata[key])

    def items(self) -> list[Tensor]:
        return [self.tensors[f"in/raw_{i}"].float() for i in range(len(self.json("task_types")))]

    def model(self) -> AToken:
        arch = self.json("arch_cfg")
        halves = {
            half: TransformerConfig(
                width=arch[f"{half}_model_channels"],
                blocks=arch[f"{half}_num_blocks"],
                heads=arch[f"{half}_num_heads"],
                mlp=arch[f"{half}_mlp_channels"],
            )
            for half in ("encoder", "decoder")
        }
        quantizer = FSQConfig() if arch.get("use_quantizer") else None
        config = ATokenConfig(name="golden", latent_channels=arch["latent_channels"], quantizer=quantizer, **halves)
        model = AToken(config).eval()
        weights = {k.removeprefix("weights/"): v.float() for k, v in self.tensors.items() if k.startswith("weights/")}
        model.load_state_dict(weights, strict=True)
        return model


@pytest.fixture
def golden(shared: Path) -> Callable[[str], Golden]:
    def load(name: str) -> Golden:
        path = shared / "reference" / "golden" / f"{name}.safetensors"
        if not path.is_file():
            pytest.skip(f"needs {path.name} of the golden files")
        with safe_open(path, "pt") as file:
            return Golden({key: file.get_tensor(key) for key in file.keys()}, file.metadata())  # noqa: SIM118

    return load
