"""The adapter contract as a check that anyone can run on their own tokenizer:

    from harness.tokenizers.contract import check_adapter

    def test_my_tokenizer() -> None:
        assert check_adapter(create("weights.pt", device="cpu", dtype="float32")) == []

Each fault comes back as one sentence that says what was seen and what is wanted.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from harness.tokenizers.asset import AssetTokenizer
from harness.tokenizers.asset_contract import asset_faults
from harness.tokenizers.base import Adapter, Tokenizer
from harness.tokenizers.card_contract import card_faults
from harness.tokenizers.image_contract import image_faults
from harness.tokenizers.video import VideoTokenizer
from harness.tokenizers.video_contract import video_faults


def check_adapter(tokenizer: Adapter, *, trained: bool = True, tolerance: float = 1e-4) -> list[str]:
    """Run an adapter through everything that the harness relies on.

    Looked at: the card; for images the number, order, shape, dtype and device of the reconstructions, for images
    of one size, of mixed sizes and of every odd size that `card.multiple` allows; no NaN; the same
    result twice, whatever the global random state; independence of batch mates; inputs left as they
    were; seeds (a sample depends on its own seed alone, a mean on none); rate and codes of discrete
    tokenizers; value range and channel order on flat colours. For videos the same of clips of 1 to 33 frames, and
    that a clip's result depends neither on how its frames come in blocks nor on the clips before it, be they
    whole or given up; that frames come back as they go in where `card.tile` says that time is cut; and that a
    sample draws noise of its own for each tile. For 3D assets shape, dtype, alpha and colours of views, the same
    result twice and after another asset, and seeds.

    Args:
        tokenizer: as its factory returns it; its `prepare` methods are called where `needs_prepare` says so.
        trained: False for random weights, which cannot give back a flat colour.
        tolerance: largest absolute difference that another batch or another cut into blocks may make, in the
            range [-1, 1] (float32 arithmetic; a bfloat16 model needs about 0.05).

    Returns:
        The faults, none if the adapter holds the contract. An exception of the adapter is a fault too.
    """
    parts = faults_by_part(tokenizer, trained=trained, tolerance=tolerance)
    prefixes = {"video": "video: ", "asset": "asset: "}
    return [prefixes.get(part, "") + fault for part, faults in parts.items() for fault in faults]


@torch.inference_mode()  # as the runner calls it
def faults_by_part(tokenizer: Adapter, *, trained: bool = True, tolerance: float = 1e-4) -> dict[str, list[str]]:
    """`check_adapter`, with the faults of each part on their own.

    Returns:
        ``card`` and those of ``image``, ``video`` and ``asset`` that the adapter offers, each with its faults. With a
        fault of the card it is the only part: the others would be misjudged.
    """
    if faults := card_faults(tokenizer):
        return {"card": faults}
    parts: dict[str, list[str]] = {"card": []}
    if isinstance(tokenizer, Tokenizer):
        parts["image"] = _caught(lambda: image_faults(tokenizer, trained=trained, tolerance=tolerance))
    if isinstance(tokenizer, VideoTokenizer):
        parts["video"] = _caught(lambda: video_faults(tokenizer, trained=trained, tolerance=tolerance))
    if isinstance(tokenizer, AssetTokenizer):
        parts["asset"] = _caught(lambda: asset_faults(tokenizer, trained=trained))
    return parts


def _caught(check: Callable[[], list[str]]) -> list[str]:
    try:
        return check()
    except Exception as error:
        return [f"raised {type(error).__name__}: {error}"]
