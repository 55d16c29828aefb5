"""Embedders that are simple or broken: a picture's vector is its mean colour, a text's comes from its hash."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from atoken.errors import InputError
from harness.data.base import Sample
from harness.embedders.base import Embedder, EmbedderCard, TextReader, unit
from harness.plan import Plan, Settings
from harness.protocol import EmbedRules, MetricSpec, Protocol
from harness.understanding.measures import build_embedding_metrics
from harness.understanding.texts import texts_software
from tests.harness.fakes import Noise

WIDTH = 8
COLOURS = ("red", "green", "blue")


def text_vector(text: str) -> np.ndarray:
    """A colour's name says the colour; whatever else a text has is noise from its hash."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).normal(size=WIDTH) * 0.1
    for place, colour in enumerate(COLOURS):
        vector[place] += colour in text
    return vector


class Colours(Embedder):
    """Counts what it is asked.

    Args:
        refuses: the side of images that it cannot take.
    """

    def __init__(self, name: str = "colours", *, refuses: int | None = None, text: bool = True) -> None:
        reader = TextReader(name="hash", fingerprint=hashlib.sha256(b"hash").hexdigest())
        self.card = EmbedderCard(name=name, title=name, width=WIDTH, text=reader if text else None)
        self.refuses = refuses
        self.images: list[int] = []
        self.texts: list[str] = []

    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        if any(self.refuses in image.shape for image in images):
            raise InputError(f"a side of {self.refuses}")
        self.images.append(len(images))
        vectors = np.zeros((len(images), WIDTH))
        for row, image in zip(vectors, images, strict=True):
            row[:3] = image.astype(np.float64).mean((0, 1)) - 100
            row[3] = 1.0
        return unit(vectors)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        self.texts += texts
        return unit(np.stack([text_vector(text) for text in texts]))


class Stuck(Colours):
    """Stops at its third batch where the test says so in the environment, so that it is met at work."""

    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        if len(self.images) == 2 and "STUCK" in os.environ:
            time.sleep(300)
        return super().embed_images(images)


class Broken(Colours):
    """Gives what the contract does not allow."""

    def __init__(self, made: Any) -> None:
        super().__init__("broken")
        self.made = made

    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        vectors: np.ndarray = self.made(super().embed_images(images))
        return vectors


def create(argument: str | None, *, device: str, dtype: str) -> Colours:
    return Colours(argument or "colours")


def create_stuck(argument: str | None, *, device: str, dtype: str) -> Stuck:
    return Stuck()


def create_textless(argument: str | None, *, device: str, dtype: str) -> Colours:
    return Colours(text=False)


class Tinted(Noise):
    """Noise, each image tinted in its colour, which is its class."""

    name, title = "tinted", "Tinted noise"
    class_names = COLOURS

    def read(self, index: int) -> Any:
        decoded = super().read(index)
        pixels = decoded.pixels.astype(np.int64) // 2
        pixels[..., index % 3] += 60
        return type(decoded)(np.asarray(pixels, np.uint8), decoded.sha256)


class Relabelled(Tinted):
    """The same images, whose labels have been shifted by one."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self._samples = [Sample(sample.id, ((sample.label or 0) + 1) % 3) for sample in self._samples]


def protocol(**changes: Any) -> Protocol:
    content: dict[str, Any] = {
        "name": "tiny",
        "experiment": "image-classify",
        "version": 1,
        "title": "tiny",
        "source": "tests",
        "prepare": "rgb|native",
        "latent": "mean",
        "seed": 7,
        "eight_bit": "half-up",
        "bootstrap": 20,
        "expected": {},
        "metrics": (
            MetricSpec(metric="top-k", name="top-1", options={"k": 1}),
            MetricSpec(metric="top-k", name="top-2", options={"k": 2}),
            MetricSpec(metric="class-mean", name="mean per-class accuracy"),
        ),
        "embed": EmbedRules(side=16, templates="own"),
    }
    return Protocol(**{**content, **changes})


def plan(**changes: Any) -> Plan:
    """A plan of the stand-ins; settings that differ from the defaults go in as `settings`."""
    rules = changes.get("protocol", protocol())
    dataset = changes.get("dataset", Tinted(10))
    parts: dict[str, Any] = {
        "experiment": "image-classify",
        "spec": "fakes:colours",
        "tokenizer": Colours(),
        "dataset": dataset,
        "protocol": rules,
        "metrics": build_embedding_metrics(rules)[0],
        "software": {"source": "1", **texts_software(dataset, rules)},
    }
    settings = {"token_budget": 3, "shard_size": 4, **changes.pop("settings", {})}
    return Plan(**{**parts, **changes, "settings": Settings(**settings)})
