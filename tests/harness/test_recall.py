"""Recalls against plain definitions on the whole matrix, and the laws that any recall obeys."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import BenchError
from harness.metrics import recall as module
from harness.metrics.bootstrap import mean_interval
from harness.metrics.recall import RULES, caption_ranks, hits, item_ranks, recall, recall_interval

Set = tuple[np.ndarray, np.ndarray, np.ndarray]


def made(items: int, captions: list[int], width: int = 12, seed: int = 0, noise: float = 1.0) -> Set:
    """Items, captions near them in mixed order, owners."""
    random = np.random.default_rng(seed)
    owners = random.permutation(np.repeat(np.arange(items), captions))
    vectors = random.standard_normal((items, width))
    texts = vectors[owners] + noise * random.standard_normal((len(owners), width))
    return unit(vectors), unit(texts), owners


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


# The definitions once more, as the papers' scripts have them: whole matrices, sorting, a loop over queries.


def images_found_by_text(items: np.ndarray, captions: np.ndarray, owners: np.ndarray, k: int) -> float:
    """CLIP_benchmark's image retrieval: the caption's image is among the k that score highest."""
    scores = captions @ items.T
    return float(np.mean([owner in np.argsort(-row)[:k] for row, owner in zip(scores, owners, strict=True)]))


def texts_found_by_image(items: np.ndarray, captions: np.ndarray, owners: np.ndarray, k: int) -> float:
    """CLIP_benchmark's text retrieval: among the k best of all captions there is one of the image's (recall > 0)."""
    scores = items @ captions.T
    return float(np.mean([index in owners[np.argsort(-row)[:k]] for index, row in enumerate(scores)]))


def videos_by_best_caption(items: np.ndarray, captions: np.ndarray, owners: np.ndarray, k: int) -> float:
    """CLIP4Clip's video-to-text with several captions: a square matrix of maxima, and the place of the diagonal."""
    scores = items @ captions.T
    square = np.stack([scores[:, owners == other].max(axis=1) for other in range(len(items))], axis=1)
    places = [int(np.where(np.argsort(-row) == index)[0][0]) for index, row in enumerate(square)]
    return float(np.mean(np.array(places) < k))


