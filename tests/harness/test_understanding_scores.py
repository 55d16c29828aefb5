"""Zero-shot scores against open_clip's own code and the published definition of top-k; what equal scores do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atoken.text import class_vectors
from atoken.text.zeroshot import accuracy
from harness.console import Console
from harness.embedders.base import Embedder, EmbedderCard, TextReader, unit
from harness.errors import BenchError
from harness.execution import execute
from harness.plan import Share
from harness.protocol import EmbedRules, MetricSpec
from harness.understanding import templates
from harness.understanding.measures import ZeroShot, build_embedding_metrics, scored
from harness.understanding.texts import TextVectors
from tests.harness.embedders.tiny_models import open_clip_folder
from tests.harness.embedding_fakes import COLOURS, Colours, Tinted, plan, protocol

SPECS = [
    *(MetricSpec(metric="top-k", name=f"top-{k}", options={"k": k}) for k in (1, 3, 5)),
    MetricSpec(metric="class-mean", name="class mean"),
]


def drawn(count: int, classes: int, width: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    vectors, texts = (unit(random.normal(size=(n, width))) for n in (count, classes))
    return vectors, texts, random.integers(0, classes, count)


def cells(vectors: np.ndarray, texts: np.ndarray, labels: np.ndarray, bootstrap: int = 0) -> dict[str, float | None]:
    metric = ZeroShot(SPECS, bootstrap)
    columns = metric.measured(scored(vectors, texts, labels))
    return {cell.name: cell.value for cell in metric.cells(columns, {"label": labels}, seed=0)}


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(2, 12), st.integers(0, 99))
def test_top_k_is_what_torch_s_topk_gives_without_ties(count: int, classes: int, seed: int) -> None:
    vectors, texts, labels = drawn(count, classes, seed=seed)
    logits = 100 * torch.from_numpy(vectors).double() @ torch.from_numpy(texts).double().t()
    found = cells(vectors, texts, labels)
    for k in (1, 3, 5):
        first = logits.topk(min(k, classes), dim=1).indices
        hit = (first == torch.from_numpy(labels)[:, None]).any(1)
        assert found[f"top-{k}"] == pytest.approx(100 * float(hit.double().mean()))
    shares_of = accuracy(torch.from_numpy(vectors), torch.from_numpy(texts), torch.from_numpy(labels), (1, 3, 5))
    assert [found[f"top-{k}"] for k in (1, 3, 5)] == pytest.approx([100 * shares_of[k] for k in (1, 3, 5)])
    # CLIP_benchmark's mean per class recall: each class's share of right answers, classes at equal weight.
    right = logits.argmax(1).numpy() == labels
    shares = [right[labels == label].mean() for label in np.unique(labels)]
    assert found["class mean"] == pytest.approx(100 * float(np.mean(shares)))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(2, 8), st.integers(0, 99), st.integers(1, 7))
def test_equal_scores_count_against(count: int, classes: int, seed: int, twins: int) -> None:
    vectors, texts, labels = drawn(count, classes, seed=seed)
    # Every class has twins of the same vector, which are never right: the own class is never the first alone.
    doubled = np.concatenate([texts] * (twins + 1))
    found = cells(vectors, doubled, labels)
    assert found["top-1"] == found["class mean"] == 0
    alone = cells(vectors, texts, labels)
    if twins < 3:
        assert found["top-3"] is not None
        assert alone["top-1"] is not None
        assert found["top-3"] >= alone["top-1"]


def test_a_model_that_gives_everything_one_vector_finds_nothing() -> None:
    one = np.full((9, 4), 0.5, np.float32)
    texts, labels = np.full((6, 4), 0.5, np.float32), np.arange(9) % 6
    assert set(cells(one, texts, labels).values()) == {0.0}
    scores = scored(one, texts, labels)
    assert scores.nearer.tolist() == [5] * 9
    assert (scores.predicted != labels).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 20), st.integers(0, 99))
def test_a_sample_s_scores_hang_on_nothing_else(count: int, seed: int) -> None:
    vectors, texts, labels = drawn(count, 7, width=33, seed=seed)
    together = scored(vectors, texts, labels)
    for row in range(count):
        alone = scored(vectors[row : row + 1], texts, labels[row : row + 1])
        for name in ("nearer", "margin", "predicted", "score"):
            assert getattr(alone, name)[0] == getattr(together, name)[row]


def test_the_interval_of_the_class_mean_holds_it() -> None:
    vectors, texts, labels = drawn(60, 5)
    metric = ZeroShot(SPECS, 200)
    made = metric.cells(metric.measured(scored(vectors, texts, labels)), {"label": labels}, seed=3)
    for cell in made:
        assert cell.interval is not None
        assert cell.value is not None
        assert cell.interval[0] <= cell.value <= cell.interval[1]
    again = metric.cells(metric.measured(scored(vectors, texts, labels)), {"label": labels}, seed=3)
    assert made == again


class OpenClip(Embedder):
    """open_clip's own model behind the contract."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        reader = TextReader(name="open_clip", fingerprint="0" * 64)
        self.card = EmbedderCard(name="clip", title="clip", width=24, text=reader)
        self.model, self.tokenizer = model, tokenizer

    @torch.no_grad()
    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(
            [self.model.encode_image(_tensor(image)[None], normalize=True).numpy() for image in images]
        )

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        found: np.ndarray = self.model.encode_text(self.tokenizer(list(texts)), normalize=True).numpy()
        return found


