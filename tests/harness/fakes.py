"""Small stand-ins: a dataset in memory, tokenizers that are simple or broken, metrics that are exact."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.data.base import Decoded, ImageSource, Sample, SampleError
from harness.errors import BenchError
from harness.metrics.base import Cell, Metric, Pairs
from harness.plan import Plan, Settings
from harness.protocol import MetricSpec, Protocol
from harness.tokenizers.base import Encoded, LatentMode, Tokenizer, TokenizerCard


class Noise(ImageSource):
    """Random images, the same for everyone who asks for the same count and seed.

    Args:
        broken: indices that cannot be read.
        sizes: ``(H, W)`` in turn.
    """

    name, title, credits = "noise", "Noise", "random"

    def __init__(
        self,
        count: int,
        *,
        broken: Sequence[int] = (),
        sizes: Sequence[tuple[int, int]] = ((16, 16),),
        seed: int = 0,
        expected: int | None = None,
    ) -> None:
        self.expected = expected
        self._samples = [Sample(f"noise/{index:05d}.png", index % 3) for index in range(count)]
        self._broken, self._sizes, self._seed = frozenset(broken), sizes, seed
        self.reads = 0

    @property
    def samples(self) -> Sequence[Sample]:
        return self._samples

    def read(self, index: int) -> Decoded:
        self.reads += 1
        if index in self._broken:
            raise SampleError(self._samples[index].id, "truncated")
        height, width = self._sizes[index % len(self._sizes)]
        pixels = np.random.default_rng([self._seed, index]).integers(0, 256, (height, width, 3), np.uint8)
        return Decoded(pixels, hashlib.sha256(pixels.tobytes()).hexdigest())

    def stamp(self, index: int) -> str:
        return f"{self._seed}-{index}"


class Blur(Tokenizer):
    """Keeps each patch's mean; a sampled latent adds noise from the seed. Counts what it is asked.

    Args:
        batch_noise: break the contract on purpose: let the batch's size move the result.
    """

    def __init__(self, patch: int = 4, *, multiple: int = 1, batch_noise: bool = False) -> None:
        self.card = TokenizerCard(
            name=f"blur-{patch}",
            title="blur",
            token_type="transform",
            compression=(1, patch, patch),
            latent_size=3,
            multiple=(multiple, multiple),
            latent_modes=("mean", "sample"),
        )
        self.patch, self.batch_noise = patch, batch_noise
        self.batches: list[int] = []

    def encode(self, images: Sequence[Tensor], *, latent: LatentMode, seeds: Sequence[int]) -> Encoded:
        self.batches.append(len(images))
        payload = []
        for image, seed in zip(images, seeds, strict=True):
            means = torch.nn.functional.avg_pool2d(image, self.patch, ceil_mode=True)
            if latent == "sample":
                means = means + 0.1 * torch.randn(means.shape, generator=torch.Generator().manual_seed(seed))
            if self.batch_noise:
                means = means + 0.01 * len(images)
            payload.append((means, image.shape[1:]))
        return Encoded(payload=payload, tokens=[means[0].numel() for means, _ in payload])

    def decode(self, encoded: Encoded) -> list[Tensor]:
        return [
            means.repeat_interleave(self.patch, 1).repeat_interleave(self.patch, 2)[:, : size[0], : size[1]]
            for means, size in encoded.payload
        ]


class Fitted(Blur):
    """Looks at the set once: its setting is the number of images and their mean grey."""

    needs_prepare = True

    def __init__(self) -> None:
        super().__init__()
        self.searches = 0

    def prepare(self, pixels: Iterable[np.ndarray]) -> None:
        self.searches += 1
        means = [float(image.mean()) for image in pixels]
        self.restore({"images": len(means), "grey": sum(means) / len(means)})

    def restore(self, settings: Mapping[str, Any]) -> None:
        self.card = replace(self.card, settings=dict(settings))

    def decode(self, encoded: Encoded) -> list[Tensor]:
        grey = float(self.card.settings["grey"])
        return [image * (grey / 255) for image in super().decode(encoded)]


class Poison(Blur):
    """NaN in every reconstruction, as from NaN weights."""

    def decode(self, encoded: Encoded) -> list[Tensor]:
        return [image * float("nan") for image in super().decode(encoded)]


class Psnr(Metric):
    columns = ("PSNR",)
    higher_is_better = True

    def update(self, pairs: Pairs) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        difference = pairs.reference_u8.double() - pairs.reconstruction_u8.double()
        mse = difference.square().flatten(1).mean(1).numpy()
        with np.errstate(divide="ignore"):
            return {"PSNR": 10 * np.log10(255**2 / mse)}, {}

    def cells(self, table: Mapping[str, np.ndarray], features: Mapping[str, np.ndarray], *, seed: int) -> list[Cell]:
        values = table["PSNR"]
        picks = np.random.default_rng(seed).integers(0, len(values), (20, len(values)))
        low, high = np.quantile(values[picks].mean(1), [0.025, 0.975])
        interval = (float(low), float(high))
        return [Cell(name="PSNR", value=float(values.mean()), interval=interval, n=len(values), higher_is_better=True)]


class MeanColour(Metric):
    """A metric of features: the distance between the mean colours of both sides of the whole run."""

    higher_is_better = False

    def update(self, pairs: Pairs) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        return {}, {
            "colour_reference": pairs.reference.mean((2, 3)).numpy(),
            "colour_reconstruction": pairs.reconstruction.mean((2, 3)).numpy(),
        }

    def cells(self, table: Mapping[str, np.ndarray], features: Mapping[str, np.ndarray], *, seed: int) -> list[Cell]:
        one, other = features["colour_reference"], features["colour_reconstruction"]
        distance = float(np.linalg.norm(one.mean(0, dtype=np.float64) - other.mean(0, dtype=np.float64)))
        return [Cell(name="colour", value=distance, n=len(one), higher_is_better=False)]


def protocol(**changes: Any) -> Protocol:
    content: dict[str, Any] = {
        "name": "tiny",
        "experiment": "image-recon",
        "version": 1,
        "title": "tiny",
        "source": "tests",
        "prepare": "rgb|native",
        "latent": "mean",
        "seed": 7,
        "eight_bit": "half-up",
        "bootstrap": 20,
        "expected": {},
        "metrics": (MetricSpec(metric="psnr", name="PSNR"),),
    }
    return Protocol(**{**content, **changes})


def plan(**changes: Any) -> Plan:
    """A plan of the stand-ins; settings that differ from the defaults go in as `settings`."""
    parts: dict[str, Any] = {
        "experiment": "image-recon",
        "spec": "fakes:blur",
        "tokenizer": Blur(),
        "dataset": Noise(10),
        "protocol": protocol(),
        "metrics": [Psnr(), MeanColour()],
        "software": {"source": "1"},
    }
    settings = {"token_budget": 64, "shard_size": 4, **changes.pop("settings", {})}
    return Plan(**{**parts, **changes, "settings": Settings(**settings)})


class Stuck(Blur):
    """Stops at its third batch where the test says so in the environment, so that it is met at work."""

    def decode(self, encoded: Encoded) -> list[Tensor]:
        if len(self.batches) == 3 and "STUCK" in os.environ:
            time.sleep(300)
        return super().decode(encoded)


def create_poison(argument: str | None, *, device: str, dtype: str) -> Poison:
    return Poison()


def create_stuck(argument: str | None, *, device: str, dtype: str) -> Stuck:
    return Stuck()


class RankOneFails(Blur):
    """Works in every process but the one with rank 1."""

    def encode(self, images: Sequence[Tensor], *, latent: LatentMode, seeds: Sequence[int]) -> Encoded:
        if os.environ.get("RANK") == "1":
            raise BenchError("rank 1 is out of order")
        return super().encode(images, latent=latent, seeds=seeds)


def create_rank_one_fails(argument: str | None, *, device: str, dtype: str) -> RankOneFails:
    return RankOneFails()


def create_blur(argument: str | None, *, device: str, dtype: str) -> Blur:
    return Blur(int(argument or 4))


def create_none(argument: str | None, *, device: str, dtype: str) -> None:
    """A factory whose author forgot to return."""


def create_bare(argument: str | None) -> Blur:
    """A factory that cannot be told device and dtype."""
    return Blur(int(argument or 4))
