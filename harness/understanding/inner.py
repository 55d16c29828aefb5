"""What Figure 8 looks at: the vectors that a model makes of an image on its way, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from atoken.tokens import SparseTokens
from harness.embedders.atoken import ATokenEmbedder
from harness.embedders.base import Embedder

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "pooled": "pooled encoder features",
        "mean": "dense encoder features, mean over tokens",
        "latent": "latents, mean over tokens",
        "fsq-input": "latents before FSQ, mean over tokens",
    }
)
"""Pooled ones are what is compared with texts. The paper's panels (a) to (c) are of encoder features, (d) of the
latents of a continuous model, (e) of what a discrete one rounds; how it pools is not said."""


def kinds_of(embedder: Embedder) -> tuple[str, ...]:
    """The names of `KINDS` that a model has vectors of; of other packages' models only the pooled ones are seen."""
    if not isinstance(embedder, ATokenEmbedder):
        return ("pooled",)
    return ("pooled", "mean", "latent" if embedder.model.quantizer is None else "fsq-input")


def inner_vectors(embedder: Embedder, images: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Vectors of images by name, in the order of `kinds_of`.

    Args:
        images: as `Embedder.embed_images` takes them.

    Returns:
        float32 ``[N, D]`` each: unit length for ``pooled``, as they come for the others.
    """
    found = {"pooled": embedder.embed_images(images)}
    if isinstance(embedder, ATokenEmbedder):
        found["mean"] = _means(embedder.model.features(images))
        found[kinds_of(embedder)[-1]] = _means(embedder.model.encode(images).mean)
    return found


def _means(tokens: SparseTokens) -> np.ndarray:
    """Over each item's tokens, item by item in float64: batch mates must not move a bit."""
    values = tokens.features.cpu().numpy().astype(np.float64)
    ends = np.cumsum(tokens.lengths)
    return np.stack(
        [values[end - count : end].mean(axis=0) for end, count in zip(ends, tokens.lengths, strict=True)]
    ).astype(np.float32)