def _tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float() / 127.5 - 1


@pytest.mark.parametrize("name", ["openai-80", "openai", "own"])
def test_classes_and_accuracy_are_open_clip_s(tmp_path: Path, name: Any) -> None:
    open_clip = pytest.importorskip("open_clip", reason="needs open_clip, which is compared with")
    model = open_clip_folder(tmp_path / "clip")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'clip'}")
    sentences = templates.templates(name)
    theirs = open_clip.build_zero_shot_classifier(model, tokenizer, COLOURS, sentences, num_classes_per_batch=2)
    ours = class_vectors(TextVectors(OpenClip(model, tokenizer), None), COLOURS, sentences)
    torch.testing.assert_close(ours, theirs.t(), atol=1e-6, rtol=1e-5)

    dataset = Tinted(30, sizes=((32, 32),))
    images = torch.stack([_tensor(dataset.read(index).pixels) for index in range(30)])
    target = torch.tensor([sample.label for sample in dataset.samples])
    with torch.no_grad():
        logits = 100.0 * model.encode_image(images, normalize=True) @ theirs
    # The formula of open_clip_train's `accuracy` and of CLIP_benchmark.
    correct = logits.topk(2, 1, True, True).indices.t().eq(target[None])
    wanted = [float(correct[:k].any(0).sum()) for k in (1, 2)]
    rules = protocol(embed=EmbedRules(side=32, templates=name))
    made = plan(dataset=dataset, tokenizer=OpenClip(model, tokenizer), protocol=rules)
    record = execute(made, tmp_path / "runs", share=Share(), workers=0, console=Console())
    assert record is not None
    assert [cell["value"] for cell in record["cells"][:2]] == pytest.approx([100 * hits / 30 for hits in wanted])


def test_clip_s_templates_are_80_and_the_bare_name() -> None:
    pytest.importorskip("open_clip", reason="needs open_clip, whose templates they are")
    found = templates.templates("openai")
    assert len(found) == len(set(found)) == 81
    assert found[-1] == "{}"
    assert found[:80] == templates.templates("openai-80")
    assert "a bad photo of a {}." in found
    names = templates.imagenet_names()
    assert (len(names), names[0]) == (1000, "tench")
    assert templates.templates("bare") == ("{}",)


def test_without_open_clip_its_templates_say_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(templates, "import_module", missing)
    with pytest.raises(BenchError, match="pip install open_clip_torch"):
        templates.templates("openai")
    with pytest.raises(BenchError, match="pip install open_clip_torch"):
        templates.imagenet_names()
    assert "{}" in templates.templates("own")


def test_texts_are_read_once_and_kept(tmp_path: Path) -> None:
    embedder = Colours()
    first = TextVectors(embedder, tmp_path).embed(["red", "green", "red"])
    assert embedder.texts == ["red", "green"]
    assert torch.equal(first[0], first[2])
    again = Colours()
    assert torch.equal(TextVectors(again, tmp_path).embed(["green", "red"]), first[[1, 0]])
    assert again.texts == []


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ([MetricSpec(metric="psnr", name="PSNR")], "no metric family 'psnr' of embeddings"),
        ([MetricSpec(metric="top-k", name="a", options={"n": 1})], "top-k has no option n; it has: k"),
        ([MetricSpec(metric="top-k", name="a", options={"k": 0})], "k is 0"),
        ([MetricSpec(metric="top-k", name="a"), MetricSpec(metric="class-mean", name="a")], "two metrics"),
    ],
)
def test_a_wrong_metric_says_what_is_wrong(metrics: list[MetricSpec], said: str) -> None:
    with pytest.raises(BenchError, match=said):
        build_embedding_metrics(protocol(metrics=tuple(metrics)))
