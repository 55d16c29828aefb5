"""Zero-shot classification is open_clip's, and ties count against the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from atoken.errors import InputError
from atoken.text import accuracy, class_vectors

NAMES = ["goldfish", "dining table", "{} brace", "a"]
TEMPLATES = ["{}", "a photo of a {}.", "itap of the {}"]


class Letters:
    width, fingerprint = 16, "0" * 64

    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        rows = [np.random.default_rng(list(text.encode())).normal(0.2, 1.0, self.width) for text in texts]
        return F.normalize(torch.tensor(np.array(rows)).float(), dim=-1)


class AsOpenClip:
    """What its builder wants of a model: tokens are the letters, so that texts come through."""

    def encode_text(self, tokens: torch.Tensor, normalize: bool) -> torch.Tensor:
        assert normalize
        return Letters().embed([bytes(row[row > 0].tolist()).decode() for row in tokens])


def as_tokens(texts: list[str]) -> torch.Tensor:
    return torch.tensor([list(text.encode().ljust(40, b"\0")) for text in texts])


def test_class_vectors_are_open_clips() -> None:
    open_clip = pytest.importorskip("open_clip", reason="needs open_clip, whose classifier is compared with")
    functions = [lambda name, t=template: t.replace("{}", name) for template in TEMPLATES]
    theirs = open_clip.build_zero_shot_classifier(AsOpenClip(), as_tokens, NAMES, functions, 3)
    torch.testing.assert_close(class_vectors(Letters(), NAMES, TEMPLATES), theirs.t(), atol=1e-6, rtol=0)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), images=st.integers(1, 30), classes=st.integers(1, 12))
def test_accuracy_is_that_of_sorting(seed: int, images: int, classes: int) -> None:
    """Against a stable sort in which the own class comes last among its equals; whole numbers make ties."""
    rng = np.random.default_rng(seed)
    vectors = torch.from_numpy(rng.integers(-1, 2, (images, 2))).float()
    table = torch.from_numpy(rng.integers(-1, 2, (classes, 2))).float()
    labels = torch.from_numpy(rng.integers(0, classes, images))
    hits: dict[int, list[bool]] = {1: [], 5: []}
    for vector, label in zip(F.normalize(vectors, dim=-1), labels.tolist(), strict=True):
        scores = (table @ vector).tolist()
        order = sorted(range(classes), key=lambda c: (-scores[c], c == label))
        for k, found in hits.items():
            found.append(label in order[:k])
    assert accuracy(vectors, table, labels) == {k: pytest.approx(float(np.mean(found))) for k, found in hits.items()}


def test_accuracy_is_open_clips_where_nothing_is_equal() -> None:
    pytest.importorskip("open_clip", reason="needs open_clip, whose accuracy is compared with")
    torch.manual_seed(0)
    vectors, table = torch.randn(300, 8), F.normalize(torch.randn(20, 8), dim=-1)
    labels = torch.randint(0, 20, (300,))
    best = (vectors @ table.t()).topk(5).indices
    ours = accuracy(vectors, table, labels)
    assert ours[1] == pytest.approx(float((best[:, 0] == labels).double().mean()))
    assert ours[5] == pytest.approx(float((best == labels[:, None]).any(1).double().mean()))


def test_a_model_that_says_the_same_of_all_is_no_good() -> None:
    vectors, table, labels = torch.ones(6, 4), torch.ones(6, 4), torch.arange(6)
    assert accuracy(vectors, table, labels) == {1: 0.0, 5: 0.0}
    assert accuracy(vectors, table, labels, top=(6,)) == {6: 1.0}


@pytest.mark.parametrize("seed", range(20))
def test_a_class_and_its_twin_are_equal_to_the_last_bit(seed: int) -> None:
    torch.manual_seed(seed)
    vectors, table = torch.randn(30, 193), F.normalize(torch.randn(5, 193), dim=-1)
    labels = torch.randint(0, 5, (30,))
    twins = torch.cat([table, table])
    assert accuracy(vectors, twins, labels, top=(1,)) == {1: 0.0}
    assert accuracy(vectors, twins, labels, top=(2,))[2] == accuracy(vectors, table, labels, top=(1,))[1]


def test_many_images_are_compared_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    vectors, table, labels = torch.randn(50, 6), torch.randn(9, 6), torch.randint(0, 9, (50,))
    whole = accuracy(vectors, table, labels)
    monkeypatch.setattr("atoken.text.zeroshot.ROWS", 7)
    assert accuracy(vectors, table, labels) == whole


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: class_vectors(Letters(), [], ["{}"]), "one or more names and templates"),
        (lambda: class_vectors(Letters(), "goldfish", ["{}"]), "need lists"),
        (lambda: class_vectors(Letters(), ["a"], []), "one or more names and templates"),
        (lambda: class_vectors(Letters(), ["a"], ["{}", "a photo"]), "template 'a photo' has no"),
        (lambda: accuracy(torch.ones(2, 3), torch.ones(4, 2), torch.zeros(2)), "give vectors"),
        (lambda: accuracy(torch.ones(2, 3), torch.ones(4, 3), torch.zeros(3)), "give vectors"),
        (lambda: accuracy(torch.ones(0, 3), torch.ones(4, 3), torch.zeros(0)), "labels must be 0 to 3"),
        (lambda: accuracy(torch.ones(1, 3), torch.ones(4, 3), torch.tensor([4])), "labels must be 0 to 3"),
        (lambda: accuracy(torch.full((1, 3), torch.nan), torch.ones(4, 3), torch.tensor([1])), "not finite"),
    ],
)
def test_what_cannot_be_classified(call: Any, line: str) -> None:
    with pytest.raises(InputError, match=line):
        call()
