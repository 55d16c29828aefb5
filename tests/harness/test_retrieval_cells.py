"""The cells of retrieval: what they count, from the features that a run keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.errors import BenchError
from harness.metrics.retrieval import Retrieval, gathered
from harness.protocol import MetricSpec

EYE = np.eye(4, dtype=np.float32)
COUNTS = np.array([1, 3, 2, 1])


def spec(name: str, **options: Any) -> MetricSpec:
    return MetricSpec(metric="recall", name=name, options=options)


def features(texts: np.ndarray, counts: np.ndarray = COUNTS) -> dict[str, np.ndarray]:
    """As a run keeps them: captions sample by sample, filled up with zeros."""
    padded = np.zeros((len(counts), counts.max() + 1, texts.shape[1]), np.float32)
    for row, (end, count) in enumerate(zip(np.cumsum(counts), counts, strict=True)):
        padded[row, :count] = texts[end - count : end]
    return {"embedding": EYE, "captions": padded, "caption_count": counts}


def test_captions_are_found_again() -> None:
    texts = np.arange(28, dtype=np.float32).reshape(7, 4) - 14  # a row of zeros may be a caption's own
    vectors, captions, owners = gathered(features(texts))
    assert (captions == texts).all()
    assert owners.tolist() == [0, 1, 1, 1, 2, 2, 3]
    assert vectors is EYE


def test_cells_by_hand() -> None:
    texts = EYE[np.repeat(np.arange(4), COUNTS)]
    texts[1] = EYE[0]  # the first caption of sample 1 tells of sample 0
    metric = Retrieval(
        [
            spec("back R@2", query="sample", k=2, ranked="captions"),
            spec("T R@1", query="text", k=1),
            spec("back R@1", query="sample", ranked="items"),
        ],
        bootstrap=200,
    )
    back2, there, back = metric.cells({}, features(texts), seed=0)
    assert (back2.name, back2.value) == ("back R@2", 100)
    assert back2.parameters == {"k": 2, "queries": 4, "gallery": 7, "ranked": "captions", "ties": "against"}
    assert there.value == pytest.approx(100 * 6 / 7)
    assert there.parameters == {"k": 1, "queries": 7, "gallery": 4, "ties": "against"}
    assert (there.n, there.unit) == (4, "%")
    assert there.interval is not None
    assert 0 <= there.interval[0] < 100 * 6 / 7 < there.interval[1] == 100
    # Sample 0 has the score of its own caption on the strange one too.
    assert (back.value, back.parameters["gallery"]) == (75, 4)
    assert metric.cells({}, features(texts), seed=0) == [back2, there, back]
    late = metric.late(features(texts))
    assert list(late) == ["back R@2", "T R@1", "back R@1"]
    assert late["T R@1"] == pytest.approx([100, 200 / 3, 100, 100])
    assert late["back R@1"].tolist() == [0, 100, 100, 100]
    (trivial,) = Retrieval([spec("T R@4", query="text", k=4)], bootstrap=10).cells({}, features(texts), seed=0)
    assert (trivial.value, trivial.absent, trivial.applies) == (None, "of 4 answers 4 are all", False)
    assert Retrieval([spec("T R@4", query="text", k=4)], bootstrap=10).late(features(texts)) == {}
    assert Retrieval([spec("T", query="text")], bootstrap=0).cells({}, features(texts), seed=0)[0].interval is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "a: query is None, not one of text, sample"),
        ({"query": "text", "k": 0}, "a: k is 0, not a whole number from 1 on"),
        ({"query": "text", "k": True}, "a: k is True"),
        ({"query": "text", "ranked": "items"}, "a: ranked is for queries of samples; leave it out"),
        ({"query": "sample"}, "a: ranked is None, not one of captions, items"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        Retrieval([spec("a", **options)], bootstrap=10)
