"""Where an adapter says that one spatial tile gives way to the next."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from atoken.space import spots
from harness.data.base import ClipShape
from harness.tokenizers.atoken import ATokenVideoAdapter, create
from harness.tokenizers.identity import create as create_identity
from harness.tokenizers.video import VideoTokenizer


def shape(height: int, width: int) -> ClipShape:
    return ClipShape(height=height, width=width, rate=Fraction(24))


@pytest.mark.parametrize(("tiles", "size", "overlap"), [("64x96+32", (64, 96), 32), ("48x48", (48, 48), 0)])
@pytest.mark.parametrize(("height", "width"), [(160, 208), (48, 96), (64, 400)])
def test_atokens_borders_are_where_another_tile_weighs_most(
    tiles: str, size: tuple[int, int], overlap: int, height: int, width: int
) -> None:
    adapter = create(None, device="cpu", dtype="float32", space_tiles=tiles)
    assert isinstance(adapter, ATokenVideoAdapter)
    borders = adapter.borders(shape(height, width))
    patches = [tuple(side // 16 for side in pair) for pair in ((height, width), size)]
    weights = []
    for spot in spots(*patches, overlap // 16, (16, 16)):
        whole = torch.zeros(height, width)
        whole[spot.rows, spot.columns] = spot.weights
        weights.append(whole)
    heaviest = torch.stack(weights).argmax(dim=0).numpy()
    down = np.flatnonzero((np.diff(heaviest, axis=0) != 0).any(axis=1)) + 1
    across = np.flatnonzero((np.diff(heaviest, axis=1) != 0).any(axis=0)) + 1
    assert (list(borders[0]), list(borders[1])) == (down.tolist(), across.tolist())


def test_others_borders_are_multiples_of_the_cards_tile() -> None:
    whole = create(None, device="cpu", dtype="float32")
    assert isinstance(whole, ATokenVideoAdapter)
    assert [list(axis) for axis in whole.borders(shape(64, 64))] == [[], []]
    other = create_identity(None, device="cpu", dtype="float32")
    assert isinstance(other, VideoTokenizer)
    other.card = replace(other.card, tile=(4, 16, 12))
    assert [list(axis) for axis in other.borders(shape(48, 40))] == [[16, 32], [12, 24, 36]]