@pytest.mark.parametrize(
    "captions", [[1] * 40, [5] * 40, [5, 6, 7, 1] * 10, [41] + [1] * 39], ids=["one", "five", "some", "msvd"]
)
@pytest.mark.parametrize("block", [1, 97, 1 << 22])
def test_as_the_published_scripts_define_them(captions: list[int], block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    items, texts, owners = made(40, captions, noise=1.5)
    for k in (1, 5, 10):
        assert recall(caption_ranks(items, texts, owners), k) == images_found_by_text(items, texts, owners, k)
        assert recall(item_ranks(items, texts, owners, "captions"), k) == texts_found_by_image(items, texts, owners, k)
        assert recall(item_ranks(items, texts, owners, "items"), k) == videos_by_best_caption(items, texts, owners, k)
    assert 0 < recall(caption_ranks(items, texts, owners), 1) < 1


def test_the_two_rules_for_items_by_hand() -> None:
    # Item 0's own caption is third of all; the two before it are both item 1's.
    items = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    captions = np.array([[0.8, 0, 0.6], [0.9, 0.4, 0], [0.85, 0.5, 0]], np.float32)
    owners = np.array([0, 1, 1])
    assert item_ranks(items, captions, owners, "captions").tolist() == [2, 0]
    assert item_ranks(items, captions, owners, "items").tolist() == [1, 0]
    assert caption_ranks(items, captions, owners).tolist() == [0, 1, 1]


def test_equal_scores_count_against() -> None:
    same = np.tile(unit(np.ones((1, 7))), (6, 1))
    owners = np.repeat(np.arange(6), 2)
    assert caption_ranks(same, np.repeat(same, 2, axis=0), owners).tolist() == [5] * 12
    assert item_ranks(same, np.repeat(same, 2, axis=0), owners, "captions").tolist() == [10] * 6  # not the own second
    assert item_ranks(same, np.repeat(same, 2, axis=0), owners, "items").tolist() == [5] * 6


@pytest.mark.parametrize("block", [3, 50, 1 << 22])
def test_a_double_of_an_item_ties_wherever_it_lies(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    items, captions, owners = made(37, [3] * 37, width=768, noise=0)
    items[29], captions[owners == 29] = items[4], captions[owners == 4]
    ranks = caption_ranks(items, captions, owners)
    assert set(ranks[np.isin(owners, (4, 29))]) == {1}
    assert set(ranks[~np.isin(owners, (4, 29))]) == {0}
    assert item_ranks(items, captions, owners, "captions").nonzero()[0].tolist() == [4, 29]


sets = st.builds(
    made,
    items=st.just(9),
    captions=st.lists(st.integers(1, 4), min_size=9, max_size=9),
    seed=st.integers(0, 2**32 - 1),
    noise=st.floats(0, 3),
)


@given(sets, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_order_of_items_and_captions_changes_nothing(given_set: Set, random: object) -> None:
    items, captions, owners = given_set
    shuffle = random.sample  # type: ignore[attr-defined]
    new, texts = np.array(shuffle(range(len(items)), len(items))), np.array(shuffle(range(len(owners)), len(owners)))
    place = np.argsort(new)  # of an old item
    moved = (items[new], captions[texts], place[owners[texts]])
    assert (caption_ranks(*moved) == caption_ranks(*given_set)[texts]).all()
    for rule in RULES:
        assert (item_ranks(*moved, rule) == item_ranks(*given_set, rule)[new]).all()


@given(sets, st.integers(-20, 20), st.integers(-20, 20))
@settings(max_examples=30, deadline=None)
def test_the_length_of_all_vectors_changes_nothing(given_set: Set, one: int, other: int) -> None:
    items, captions, owners = given_set
    longer = (items * np.float32(2.0**one), captions * np.float32(2.0**other), owners)
    assert (caption_ranks(*longer) == caption_ranks(*given_set)).all()
    for rule in RULES:
        assert (item_ranks(*longer, rule) == item_ranks(*given_set, rule)).all()


@given(sets)
@settings(max_examples=50, deadline=None)
def test_recall_rises_with_k_to_all_and_the_rules_agree_on_the_first(given_set: Set) -> None:
    items, captions, owners = given_set
    ranks = {rule: item_ranks(items, captions, owners, rule) for rule in RULES}
    for found in (caption_ranks(items, captions, owners), *ranks.values()):
        values = [recall(found, k) for k in range(len(captions) + 1)]
        assert values == sorted(values)
        assert (values[0], values[-1]) == (0, 1)
    assert recall(ranks["captions"], 1) == recall(ranks["items"], 1)
    assert (ranks["items"] <= ranks["captions"]).all()  # an item before mine has at least one caption before mine


def test_the_matrix_is_never_there_at_once() -> None:
    """COCO's test split, five times too wide to be held: 25,010 x 5,000 scores are 0.5 GB in float32."""
    items, captions, owners = made(5000, [5] * 4990 + [6] * 10, width=2, noise=0.0)
    tracemalloc.start()
    try:
        caption_ranks(items, captions, owners)
        item_ranks(items, captions, owners, "captions")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100e6


def test_hits_are_counted_by_item() -> None:
    found, queries = hits(np.array([0, 3, 1, 0]), np.array([1, 1, 0, 1]), 1, items=3)
    assert found.tolist() == [0, 2, 0]
    assert queries.tolist() == [1, 3, 0]


def test_the_interval_is_that_of_a_mean_where_each_item_asks_once() -> None:
    right = np.random.default_rng(0).random(300) < 0.3
    interval = recall_interval(right.astype(float), np.ones(300), count=500, seed=7)
    assert interval == pytest.approx(mean_interval(right.astype(float), count=500, seed=7))
    assert recall_interval(np.ones(1), np.ones(1), count=500, seed=7) is None
    assert recall_interval(np.ones(5), np.ones(5), count=0, seed=7) is None


def test_captions_that_are_found_together_make_the_interval_wider() -> None:
    right = (np.random.default_rng(0).random(200) < 0.5).astype(float)
    together = recall_interval(5 * right, np.full(200, 5.0), count=1000, seed=1)
    alone = mean_interval(np.repeat(right, 5), count=1000, seed=1)
    assert together is not None
    assert alone is not None
    assert together[1] - together[0] > 1.8 * (alone[1] - alone[0])  # the square root of five, but for chance


@pytest.mark.parametrize(
    ("items", "captions", "owners", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), np.arange(2), r"not \[2, 3\], \[2, 4\] and \[2\]"),
        (np.ones((2, 3)), np.ones((2, 3)), np.arange(3), r"and \[3\]"),
        (np.ones((0, 3)), np.ones((0, 3)), np.arange(0), "needs items and captions, not 0 and 0"),
        (np.ones((2, 3)), np.ones((2, 3)), np.array([0, 2]), "items 0 to 1, not 0 to 2"),
        (np.ones((3, 3)), np.ones((2, 3)), np.array([0, 2]), "1 of 3 items have no caption"),
        (np.ones((2, 3)), np.full((2, 3), np.nan), np.arange(2), "NaN or infinity"),
    ],
)
def test_what_is_no_retrieval_is_refused(
    items: np.ndarray, captions: np.ndarray, owners: np.ndarray, message: str
) -> None:
    with pytest.raises(BenchError, match=message):
        caption_ranks(items, captions, owners)
    with pytest.raises(BenchError, match=message):
        item_ranks(items, captions, owners, "items")
