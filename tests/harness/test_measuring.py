"""Who gets how many threads while a pack is measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from harness.loading import Prepared
from harness.measuring import Measurer
from harness.metrics.base import Cell, Features, Metric, Pairs
from harness.protocol import load
from harness.tokenizers.base import Encoded
from harness.tokenizers.identity import Identity


class Watched(Identity):
    """Says how many threads it had."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.threads: list[int] = []

    def encode(self, images: Sequence[torch.Tensor], **options: Any) -> Encoded:
        self.threads.append(torch.get_num_threads())
        return super().encode(images, **options)


class Counting(Metric):
    """Its one column is the number of threads that it had."""

    higher_is_better = True

    def __init__(self, name: str, weights: Mapping[str, str]) -> None:
        self.columns = (name,)
        self.weights = weights

    def update(self, pairs: Pairs) -> tuple[dict[str, np.ndarray], Features]:
        return {self.columns[0]: np.full(len(pairs.tokens), torch.get_num_threads(), float)}, {}

    def cells(self, table: Mapping[str, np.ndarray], features: Mapping[str, np.ndarray], *, seed: int) -> list[Cell]:
        return []


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_networks_get_all_threads_and_arithmetic_one() -> None:
    tokenizer = Watched()
    metrics = (Counting("plain", {}), Counting("network", {"trunk.pth": "0"}))
    measurer = Measurer(tokenizer, replace(load("image-recon", "paper"), latent="mean"), metrics, "cpu")
    item = Prepared("a", None, np.zeros((32, 32, 3), np.uint8), "0", (32, 32))
    columns = measurer.measure([item]).columns
    assert tokenizer.threads == [3]
    assert columns["plain"] == [1]
    assert columns["network"] == [3]
    assert torch.get_num_threads() == 3
