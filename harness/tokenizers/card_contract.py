"""The card's part of the adapter contract."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

from harness.tokenizers.asset import AssetTokenizer
from harness.tokenizers.base import Adapter, LatentMode, Tokenizer, TokenizerCard, TokenType
from harness.tokenizers.video import VideoTokenizer

CONTINUOUS = ("AE", "VAE")
DISCRETE = ("VQ", "RQ", "MCQ", "FSQ")


def card_faults(adapter: Adapter) -> list[str]:
    """What is wrong with an adapter's card."""
    card: Any = getattr(adapter, "card", None)
    if not isinstance(card, TokenizerCard):
        return [f"card is a {type(card).__name__}, not a TokenizerCard"]
    learned, discrete = card.token_type in CONTINUOUS + DISCRETE, card.token_type in DISCRETE
    modes, modalities, types = card.latent_modes, set(card.modalities), get_args(TokenType)
    kinds = {"image": Tokenizer, "video": VideoTokenizer, "asset": AssetTokenizer}
    offered = {name for name, kind in kinds.items() if isinstance(adapter, kind)}
    rules = [
        (re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", card.name), f"name {card.name!r} is not usable as a folder name"),
        (card.title.strip(), "title is empty"),
        (card.source.strip(), "source is empty: say licence, training data and origin"),
        (card.token_type in types, f"token_type {card.token_type!r} is none of {', '.join(types)}"),
        (
            offered and offered == modalities,
            f"modalities {card.modalities!r} are not what the adapter implements: {', '.join(sorted(offered))}",
        ),
        (
            modes and len(set(modes)) == len(modes) and set(modes) <= set(get_args(LatentMode)),
            f"latent_modes {modes!r} are not mean, sample or both",
        ),
        (_positive(card.multiple, 2), f"multiple {card.multiple!r} is not (h, w), both 1 or more"),
        (
            _whole(card.frames, 2) and card.frames[1] < card.frames[0],
            f"frames {card.frames!r} are not (m, r), whole numbers with r below m",
        ),
        (
            len(card.tile) == 3 and all(side is None or _positive((side,), 1) for side in card.tile),
            f"tile {card.tile!r} is not (frames, rows, columns), each 1 or more or None",
        ),
        (
            card.compression is None or _positive(card.compression, 3),
            f"compression {card.compression!r} is not (t, h, w), each 1 or more",
        ),
        (
            not learned or ((card.compression or modalities == {"asset"}) and card.latent_size),
            f"compression and latent_size are wanted of a {card.token_type}",
        ),
        (
            discrete == (card.codebook_size is not None),
            f"codebook_size {card.codebook_size} does not suit token_type {card.token_type}",
        ),
        *(
            (re.fullmatch(r"[0-9a-f]{64}", sha256), f"weights_sha256 of {file} is not 64 lower-case hex digits")
            for file, sha256 in card.weights_sha256.items()
        ),
        (_is_json(card.settings), f"settings {card.settings!r} cannot be written as JSON"),
    ]
    return [f"card: {fault}" for holds, fault in rules if not holds]


def _whole(numbers: tuple[int, ...], length: int) -> bool:
    return len(numbers) == length and all(isinstance(number, int) and number >= 0 for number in numbers)


def _positive(numbers: tuple[int, ...], length: int) -> bool:
    return _whole(numbers, length) and min(numbers) >= 1


def _is_json(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
