"""Models of random weights in the official layouts, a few kilobytes each, written as their packages write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from harness.tokenizers.specimens import image

OPENAI = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
WORDS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *"abcdefghijklmnopqrstuvwxyz", "\u2581"]
TEXTS = ["a photo of a goldfish", "", "An Owl, in   the rain!", "letters " * 20]


def shaken(model: Any) -> Any:
    """With every weight moved: what starts at zero or one would hide what reads it."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model.eval()


def open_clip_folder(place: Path, config: dict[str, Any] = CLIP, pixels: dict[str, Any] = OPENAI) -> Any:
    """Write a folder as open_clip's hub has them; the model."""
    open_clip = pytest.importorskip("open_clip", reason="needs open_clip, which is compared with")
    place.mkdir(parents=True, exist_ok=True)
    (place / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": pixels}))
    model = shaken(open_clip.create_model(f"local-dir:{place}", load_weights=False))
    save_file(model.state_dict(), place / "open_clip_model.safetensors")
    return model


def _half(**more: int) -> dict[str, int]:
    return {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2} | more


def transformers_folder(place: Path, kind: str) -> Any:
    """Write a folder as `save_pretrained` does: ``siglip2``, ``siglip`` (SigLIP2 of fixed size), ``siglip-1`` (another
    tokenizer) or ``clip``; the model."""
    transformers = pytest.importorskip("transformers", reason="needs transformers, which is compared with")
    place.mkdir(parents=True, exist_ok=True)
    words = WORDS if kind != "siglip-1" else ["<unk>", "<pad>", *(w for w in WORDS if w not in ("<unk>", "<pad>"))]
    if kind == "clip":
        tokenizer = transformers.CLIPTokenizer(
            vocab={
                w: i
                for i, w in enumerate(
                    [
                        *"abcdefghijklmnopqrstuvwxyz",
                        *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz"),
                        "<|startoftext|>",
                        "<|endoftext|>",
                    ]
                )
            },
            merges=[],
        )
    else:
        more = {"pad_token": "<pad>", "eos_token": "<pad>"} if kind == "siglip-1" else {}
        tokenizer = transformers.Siglip2Tokenizer(
            vocab={word: index for index, word in enumerate(words)},
            merges=[],
            add_bos_token=False,
            add_eos_token=True,
            padding_side="right",
            **more,
        )
    tokenizer.save_pretrained(place)
    torch.manual_seed(0)
    size = len(tokenizer)
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": 2}
    text, pixels = _half(vocab_size=size) | ends, HALF
    if kind == "siglip2":
        config = transformers.Siglip2Config(text_config=text, vision_config=_half(num_patches=16, patch_size=16))
        model = transformers.Siglip2Model(config)
    elif kind.startswith("siglip"):
        vision = _half(image_size=32, patch_size=16)
        model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision))
    else:
        text |= {"projection_dim": 24, "max_position_embeddings": 16}
        vision = _half(image_size=32, patch_size=16, projection_dim=24)
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
        model, pixels = transformers.CLIPModel(config), OPENAI
    shaken(model).save_pretrained(place)
    settings = {"image_mean": pixels["mean"], "image_std": pixels["std"], "patch_size": 16}
    (place / "preprocessor_config.json").write_text(json.dumps(settings))
    return model


def pictures(count: int, height: int, width: int) -> list[np.ndarray]:
    """uint8 ``[height, width, 3]``, each another."""
    return [image(seed, height, width).permute(1, 2, 0).numpy().copy() for seed in range(count)]
