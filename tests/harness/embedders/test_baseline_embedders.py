"""Rows of other packages give what those packages give, and say in one line what is wrong with a file."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from atoken.errors import ATokenError, CheckpointError
from atoken.text.clean import clean
from harness import registry
from harness.embedders.base import Embedder
from harness.errors import BenchError
from tests.harness.embedders.tiny_models import (
    CLIP,
    HALF,
    OPENAI,
    TEXTS,
    open_clip_folder,
    pictures,
    transformers_folder,
)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def made(spec: str, dtype: str = "float32", **options: str) -> Embedder:
    return registry.create_embedder(spec, ckpt=None, preset=None, device="cpu", dtype=dtype, options=options)


def close(ours: np.ndarray, theirs: torch.Tensor) -> None:
    assert ours.dtype == np.float32
    torch.testing.assert_close(torch.from_numpy(ours), theirs, atol=1e-5, rtol=0)


# -- open_clip -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[OPENAI, HALF], ids=["openai", "half"])
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    place = tmp_path_factory.mktemp("open-clip")
    return open_clip_folder(place, pixels=request.param), place


@torch.no_grad()
def test_open_clip_is_its_own(clip: tuple[Any, Path]) -> None:
    open_clip = pytest.importorskip("open_clip")
    theirs, folder = clip
    embedder = made(f"open_clip:{folder}")
    images = pictures(5, 32, 32)
    preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")[1]
    pixels = torch.stack([preprocess(Image.fromarray(picture)) for picture in images])
    close(embedder.embed_images(images), theirs.encode_image(pixels, normalize=True))
    ids = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    close(embedder.embed_texts(TEXTS), theirs.encode_text(ids, normalize=True))
    assert (embedder.card.width, embedder.card.side) == (24, 32)
    assert len(embedder.card.weights_sha256["open_clip_model.safetensors"]) == 64


@torch.no_grad()
def test_float_pixels_are_the_same_picture(clip: tuple[Any, Path]) -> None:
    embedder, images = made(f"open_clip:{clip[1]}"), pictures(2, 32, 32)
    floats = [(picture / 127.5 - 1).astype(np.float32) for picture in images]
    np.testing.assert_allclose(embedder.embed_images(floats), embedder.embed_images(images), atol=1e-6)


def test_open_clip_by_name_takes_the_published_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip itself would take CLIP's mean and std for any file: SigLIP2 and PE want others."""
    open_clip = pytest.importorskip("open_clip")
    theirs = open_clip_folder(tmp_path / "folder", pixels=HALF)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "tiny-named.json").write_text(json.dumps(CLIP))
    open_clip.add_model_config(tmp_path / "configs")
    file = tmp_path / "weights.pt"
    torch.save(theirs.state_dict(), file)
    with pytest.raises(BenchError, match="knows no published weights of tiny-named"):
        made(f"open_clip:tiny-named:{file}")
    published: dict[str, dict[str, Any]] = {"one": HALF}
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda _: list(published))
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda _, tag: published[tag])
    images = pictures(2, 32, 32)
    wanted = made(f"open_clip:{tmp_path / 'folder'}").embed_images(images)
    assert np.array_equal(made(f"open_clip:tiny-named:{file}").embed_images(images), wanted)
    published["two"] = OPENAI
    with pytest.raises(BenchError, match=r"want unlike pixels; say whose they are with --option tag=one\|two"):
        made(f"open_clip:tiny-named:{file}")
    assert np.array_equal(made(f"open_clip:tiny-named:{file}", tag="one").embed_images(images), wanted)
    assert not np.array_equal(made(f"open_clip:tiny-named:{file}", tag="two").embed_images(images), wanted)
    with pytest.raises(BenchError, match="tag=three: open_clip knows of tiny-named one, two"):
        made(f"open_clip:tiny-named:{file}", tag="three")
    published["one"] = HALF | {"quick_gelu": True}
    with pytest.raises(BenchError, match="another activation than tiny-named; take tiny-named-quickgelu"):
        made(f"open_clip:tiny-named:{file}", tag="one")


