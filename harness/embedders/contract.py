"""The embedder contract as a check that anyone can run on their own adapter:

    from harness.embedders.contract import check_embedder

    def test_my_embedder() -> None:
        assert check_embedder(create("weights.pt", device="cpu", dtype="float32")) == []

Each fault comes back as one sentence that says what was seen and what is wanted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from harness.embedders.base import Embedder, EmbedderCard, SeenAsset
from harness.errors import BenchError
from harness.tokenizers.specimens import clip, image, with_random_state

TEXTS = ("a dog", "", "two cats in the rain, and a much longer sentence than the other ones of this list", "a DOG!")
_MODALITIES = ("image", "video", "asset")


@torch.inference_mode()  # as the runner calls it
def check_embedder(
    embedder: Embedder, *, assets: Sequence[SeenAsset] = (), side: int = 64, tolerance: float = 1e-5
) -> list[str]:
    """Run an adapter through everything that understanding runs rely on.

    Looked at: the card; for each modality that it names, and for texts if it has a tower: number, width, dtype, unit
    length and finiteness of the vectors, the same vectors to the last bit a second time under another global random
    state, and but for rounding alone and in the reverse order; inputs left as they were; unlike samples that get unlike
    vectors; and that what the card does not name is refused in one line.

    Args:
        assets: two or more; without them assets are not looked at.
        side: of the images, where the card names none; a multiple of what the adapter wants.
        tolerance: largest absolute difference that other samples of a call may make (float32 arithmetic; a bfloat16
            model needs about 0.02; 0 for an adapter that promises the same bits).

    Returns:
        The faults, none if the adapter holds the contract. An exception of the adapter is a fault too.
    """
    if faults := list(_card_faults(embedder)):
        return faults
    side = embedder.card.side or side
    pictures = [image(seed, side, side).permute(1, 2, 0).numpy().copy() for seed in range(5)]
    clips = [clip(seed, frames, side, side).numpy() for seed, frames in enumerate((1, 5, 4))]
    given: dict[str, tuple[Callable[[Any], np.ndarray], Sequence[Any]]] = {
        "image": (embedder.embed_images, pictures),
        "video": (embedder.embed_clips, clips),
        "asset": (embedder.embed_assets, assets),
    }
    faults = []
    for modality, (embed, samples) in given.items():
        if modality in embedder.card.modalities:
            faults += [f"{modality}: {fault}" for fault in _caught(embed, samples, embedder.card.width, tolerance)]
        else:
            faults += [f"{modality}: {fault}" for fault in _refusal_faults(embed, samples)]
    texts = embedder.embed_texts
    found = _refusal_faults(texts, TEXTS) if embedder.card.text is None else _text_faults(embedder, tolerance)
    return faults + [f"text: {fault}" for fault in found]


def _card_faults(embedder: Embedder) -> Iterator[str]:
    card: Any = getattr(embedder, "card", None)
    if not isinstance(card, EmbedderCard):
        yield f"card is a {type(card).__name__}, not an EmbedderCard"
        return
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", card.name):
        yield f"card: name {card.name!r} is not usable as a folder name"
    if not card.title.strip() or not card.source.strip():
        yield "card: title or source is empty: say licence, training data and origin"
    if not card.modalities or not set(card.modalities) <= set(_MODALITIES):
        yield f"card: modalities {card.modalities!r} are not some of {', '.join(_MODALITIES)}"
    if not isinstance(card.width, int) or card.width < 1:
        yield f"card: width {card.width!r} is no whole number from 1 on"
    if card.text is not None and not re.fullmatch(r"[0-9a-f]{64}", card.text.fingerprint):
        yield "card: the text tower's fingerprint is not 64 lower-case hex digits"
    for file, sha256 in card.weights_sha256.items():
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            yield f"card: weights_sha256 of {file} is not 64 lower-case hex digits"
    try:
        json.dumps(card.settings)
    except (TypeError, ValueError):
        yield f"card: settings {card.settings!r} cannot be written as JSON"


def _caught(embed: Callable[[Any], np.ndarray], samples: Sequence[Any], width: int, tolerance: float) -> list[str]:
    try:
        return list(_faults(embed, samples, width, tolerance)) if samples else []
    except Exception as error:
        return [f"raised {type(error).__name__}: {error}"]


def _text_faults(embedder: Embedder, tolerance: float) -> list[str]:
    faults = _caught(embedder.embed_texts, TEXTS, embedder.card.width, tolerance)
    return faults or list(_form_faults(embedder.embed_texts([]), 0, embedder.card.width))


def _faults(embed: Callable[[Any], np.ndarray], samples: Sequence[Any], width: int, tolerance: float) -> Iterator[str]:
    before = [sample.copy() if isinstance(sample, np.ndarray) else None for sample in samples]
    together = with_random_state(1, lambda: embed(samples))
    malformed = list(_form_faults(together, len(samples), width))
    yield from malformed
    if any(copy is not None and not np.array_equal(copy, x) for copy, x in zip(before, samples, strict=True)):
        yield "writes into the samples that it is given"
    if malformed:
        return  # malformed results cannot be compared
    if not np.array_equal(together, with_random_state(2, lambda: embed(samples))):
        yield "a second call, under another global random state, gives other vectors"
    alone = np.concatenate([embed(samples[i : i + 1]) for i in range(len(samples))])
    for what, others in (("in the reverse order", embed(samples[::-1])[::-1]), ("alone", alone)):
        gap = float(np.abs(together - others).max())
        if not gap <= tolerance:
            yield f"{what}, samples get vectors that differ by {gap:.3g} from those in a call of {len(samples)}"
    if len(np.unique(together, axis=0)) == 1:
        yield "unlike samples all get one vector"


def _form_faults(vectors: Any, count: int, width: int) -> Iterator[str]:
    if not isinstance(vectors, np.ndarray) or vectors.shape != (count, width) or vectors.dtype != np.float32:
        seen = f"{getattr(vectors, 'dtype', type(vectors).__name__)} {tuple(getattr(vectors, 'shape', ()))}"
        yield f"gives {seen} for {count} samples; float32 ({count}, {width}) is wanted"
        return
    if not np.isfinite(vectors).all():
        yield "gives NaN or infinite values"
    elif count and (gap := float(np.abs(np.linalg.norm(vectors.astype(np.float64), axis=1) - 1).max())) > 1e-5:
        yield f"a vector's length differs from 1 by {gap:.3g}"


def _refusal_faults(embed: Callable[[Any], np.ndarray], samples: Sequence[Any]) -> list[str]:
    """What the card does not name must be refused, not answered with something."""
    try:
        embed(samples[:1])
    except BenchError as error:
        return ["is refused in more than one line"] if "\n" in str(error) else []
    except Exception as error:
        return [f"is not in the card; BenchError is wanted and not {type(error).__name__}: {error}"]
    return ["vectors come although the card does not name them"]
