"""The CLIP term against torch's cosine, and open_clip's own preprocessing and tower on a small architecture."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from atoken.errors import ATokenError
from atoken.training.losses import OpenClipTower, clip_distance, clip_similarity

needs_open_clip = pytest.mark.skipif(find_spec("open_clip") is None, reason="open_clip_torch is not installed")
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 32, "head_width": 16, "patch_size": 32},
    "text_cfg": {"context_length": 8, "vocab_size": 100, "width": 16, "heads": 2, "layers": 1},
}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def test_distance_is_one_minus_cosine_without_gradient_to_the_original() -> None:
    generator = torch.Generator().manual_seed(0)
    rebuilt, original = torch.randn(2, 5, 3, 8, 8, generator=generator, dtype=torch.float64).unbind(0)
    rebuilt.requires_grad_()
    original.requires_grad_()
    matrix = torch.randn(192, 7, generator=generator, dtype=torch.float64)
    value = clip_distance(lambda images: images.flatten(1) @ matrix, rebuilt, original)
    wanted = 1 - F.cosine_similarity(rebuilt.flatten(1) @ matrix, original.detach().flatten(1) @ matrix)
    torch.testing.assert_close(value, wanted, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(loss.sum(), rebuilt)[0] for loss in (value, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert torch.autograd.grad(value.sum(), original, allow_unused=True) == (None,)


def test_a_small_distance_is_not_lost_in_float32() -> None:
    one = torch.tensor([[1.0, 0.0]])
    for angle in (1e-2, 1e-4):
        other = torch.tensor([[np.cos(angle), np.sin(angle)]], dtype=torch.float32)
        assert clip_distance(lambda x: x, one, other).item() == pytest.approx(angle**2 / 2, rel=1e-3)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registered architecture of open_clip, with a published tag, and a checkpoint of it."""
    import open_clip
    from open_clip import factory, pretrained

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setitem(factory._MODEL_CONFIGS, "small-test", CONFIG)
    monkeypatch.setitem(pretrained._PRETRAINED, "small-test", {"tag": {"mean": MEAN, "std": STD, "url": ""}})
    torch.manual_seed(0)
    path = tmp_path / "small.pt"
    torch.save(open_clip.create_model("small-test").state_dict(), path)
    return path


@needs_open_clip
def test_the_tower_embeds_as_open_clip_with_its_own_preprocessing(small: Path) -> None:
    import open_clip

    tower = OpenClipTower("small-test", small)
    model, _, preprocess = open_clip.create_model_and_transforms(
        "small-test", pretrained=str(small), image_mean=MEAN, image_std=STD
    )
    pixels = np.random.default_rng(0).integers(0, 256, size=(224, 224, 3), dtype=np.uint8)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
    images.requires_grad_()
    wanted = model.eval().encode_image(preprocess(Image.fromarray(pixels))[None])
    torch.testing.assert_close(tower(images), wanted, rtol=1e-4, atol=1e-5)
    assert not any(weight.requires_grad for weight in tower.parameters())
    (gradient,) = torch.autograd.grad(clip_distance(tower, images, -images.detach()).sum(), images)
    assert gradient.abs().max() > 0


@needs_open_clip
def test_colour_statistics_are_those_of_the_published_weights() -> None:
    import open_clip

    clip = (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    assert clip_similarity._statistics(open_clip, "ViT-B-16") == clip
    assert clip_similarity._statistics(open_clip, "ViT-B-16-SigLIP") == ((0.5,) * 3, (0.5,) * 3)
    with pytest.raises(ATokenError, match="does not say"):
        clip_similarity._statistics(open_clip, "ViT-S-32")


@needs_open_clip
def test_what_cannot_be_loaded_is_told_in_one_line(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from open_clip import factory, pretrained

    def refused(name: str, weights: Any, told: str) -> None:
        with pytest.raises(ATokenError, match=told) as caught:
            OpenClipTower(name, weights)
        assert "\n" not in str(caught.value)

    refused("ViT-nothing", small, "no architecture 'ViT-nothing'")
    refused("hf-hub:some/model", small, "no architecture")
    # A tag is not fetched.
    refused("small-test", "tag", "tag: no such file")
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"nothing")
    refused("small-test", broken, r"broken\.pt: not a checkpoint of open_clip's small-test")
    other = tmp_path / "other.pt"
    torch.save({"visual.proj": torch.zeros(2)}, other)
    refused("small-test", other, r"other\.pt: not a checkpoint")
    large = json.loads(json.dumps(CONFIG))
    large["vision_cfg"]["image_size"] = 256
    monkeypatch.setitem(factory._MODEL_CONFIGS, "large-test", large)
    monkeypatch.setitem(pretrained._PRETRAINED, "large-test", {"tag": {}})
    import open_clip

    torch.save(open_clip.create_model("large-test").state_dict(), other)
    refused("large-test", other, "the perceptual terms are of 224")
    monkeypatch.setattr(clip_similarity, "find_spec", lambda _: None)
    refused("small-test", small, "pip install open_clip_torch")