@pytest.mark.parametrize("model", ["ViT-SO400M-16-SigLIP2-256", "PE-Core-L-14-336", "ViT-B-16"])
def test_what_open_clip_has_published_is_found(model: str) -> None:
    pytest.importorskip("open_clip")
    from harness.embedders.open_clip import _published

    wanted = OPENAI if model == "ViT-B-16" else HALF
    assert _published(model, None, {}) == (tuple(wanted["mean"]), tuple(wanted["std"]))


def test_open_clip_of_another_resolution(clip: tuple[Any, Path], tmp_path: Path) -> None:
    config = CLIP | {"vision_cfg": {**CLIP["vision_cfg"], "image_size": 48}}
    open_clip_folder(tmp_path, config)
    shutil.copy(clip[1] / "open_clip_model.safetensors", tmp_path)
    with pytest.raises(CheckpointError, match="its images have 5 positions, those of the model 10"):
        made(f"open_clip:{tmp_path}")


def test_a_side_that_the_model_does_not_take(clip: tuple[Any, Path]) -> None:
    with pytest.raises(BenchError, match="takes images of 32 x 32, not of 48 x 48; take a protocol"):
        made(f"open_clip:{clip[1]}").embed_images(pictures(1, 48, 48))


# -- transformers ----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["siglip2", "siglip", "siglip-1", "clip"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Path]:
    place = tmp_path_factory.mktemp(request.param)
    return request.param, transformers_folder(place, request.param), place


@torch.no_grad()
def test_transformers_is_its_own(folder: tuple[str, Any, Path]) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("ftfy", reason="cleaning texts needs ftfy")
    kind, theirs, place = folder
    embedder = made(f"transformers:{place}")
    if kind == "siglip2":
        images = [*pictures(3, 64, 48), *pictures(2, 32, 80)]
        # Padded as the official processor pads; its resizing is the protocol's here.
        processor = transformers.Siglip2ImageProcessor(do_resize=False, max_num_patches=16)
        inputs = processor(images=images, return_tensors="pt")
    else:
        images = pictures(5, 32, 32)
        name = "CLIPImageProcessor" if kind == "clip" else "SiglipImageProcessor"
        mean, std = (OPENAI if kind == "clip" else HALF).values()
        processor = getattr(transformers, name)(do_resize=False, do_center_crop=False, image_mean=mean, image_std=std)
        inputs = {"pixel_values": processor(images=images, return_tensors="pt")["pixel_values"]}
    close(embedder.embed_images(images), F.normalize(theirs.get_image_features(**inputs).pooler_output, dim=-1))
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    texts = TEXTS if kind in ("clip", "siglip-1") else [clean(text) for text in TEXTS]
    length = theirs.config.text_config.max_position_embeddings
    read = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    ids = {"input_ids": read["input_ids"]} | ({"attention_mask": read["attention_mask"]} if kind == "clip" else {})
    close(embedder.embed_texts(TEXTS), F.normalize(theirs.get_text_features(**ids).pooler_output, dim=-1))
    assert embedder.card.side == (None if kind == "siglip2" else 32)


def test_naflex_wants_whole_patches(tmp_path: Path) -> None:
    pytest.importorskip("ftfy", reason="cleaning texts needs ftfy")
    transformers_folder(tmp_path, "siglip2")
    with pytest.raises(ATokenError, match="an image of 32 x 40: its sides are no multiples of 16"):
        made(f"transformers:{tmp_path}").embed_images(pictures(1, 32, 40))


