"""What a run compares its vectors with: classes by their sentences, or each sample's captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atoken.text.store import Store, text_keys
from harness.data.base import Dataset
from harness.data.captioned import captions_of, captions_sha256
from harness.embedders.base import Embedder
from harness.errors import BenchError
from harness.plan import digest, slug
from harness.protocol import Protocol
from harness.provenance import packages
from harness.understanding import templates

READING = ("transformers", "tokenizers", "open_clip_torch", "timm", "ftfy")
"""Packages that towers of texts and images run on."""
READ_AT_ONCE = 512
"""Texts between two writes of the store: a killed run reads no more than these again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Classes:
    """Classes of a dataset and the sentences that say them.

    Attributes:
        names: by label.
        templates: each with one ``{}``.
        labels: of every sample of the dataset, in its order.
    """

    names: tuple[str, ...]
    templates: tuple[str, ...]
    labels: tuple[int, ...]

    def facts(self) -> dict[str, Any]:
        """What a record says of them. ``texts_sha256`` is of names, templates and labels: two runs with the same
        value were asked the same question."""
        return {
            "classes": len(self.names),
            "templates": len(self.templates),
            "templates_sha256": digest(list(self.templates)),
            "texts_sha256": digest([list(self.names), list(self.templates), list(self.labels)]),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Captions:
    """The captions of every sample of a dataset, in its order."""

    captions: tuple[tuple[str, ...], ...]

    def facts(self) -> dict[str, Any]:
        """What a record says of them."""
        return {"captions": sum(map(len, self.captions)), "texts_sha256": captions_sha256(self.captions)}


def texts_of(dataset: Dataset, protocol: Protocol) -> Classes | Captions:
    """What samples of a dataset are compared with under a protocol.

    Raises:
        BenchError: a dataset without captions, labels or class names, a label that no class has, or templates that
            cannot be had here.
    """
    assert protocol.embed is not None  # who asks has seen that
    if protocol.embed.templates is None:
        return Captions(captions=tuple(tuple(texts) for texts in captions_of(dataset)))
    labels = tuple(sample.label for sample in dataset.samples)
    missing = [sample.id for sample in dataset.samples if sample.label is None]
    if missing:
        how = "; ".join(dataset.notes) or "a folder of class folders has them: --data classes=PATH"
        raise BenchError(f"{dataset.title} ({dataset.name}): {missing[0]} has no label to compare with ({how})")
    names = dataset.class_names
    if names is None and dataset.name.startswith("imagenet-"):
        names = templates.imagenet_names()  # the set's own wnids say nothing, and published figures stand on these
    if names is None:
        raise BenchError(
            f"{dataset.title} ({dataset.name}) does not say what its labels are called; take --data classes=PATH or "
            "parquet=PATH"
        )
    known = tuple(label for label in labels if label is not None)
    if known and not 0 <= min(known) <= max(known) < len(names):
        raise BenchError(
            f"{dataset.title} ({dataset.name}): labels from {min(known)} to {max(known)} for {len(names)} classes"
        )
    return Classes(names=tuple(names), templates=templates.templates(protocol.embed.templates), labels=known)


class TextVectors:
    """An embedder's text vectors, each text read once; itself what `atoken.text.class_vectors` takes.

    Args:
        cache: folder in which vectors are kept by the text tower's fingerprint and the text's hash; None for none.
    """

    def __init__(self, embedder: Embedder, cache: Path | None) -> None:
        self._embedder = embedder
        self._cache = cache

    @property
    def width(self) -> int:
        """Of the vectors."""
        return self._embedder.card.width

    @property
    def fingerprint(self) -> str:
        """Of the text tower."""
        reader = self._embedder.card.text
        if reader is None:
            raise textless(self._embedder)
        return reader.fingerprint

    @cached_property
    def _store(self) -> Store:
        if self._cache is None:
            return Store()
        reader = self._embedder.card.text
        name = "" if reader is None else reader.name
        about = {"name": name, "width": self.width, "fingerprint": self.fingerprint}
        return Store(self._cache / slug(f"{name}-{self.fingerprint[:16]}"), about)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors ``[N, width]``, float32.

        Raises:
            BenchError: no text tower, or one that breaks the contract.
            CheckpointError: a damaged file in the cache.
        """
        keys = text_keys(texts)
        vectors = self._store.find(keys)
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in vectors}
        fresh = list(new)
        for start in range(0, len(fresh), READ_AT_ONCE):
            part = fresh[start : start + READ_AT_ONCE]
            read = checked(self._embedder, self._embedder.embed_texts([new[key] for key in part]), len(part))
            made = dict(zip(part, torch.from_numpy(read), strict=True))
            self._store.add(made)
            vectors |= made
        return torch.stack([vectors[key] for key in keys]) if keys else torch.empty(0, self.width)


def texts_software(dataset: Dataset, protocol: Protocol) -> dict[str, Any]:
    """What of a run's basis is not its model's: the texts that samples are compared with, and what reads them.

    Raises:
        BenchError: as `texts_of`.
    """
    return {"texts": texts_of(dataset, protocol).facts()["texts_sha256"], "towers": packages(READING)}


def textless(embedder: Embedder) -> BenchError:
    """Why an embedder without a text tower cannot be asked what its vectors mean."""
    return BenchError(
        f"{embedder.card.name}: has no text head, so that its vectors cannot be compared with texts; take a model that "
        "has one, or for the released checkpoints give SigLIP2's tower with --option text=siglip2:FOLDER"
    )


def checked(embedder: Embedder, vectors: np.ndarray, count: int) -> np.ndarray:
    """Vectors that an embedder gave, if they are what the contract says.

    Raises:
        BenchError: another shape or type, values that are not finite, or no unit vectors.
    """
    name, width = embedder.card.name, embedder.card.width
    if vectors.shape != (count, width) or vectors.dtype != np.float32:
        raise BenchError(
            f"{name}: gave {vectors.dtype} {list(vectors.shape)} for {count} samples, not float32 [{count}, {width}]; "
            "the adapter is wrong"
        )
    if not np.isfinite(vectors).all():
        raise BenchError(
            f"{name}: a vector holds NaN or infinite values; check the weights (--dtype float16 overflows)"
        )
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if count and np.abs(lengths - 1).max() > 1e-3:
        raise BenchError(f"{name}: a vector has the length {lengths[np.abs(lengths - 1).argmax()]:.4f} and not 1")
    return vectors
