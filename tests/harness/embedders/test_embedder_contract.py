"""The embedder contract: held by what the project offers, and broken visibly by what breaks it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atoken.assets.mesh import Mesh
from harness import registry
from harness.data.catalog import open_dataset
from harness.embedders.base import Embedder, EmbedderCard, SeenAsset, TextReader, unit
from harness.embedders.contract import check_embedder
from harness.embedders.frames import ByFrames, ByViews
from harness.errors import BenchError
from harness.tokenizers.asset import InputViews
from tests.harness.embedders.tiny_models import open_clip_folder, pictures, transformers_folder


class Means(Embedder):
    """A vector of a picture's mean colours and sides, and of a text's letters: right in all that is asked."""

    def __init__(self) -> None:
        self.card = EmbedderCard(
            name="means", title="Means", source="made here", width=4, text=TextReader(name="x", fingerprint="0" * 64)
        )

    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return unit(np.array([[*x.mean((0, 1)), x.shape[0]] for x in images]).reshape(-1, 4))

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        return unit(np.array([[len(t), t.count("a"), t.count(" "), 1] for t in texts], np.float64).reshape(-1, 4))


def test_a_right_one_has_no_faults() -> None:
    assert check_embedder(Means()) == []


def spoilt(**methods: Callable[..., Any]) -> Embedder:
    return type("Spoilt", (Means,), methods)()


def _writing(self: Means, images: Sequence[np.ndarray]) -> np.ndarray:
    vectors = Means.embed_images(self, images)
    for x in images:
        x[0, 0] = 255 - x[0, 0]
    return vectors


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        (lambda self, x: Means.embed_images(self, x)[:, :3], "is wanted"),
        (lambda self, x: Means.embed_images(self, x).astype(np.float64), "is wanted"),
        (lambda self, x: Means.embed_images(self, x) * 1.01, "length differs from 1"),
        (lambda self, x: Means.embed_images(self, x) * np.float32(np.nan), "NaN"),
        (
            lambda self, x: unit(Means.embed_images(self, x) + np.random.default_rng().random((len(x), 4))),
            "second call",
        ),
        (lambda self, x: unit(Means.embed_images(self, x) + len(x)), "alone, samples get"),
        (
            lambda self, x: unit(Means.embed_images(self, x) + np.arange(len(x))[:, None]),
            "in the reverse order, samples get",
        ),
        (lambda self, x: unit(np.ones((len(x), 4))), "unlike samples all get one vector"),
        (_writing, "writes into the samples"),
        (lambda self, x: 1 / 0, "raised ZeroDivisionError"),
    ],
)
def test_what_breaks_it_is_seen(method: Callable[..., Any], fault: str) -> None:
    faults = check_embedder(spoilt(embed_images=method))
    assert any(found.startswith("image: ") and fault in found for found in faults), faults


def test_what_the_card_does_not_name_is_refused() -> None:
    answering = spoilt(embed_clips=lambda self, clips: unit(np.ones((len(clips), 4))))
    assert check_embedder(answering) == ["video: vectors come although the card does not name them"]
    silent = Means()
    silent.card = replace(silent.card, text=None)
    assert check_embedder(silent) == ["text: vectors come although the card does not name them"]
    crashing = spoilt(embed_clips=lambda self, clips: clips[99])
    assert "BenchError is wanted and not IndexError" in check_embedder(crashing)[0]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"name": "a/b"}, "not usable as a folder name"),
        ({"source": " "}, "title or source is empty"),
        ({"modalities": ("sound",)}, "are not some of"),
        ({"width": 0}, "width 0"),
        ({"text": TextReader(name="x", fingerprint="x")}, "fingerprint"),
        ({"weights_sha256": {"a": "b"}}, "weights_sha256 of a"),
        ({"settings": {"a": {1, 2}}}, "cannot be written as JSON"),
    ],
)
def test_a_wrong_card_is_seen(changes: dict[str, Any], fault: str) -> None:
    wrong = Means()
    wrong.card = replace(wrong.card, **changes)
    (found,) = check_embedder(wrong)
    assert fault in found


# -- What the project offers -----------------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def assets(size: int) -> list[SeenAsset]:
    samples = open_dataset("asset", "samples", None)
    return [SeenAsset(samples.open(index).mesh, InputViews(2, size)) for index in range(2)]


def test_open_clip_holds_it(tmp_path: Path, offline: None) -> None:
    open_clip_folder(tmp_path)
    embedder = registry.create_embedder(f"open_clip:{tmp_path}", ckpt=None, preset=None, device="cpu", dtype="float32")
    assert check_embedder(embedder, tolerance=0) == []
    assert check_embedder(ByFrames(embedder), tolerance=0) == []
    assert check_embedder(ByViews(embedder, "white"), assets=assets(32), tolerance=0) == []


def test_the_projects_model_holds_it(offline: None) -> None:
    embedder = registry.create_embedder("atoken", ckpt=None, preset=None, device="cpu", dtype="float32")
    assert check_embedder(embedder) == []


@pytest.mark.parametrize("kind", ["siglip2", "siglip", "clip"])
def test_transformers_holds_it(kind: str, tmp_path: Path, offline: None) -> None:
    pytest.importorskip("ftfy", reason="cleaning texts needs ftfy")
    transformers_folder(tmp_path, kind)
    embedder = registry.create_embedder(
        f"transformers:{tmp_path}", ckpt=None, preset=None, device="cpu", dtype="float32"
    )
    assert check_embedder(embedder, tolerance=0) == []


def test_every_registered_embedder_is_looked_at() -> None:
    """One that is added needs its line here and a test above or in its own file."""
    assert set(registry.embedders()) == {"atoken", "frames", "open_clip", "timm", "transformers", "views"}


# -- Frames and views ------------------------------------------------------------------------------


def test_a_clip_is_the_mean_of_its_frames() -> None:
    inner, frames = Means(), np.stack(pictures(70, 16, 16))
    mean = inner.embed_images(list(frames)).astype(np.float64).mean(0)
    one, other = ByFrames(inner).embed_clips([frames, frames[:3]])
    np.testing.assert_allclose(one, mean / np.linalg.norm(mean), atol=1e-7)
    assert not np.array_equal(one, other)
    assert np.array_equal(ByFrames(inner).embed_clips([frames[:1]])[0], inner.embed_images([frames[0]])[0])
    assert np.array_equal(ByFrames(inner).embed_texts(["a"]), inner.embed_texts(["a"]))


class Pictures(InputViews):
    """Pictures that are given, and no mesh."""

    def render(self, mesh: Mesh) -> Any:
        return self

    def on(self, ground: float) -> np.ndarray:
        return np.full((self.count, 8, 8, 3), round(255 * ground), np.uint8)


def test_an_asset_lies_on_the_ground_that_is_asked_for() -> None:
    seen = SeenAsset(None, Pictures(3, 8))  # type: ignore[arg-type]
    inner = Means()
    for ground, value in (("black", 0), ("white", 255)):
        wanted = inner.embed_images([np.full((8, 8, 3), value, np.uint8)])
        np.testing.assert_allclose(ByViews(inner, ground).embed_assets([seen]), wanted, atol=1e-7)


def test_frames_and_views_of_nothing() -> None:
    def make(spec: str, **options: str) -> Embedder:
        return registry.create_embedder(spec, ckpt=None, preset=None, device="cpu", dtype="float32", options=options)

    for word in ("frames", "views"):
        with pytest.raises(BenchError, match=f"{word} needs an embedder of images"):
            make(word)
        with pytest.raises(BenchError, match="no embedder 'nothing'"):
            make(f"{word}:nothing")
        with pytest.raises(BenchError, match="takes no images"):
            make(f"{word}:{__name__}:videos")
    with pytest.raises(BenchError, match="background=grey: not one of black, white"):
        make("views:atoken", background="grey")


def videos(argument: str | None, *, device: str, dtype: str) -> Embedder:
    embedder = Means()
    embedder.card = replace(embedder.card, modalities=("video",))
    return embedder