def test_folders_that_are_none(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(BenchError, match="transformers needs a folder"):
        made("transformers")
    with pytest.raises(CheckpointError, match=r"config\.json: No such file"):
        made(f"transformers:{tmp_path}")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json: no JSON"):
        made(f"transformers:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(BenchError, match="a model of type 'bert'; run are siglip2, siglip, clip"):
        made(f"transformers:{tmp_path}")
    transformers_folder(tmp_path, "clip")
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(BenchError, match="image_mean: is None, not three numbers"):
        made(f"transformers:{tmp_path}")


@pytest.mark.parametrize("half", ["vision_model.post_layernorm.bias", "text_model.final_layer_norm.bias"])
def test_transformers_is_strict(tmp_path: Path, half: str) -> None:
    transformers_folder(tmp_path, "clip")
    state = load_file(tmp_path / "model.safetensors")
    del state[half]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"does not fit CLIP.*1 missing") as caught:
        made(f"transformers:{tmp_path}")
    assert "\n" not in str(caught.value)


# -- timm ------------------------------------------------------------------------------------------

TINY = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    timm = pytest.importorskip("timm", reason="needs timm, which is compared with")
    torch.manual_seed(0)
    model = timm.create_model(TINY, pretrained=False).eval()
    file = tmp_path_factory.mktemp("timm") / "model.safetensors"
    save_file(model.state_dict(), file)
    return model, file


@torch.no_grad()
def test_timm_is_its_own(tower: tuple[Any, Path], tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    theirs, file = tower
    embedder = made(f"timm:{TINY}:{file}")
    images = pictures(2, 224, 224)
    config = timm.data.resolve_model_data_config(theirs)
    transform = timm.data.create_transform(**(config | {"crop_pct": 1.0}))
    pixels = torch.stack([transform(Image.fromarray(picture)) for picture in images])
    features = theirs.forward_head(theirs.forward_features(pixels), pre_logits=True)
    close(embedder.embed_images(images), F.normalize(features, dim=-1))
    with pytest.raises(BenchError, match="gives no vectors of texts"):
        embedder.embed_texts(["a"])
    # Saved without its classifier it is the same tower.
    headless = {k: v for k, v in theirs.state_dict().items() if not k.startswith("head.")}
    save_file(headless, tmp_path / "headless.safetensors")
    again = made(f"timm:{TINY}:{tmp_path / 'headless.safetensors'}")
    assert np.array_equal(again.embed_images(images), embedder.embed_images(images))


def test_timm_in_bfloat16(tower: tuple[Any, Path]) -> None:
    images = pictures(1, 224, 224)
    whole, half = (made(f"timm:{TINY}:{tower[1]}", dtype).embed_images(images)[0] for dtype in ("float32", "bfloat16"))
    assert 0.99 < float(whole @ half) < 1


def test_timm_beside_a_text_tower(tower: tuple[Any, Path], tmp_path: Path) -> None:
    open_clip_folder(tmp_path / "wide", CLIP | {"embed_dim": 192})
    open_clip_folder(tmp_path / "narrow")
    text = f"open_clip:{tmp_path / 'wide'}"
    embedder = made(f"timm:{TINY}:{tower[1]}", text=text)
    assert np.array_equal(embedder.embed_texts(TEXTS), made(text).embed_texts(TEXTS))
    assert embedder.card.text is not None
    with pytest.raises(BenchError, match="its vectors have 24 numbers, those of the images 192"):
        made(f"timm:{TINY}:{tower[1]}", text=f"open_clip:{tmp_path / 'narrow'}")
    with pytest.raises(BenchError, match="write siglip2:FOLDER"):
        made(f"timm:{TINY}:{tower[1]}", text="bert")


def test_timm_is_strict(tower: tuple[Any, Path], tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="timm:MODEL:FILE"):
        made("timm:vit_tiny_patch16_224")
    with pytest.raises(BenchError, match="timm has no model 'no-such'"):
        made(f"timm:no-such:{tower[1]}")
    with pytest.raises(CheckpointError, match="no such file"):
        made(f"timm:{TINY}:{tmp_path / 'nowhere.safetensors'}")
    with pytest.raises(CheckpointError, match=r"does not fit timm's model .*misshapen") as caught:
        made(f"timm:vit_small_patch16_224:{tower[1]}")
    assert "\n" not in str(caught.value)
    with pytest.raises(BenchError, match="dtype 'int8' is none of"):
        made(f"timm:{TINY}:{tower[1]}", "int8")


# -- Packages that are not there -------------------------------------------------------------------


@pytest.mark.parametrize(("package", "line"), [("open_clip", "open_clip_torch"), ("timm", "timm")])
def test_a_missing_package(package: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ATokenError, match=f"needs {line}; install it") as caught:
        made(f"{package}:ViT-B-32:{tmp_path / 'weights.pt'}")
    assert "\n" not in str(caught.value)
