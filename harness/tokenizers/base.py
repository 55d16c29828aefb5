"""The adapter contract: what a tokenizer must offer to be measured, and the card that describes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from harness.errors import BenchError

TokenType = Literal["none", "codec", "transform", "AE", "VAE", "VQ", "RQ", "MCQ", "FSQ"]
LatentMode = Literal["mean", "sample"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """What every row of a table says of itself, be it a tokenizer or an embedder (`harness.embedders.base`).

    Attributes:
        name: unique and usable as a folder name, e.g. ``jpeg-75``.
        title: as the report's row shows it.
        modalities: subset of ``image``, ``video``, ``asset``.
        paper_row: ``Method`` (and stage) under which the paper prints it, None if it does not.
        weights_sha256: of each weights file by name; empty for weight-free rows.
        source: licence, training data and origin, one line.
        settings: anything else that moves a number (a JPEG quality found by search, a PCA basis' hash).
    """

    name: str
    title: str
    modalities: tuple[str, ...] = ("image",)
    paper_row: str | None = None
    weights_sha256: dict[str, str] = field(default_factory=dict)
    source: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerCard(Card):
    """Fixes what an evaluation must know, so that nobody can evaluate the tokenizer wrongly.

    Attributes:
        token_type: as in the paper's "Token Type" column; ``codec``/``transform``/``none`` for reference rows.
        compression: ``(t, h, w)`` pixels per token, or None where the notion does not apply.
        latent_size: channels of a continuous latent or levels/codes as in the paper's "Latent Size" column.
        codebook_size: entries of one codebook, None for continuous tokens.
        multiple: ``(h, w)`` the tokenizer needs the sides to be a multiple of; (1, 1) if it handles any.
        frames: ``(m, r)``: the clips it is made for have m k + r frames, (4, 0) for AToken, (4, 1) for causal
            VAEs, (1, 0) for any. What a protocol trims clips by; an adapter completes other lengths itself.
        tile: ``(frames, rows, columns)`` in pixels that it treats apart from the next, None along an axis that it
            does not cut: where seams would show.
        latent_modes: what `encode` can do; deterministic tokenizers offer ``("mean",)``.
    """

    token_type: TokenType
    compression: tuple[int, int, int] | None = None
    latent_size: int | None = None
    codebook_size: int | None = None
    multiple: tuple[int, int] = (1, 1)
    frames: tuple[int, int] = (1, 0)
    tile: tuple[int | None, int | None, int | None] = (None, None, None)
    latent_modes: tuple[LatentMode, ...] = ("mean",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """What `Tokenizer.encode` hands to `Tokenizer.decode`, with what metrics need to know of it.

    Attributes:
        payload: the adapter's own object, one for the whole batch.
        tokens: number of tokens of each image.
        bits: information of each image's code in bits (file size of a codec, tokens x log2(codebook)
            of a discrete tokenizer); None where the rate of a continuous latent is not defined.
        codes: integer codes ``[tokens, codebooks]`` of each image; None for continuous tokens.
    """

    payload: Any
    tokens: Sequence[int]
    bits: Sequence[float] | None = None
    codes: Sequence[Tensor] | None = None


class Evaluated(ABC):
    """What tokenizers and embedders share: a card, a device, and settings that may be fitted to the set."""

    card: Card
    needs_prepare: bool = False

    def restore(self, settings: Mapping[str, Any]) -> None:
        """Take the settings that were found in another process or an earlier start of this run.

        The runner stores `card.settings` after `prepare` in the run's folder; whoever comes later gets
        them here instead of a search of its own. Only an adapter with `needs_prepare` implements it.
        """
        raise BenchError(
            f"{self.card.name}: {type(self).__name__} has needs_prepare, so it must take found settings back "
            f"({', '.join(settings)}): implement restore"
        )

    @property
    def device(self) -> torch.device:
        """Where the adapter wants its pixels."""
        return torch.device("cpu")


class Adapter(Evaluated):
    """What all tokenizers share."""

    card: TokenizerCard


class Tokenizer(Adapter):
    """Anything that reconstructs images, behind one adapter.

    An image's reconstruction depends on that image (and its seed) alone, not on its batch mates;
    `harness.tokenizers.contract` checks it for any adapter.
    """

    def prepare(self, pixels: Iterable[np.ndarray]) -> None:
        """Look at the run's samples once, before the first shard, if a setting is fitted to the set.

        ``jpeg@BPP`` searches its quality here and updates `card.settings`. Called with an iterator
        over uint8 ``[H, W, 3]`` images as the protocol prepared them; the default looks at none.
        The runner calls it only where `needs_prepare` is true.
        """

    def token_count(self, height: int, width: int) -> int:
        """Tokens of one image of this size: what the runner packs batches by."""
        if self.card.compression is None:
            return max(1, (height * width) // 256)
        _, h, w = self.card.compression
        return -(-height // h) * -(-width // w)

    @abstractmethod
    def encode(self, images: Sequence[Tensor], *, latent: LatentMode, seeds: Sequence[int]) -> Encoded:
        """Encode images.

        Args:
            images: each float32 ``[3, H, W]`` in [-1, 1] on `device`; sizes may differ.
            latent: the mean of the posterior, or a sample of it.
            seeds: one per image; only a sampled latent uses it.
        """

    @abstractmethod
    def decode(self, encoded: Encoded) -> list[Tensor]:
        """Reconstruct: each float32 ``[3, H, W]``, nominally in [-1, 1], not clamped, in order."""
