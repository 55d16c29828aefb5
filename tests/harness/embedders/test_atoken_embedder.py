"""AToken as an embedder against the library's own calls: images, the three readings of clips, texts, the card."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from atoken.config import ATokenConfig, TransformerConfig
from atoken.text import TextHead
from atoken.tokenizer import AToken
from harness import registry
from harness.embedders.atoken import create
from harness.errors import BenchError

HALF = TransformerConfig(width=32, blocks=2, heads=2, mlp=48)
CONFIG = ATokenConfig(name="tiny", encoder=HALF, decoder=HALF)
ON = {"device": "cpu", "dtype": "float32"}


class HashTower:
    """Texts to 40 numbers from their hash."""

    name, version, width = "hash", "1.0", 40
    fingerprint = hashlib.sha256(b"tower").hexdigest()

    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") for text in texts]
        return F.normalize(torch.stack([torch.randn(40, generator=torch.Generator().manual_seed(s)) for s in seeds]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights without a text head."""
    path = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    model = AToken(CONFIG)
    with torch.no_grad():
        model.encoder.head.probe.normal_()  # at zero it would look at nothing
    model.save_pretrained(path)
    return path


@pytest.fixture
def headed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same with a text head, whose tower is found under its name."""
    AToken.from_pretrained(folder).save_pretrained(tmp_path)
    TextHead.fitted(HashTower(), [f"text {n}" for n in range(60)], 32).save_pretrained(tmp_path)
    monkeypatch.setattr("atoken.text.head.load_tower", lambda name: HashTower())
    return tmp_path


def clips() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (count, 32, 48, 3), np.uint8) for count in (6, 3)]


def test_images_are_the_library_s(folder: Path) -> None:
    embedder = registry.create_embedder(f"atoken:{folder}", ckpt=None, preset=None, **ON)
    images = [clip[0] for clip in clips()]
    wanted = AToken.from_pretrained(folder).embed(images).numpy()
    assert np.array_equal(embedder.embed_images(images), wanted)
    assert embedder.token_count(32, 48) == 6
    floats = [image.astype(np.float32) / np.float32(127.5) - 1 for image in images]
    np.testing.assert_allclose(embedder.embed_images(floats), wanted, atol=1e-5)


def test_an_image_s_vector_is_its_own(folder: Path) -> None:
    embedder = create(str(folder), **ON)
    images = [frame for clip in clips() for frame in clip[:, : 16 + len(clip)]]
    together = embedder.embed_images(images)
    alone = np.concatenate([embedder.embed_images([image]) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_frames_are_images_whose_unit_vectors_are_averaged(folder: Path) -> None:
    model = AToken.from_pretrained(folder)
    found = create(str(folder), **ON).embed_clips(clips())
    for vector, clip in zip(found, clips(), strict=True):
        mean = np.stack([model.embed([frame])[0].numpy() for frame in clip]).mean(0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)


def test_native_clips_are_the_library_s_videos(folder: Path) -> None:
    found = create(str(folder), clips="native", **ON).embed_clips(clips())
    assert np.array_equal(found, AToken.from_pretrained(folder).embed(clips()).numpy())


def test_joint_frames_are_patches_of_their_own_that_see_each_other(folder: Path) -> None:
    (long, _) = clips()
    found = create(str(folder), clips="joint", **ON).embed_clips([long])
    # The same by hand: each frame is a group of four whose other three are grey, the value that fills patches up.
    filled = np.zeros((6, 4, 32, 48, 3), np.float32)
    filled[:, 0] = long.astype(np.float32) / np.float32(127.5) - 1
    video = torch.from_numpy(filled.reshape(24, 32, 48, 3))
    wanted = AToken.from_pretrained(folder).embed([video]).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    # One frame alone is the image.
    single = create(str(folder), clips="joint", **ON).embed_clips([long[:1]])
    np.testing.assert_allclose(single, AToken.from_pretrained(folder).embed([long[0]]).numpy(), atol=1e-6)
    assert not np.allclose(found, create(str(folder), **ON).embed_clips([long]), atol=1e-3)


def test_texts_go_through_the_head(headed: Path) -> None:
    embedder = create(str(headed), **ON)
    head = TextHead.from_pretrained(headed, HashTower())
    assert np.array_equal(embedder.embed_texts(["a", "b"]), head.embed(["a", "b"]).numpy())
    assert embedder.card.text is not None
    assert embedder.card.text.name == "hash 1.0"
    assert embedder.card.text.fingerprint == head.fingerprint
    assert embedder.card.width == 32
    assert list(embedder.card.weights_sha256) == ["model.safetensors"]


def test_without_a_head_there_are_no_texts(folder: Path) -> None:
    embedder = create(str(folder), **ON)
    assert embedder.card.text is None
    with pytest.raises(BenchError, match="gives no vectors of texts"):
        embedder.embed_texts(["a"])


def test_a_reading_that_is_not_the_usual_one_is_in_the_title(folder: Path) -> None:
    assert create(str(folder), **ON).card.title == create(str(folder), clips="frames", **ON).card.title
    joint = create(str(folder), clips="joint", **ON).card
    assert joint.title.endswith("(clips joint)")
    assert joint.settings["clips"] != create(str(folder), **ON).card.settings["clips"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"clips": "mean"}, "clips=mean: not one of frames, joint, native"),
        ({"text": "siglip2"}, "write siglip2:FOLDER"),
        ({"text": "bert:somewhere"}, "write siglip2:FOLDER"),
    ],
)
def test_a_wrong_option_says_what_is_wrong(folder: Path, options: dict[str, str], said: str) -> None:
    with pytest.raises(BenchError, match=said):
        registry.create_embedder(f"atoken:{folder}", ckpt=None, preset=None, options=options, **ON)


def test_a_tower_beside_a_head_or_of_another_width_is_refused(
    folder: Path, headed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BenchError, match="has a text head, which says its tower"):
        create(str(headed), text="siglip2:somewhere", **ON)

    def tower(*arguments: Any, **options: Any) -> HashTower:
        return HashTower()

    monkeypatch.setattr("atoken.text.load_tower", tower)
    with pytest.raises(BenchError, match=r"its vectors have 40 numbers, those of .* 32"):
        create(str(folder), text="siglip2:somewhere", **ON)
