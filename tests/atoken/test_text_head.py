"""The projection keeps what tells texts apart, and a saved head is the head."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from atoken.errors import CheckpointError, InputError
from atoken.text import TextHead, class_vectors, fit_projection
from atoken.text import head as head_module


class Words:
    """A tower of random directions, the same for the same text."""

    name, version = "words", "1.2"

    def __init__(self, width: int = 24, seed: int = 0) -> None:
        self.width, self._seed = width, seed

    @property
    def fingerprint(self) -> str:
        return f"{self._seed:064d}"

    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        rows = [np.random.default_rng([self._seed, *text.encode()]).normal(0.3, 1.0, self.width) for text in texts]
        return F.normalize(torch.tensor(np.array(rows)).float().reshape(len(texts), self.width), dim=-1)


TEXTS = [f"text number {i}" for i in range(60)]


@pytest.fixture
def head() -> TextHead:
    return TextHead.fitted(Words(), TEXTS, 10).with_scores(2.5, -3.25)


# -- Projection ------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(count=st.integers(2, 40), wide=st.integers(2, 12), data=st.data())
def test_the_projection_is_a_pca(count: int, wide: int, data: st.DataObject) -> None:
    width = data.draw(st.integers(1, wide))
    rows = torch.from_numpy(np.random.default_rng([count, wide]).normal(size=(count, wide))).float()
    mean, projection = fit_projection(rows, width)
    assert (mean.shape, projection.shape, projection.dtype) == ((wide,), (wide, width), torch.float32)
    torch.testing.assert_close(projection.t() @ projection, torch.eye(width), atol=1e-5, rtol=0)
    centred = rows.double() - rows.double().mean(0)
    torch.testing.assert_close(mean, rows.mean(0), atol=1e-6, rtol=0)
    kept = (centred @ projection.double()).square().sum(0)
    singular = torch.linalg.svdvals(centred)
    wanted = F.pad(singular, (0, max(0, wide - len(singular))))[:width].square()
    torch.testing.assert_close(kept, wanted, atol=1e-4, rtol=1e-4)
    largest = projection.gather(0, projection.abs().argmax(0, keepdim=True))
    assert bool((largest > 0).all())


def test_the_projection_does_not_depend_on_the_order_of_texts() -> None:
    ours = TextHead.fitted(Words(), TEXTS, 10)
    theirs = TextHead.fitted(Words(), [*TEXTS[::-1], *TEXTS[:9]], 10)
    assert torch.equal(ours.projection, theirs.projection)


def test_full_width_keeps_all_angles() -> None:
    rows = Words().embed(TEXTS)
    mean, projection = fit_projection(rows, 24)
    centred = F.normalize(rows - mean, dim=-1)
    turned = F.normalize((rows - mean) @ projection, dim=-1)
    torch.testing.assert_close(turned @ turned.t(), centred @ centred.t(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("rows", "width", "line"),
    [
        (torch.zeros(1, 4), 2, "two texts or more"),
        (torch.zeros(4), 2, "two texts or more"),
        (torch.zeros(5, 4), 5, "of 4 numbers cannot be projected to 5; take a wider tower"),
        (torch.zeros(5, 4), 0, "cannot be projected to 0"),
    ],
)
def test_what_cannot_be_projected(rows: torch.Tensor, width: int, line: str) -> None:
    with pytest.raises(InputError, match=line):
        fit_projection(rows, width)


# -- The head --------------------------------------------------------------------------------------


def test_a_head_is_a_tower(head: TextHead) -> None:
    vectors = head.embed(TEXTS)
    assert (vectors.shape, vectors.dtype, head.width) == ((60, 10), torch.float32, 10)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(60))
    wanted = F.normalize((Words().embed(TEXTS) - head.mean) @ head.projection, dim=-1)
    torch.testing.assert_close(vectors, wanted, atol=1e-6, rtol=0)
    assert torch.equal(head.embed(TEXTS[7:8])[0], vectors[7])
    assert head.embed([]).shape == (0, 10)
    assert class_vectors(head, ["a", "b"], ["{}"]).shape == (2, 10)


def test_a_tower_of_the_right_width_is_left_alone() -> None:
    head = TextHead.fitted(Words(10), TEXTS, 10)
    assert head.projection is None
    assert head.mean is None
    torch.testing.assert_close(head.embed(TEXTS), Words(10).embed(TEXTS))


def test_scores_are_scaled_cosines(head: TextHead) -> None:
    images, texts = torch.randn(5, 10), head.embed(TEXTS[:3])
    wanted = [[np.exp(2.5) * float(torch.cosine_similarity(i, t, dim=0)) - 3.25 for t in texts] for i in images]
    torch.testing.assert_close(head.logits(images, texts), torch.tensor(wanted).float(), atol=1e-5, rtol=1e-5)
    assert head.logits(images.bfloat16(), texts).dtype == torch.float32


@pytest.mark.parametrize("width", [10, 24])
def test_saved_and_loaded(width: int, tmp_path: Path) -> None:
    head = TextHead.fitted(Words(), TEXTS, width).with_scores(2.5, -3.25)
    assert head.save_pretrained(tmp_path) == tmp_path / "text.safetensors"
    back = TextHead.from_pretrained(tmp_path, Words())
    for name in ("tower_name", "tower_fingerprint", "version", "tower_width", "width", "log_scale", "bias"):
        assert getattr(back, name) == getattr(head, name), name
    assert back.fingerprint == head.fingerprint
    assert (back.version, back.tower_name) == ("1.2", "words")
    assert torch.equal(back.embed(TEXTS), head.embed(TEXTS))


def test_fingerprints_tell_heads_apart(head: TextHead) -> None:
    assert head.with_scores(0.0, 0.0).fingerprint == head.fingerprint
    others = [TextHead.fitted(Words(), TEXTS[:40], 10), TextHead.fitted(Words(), TEXTS, 9)]
    assert len({head.fingerprint, *(other.fingerprint for other in others)}) == 3


def test_the_tower_is_loaded_when_a_text_is_read(
    head: TextHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(head_module, "load_tower", lambda name: asked.append(name) or Words())
    head.save_pretrained(tmp_path)
    back = TextHead.from_pretrained(tmp_path)
    back.logits(torch.ones(1, 10), torch.ones(1, 10))
    assert asked == []
    assert torch.equal(back.embed(TEXTS[:2]), head.embed(TEXTS[:2]))
    back.embed(TEXTS[:1])
    assert asked == ["words"]


def test_another_tower_is_refused(head: TextHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"trained with the text tower words 1\.2 .* this one is"):
        TextHead.from_pretrained(tmp_path, Words(seed=1))
    monkeypatch.setattr(head_module, "load_tower", lambda _: Words(seed=1))
    with pytest.raises(CheckpointError, match="trained with the text tower"):
        TextHead.from_pretrained(tmp_path).embed(["a"])


def test_scores_are_replaced_and_nothing_else(head: TextHead) -> None:
    other = head.with_scores(1.0, -1.0)
    assert (other.log_scale, other.bias) == (1.0, -1.0)
    assert (head.log_scale, head.bias) == (2.5, -3.25)
    assert torch.equal(replace(other).projection, head.projection)


# -- Bad files -------------------------------------------------------------------------------------


def test_files_that_are_not_a_head(head: TextHead, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"text\.json: no text head"):
        TextHead.from_pretrained(tmp_path)
    head.save_pretrained(tmp_path)
    whole = json.loads((tmp_path / "text.json").read_text())
    changes: list[tuple[dict[str, Any], str]] = [
        ({"more": 1}, "its keys are not those of a text head"),
        ({"width": "10"}, "its keys are not those"),
        ({"width": 11}, r"holds .*, not .* as text\.json says"),
        ({"projected": False}, r"as text\.json says"),
    ]
    for change, line in changes:
        (tmp_path / "text.json").write_text(json.dumps(whole | change))
        with pytest.raises(CheckpointError, match=line):
            TextHead.from_pretrained(tmp_path)
    for text in ("{", "[1]", "null"):
        (tmp_path / "text.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"text\.json"):
            TextHead.from_pretrained(tmp_path)


def test_weights_that_are_not_a_heads(head: TextHead, tmp_path: Path) -> None:
    path = head.save_pretrained(tmp_path)
    state = load_file(path)
    for changed, line in (
        ({key: value for key, value in state.items() if key != "bias"}, r"as text\.json says"),
        (state | {"more": torch.zeros(1)}, r"as text\.json says"),
        (state | {"mean": torch.full((24,), torch.nan)}, "mean holds NaN or infinity"),
    ):
        save_file(changed, path)
        with pytest.raises(CheckpointError, match=line):
            TextHead.from_pretrained(tmp_path)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"text\.safetensors: no such file"):
        TextHead.from_pretrained(tmp_path)
