"""SigLIP2's image tower under the names of our encoder: the layouts of transformers and of timm.

transformers' `Siglip2VisionModel` (alone or inside a `Siglip2Model`) and timm's `naflexvit_*_patch16_siglip`. Both
flatten a patch as (row, column, colour), colour fastest, as ours does (FACTS section 5), and take pixels in [-1, 1].
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from atoken import checkpoint
from atoken.config import TransformerConfig
from atoken.errors import CheckpointError
from atoken.weights_file import PickleWeights, Shape, Weights

__all__ = ["ImageTowerWeights", "open_image_tower"]

WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")
CONFIG_NAME = "config.json"
PATCH = 16 * 16 * 3
WHOLE = "vision_model."
"""In front of the tower's keys in files of both towers, and of older versions of transformers."""
BESIDE = ("text_model.", "logit_scale", "logit_bias")
"""What else a file of both towers holds."""
HEADS = {768: 12, 1024: 16, 1152: 16}
"""Of the released towers, by width: no weight tells, and timm's files come without a config that does."""
FIXED = {
    "patch_size": 16,
    "num_channels": 3,
    "num_patches": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "vision_use_head": True,
}
"""Settings of transformers' config that our encoder has no choice of; these are its defaults too."""

_TRANSFORMERS = {
    "input_layer": ("embeddings.patch_embedding",),
    "pos_embedder.position_embedding": ("embeddings.position_embedding",),
    "blocks.{}.norm1": ("encoder.layers.{}.layer_norm1",),
    "blocks.{}.attn.to_qkv": tuple(f"encoder.layers.{{}}.self_attn.{part}_proj" for part in "qkv"),
    "blocks.{}.attn.to_out": ("encoder.layers.{}.self_attn.out_proj",),
    "blocks.{}.norm2": ("encoder.layers.{}.layer_norm2",),
    "blocks.{}.mlp.mlp.0": ("encoder.layers.{}.mlp.fc1",),
    "blocks.{}.mlp.mlp.2": ("encoder.layers.{}.mlp.fc2",),
    "post_layernorm": ("post_layernorm",),
    "head.attention.to_out": ("head.attention.out_proj",),
    "head.layernorm": ("head.layernorm",),
    "head.mlp.mlp.0": ("head.mlp.fc1",),
    "head.mlp.mlp.2": ("head.mlp.fc2",),
}
_TIMM = {
    "input_layer": ("embeds.proj",),
    "blocks.{}.norm1": ("blocks.{}.norm1",),
    "blocks.{}.attn.to_qkv": ("blocks.{}.attn.qkv",),
    "blocks.{}.attn.to_out": ("blocks.{}.attn.proj",),
    "blocks.{}.norm2": ("blocks.{}.norm2",),
    "blocks.{}.mlp.mlp.0": ("blocks.{}.mlp.fc1",),
    "blocks.{}.mlp.mlp.2": ("blocks.{}.mlp.fc2",),
    "post_layernorm": ("norm",),
    "head.attention.to_q": ("attn_pool.q",),
    "head.attention.to_kv": ("attn_pool.kv",),
    "head.attention.to_out": ("attn_pool.proj",),
    "head.layernorm": ("attn_pool.norm",),
    "head.mlp.mlp.0": ("attn_pool.mlp.fc1",),
    "head.mlp.mlp.2": ("attn_pool.mlp.fc2",),
}
"""Our layers, and those of theirs that are stacked into one of ours."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Where one of our tensors comes from: rows of theirs, stacked, then reshaped."""

    keys: tuple[str, ...]
    shape: Shape
    start: int = 0
    stop: int | None = None


class ImageTowerWeights:
    """The tower's file as `atoken.checkpoint.load_into` takes it for an `Encoder`.

    Attributes:
        path: of the file.
        shapes: of our keys; keys that no encoder has keep their names, so that they are refused.
        width, blocks, mlp: of the tower.
        heads: None where the file does not tell.
        log_scale: natural logarithm of the scale of scores, from files of both towers; None from others.
    """

    def __init__(self, weights: Weights, *, frames: int, heads: int | None) -> None:
        self.path, self._weights, self._frames = weights.path, weights, frames
        names = {key.removeprefix(WHOLE): key for key in weights.shapes if not key.startswith(BESIDE)}
        shapes = {short: weights.shapes[key] for short, key in names.items()}
        self._sources, self._names = dict(_sources(shapes)), names
        used = {key for source in self._sources.values() for key in source.keys}
        self.shapes = {key: source.shape for key, source in self._sources.items()}
        self.shapes |= {key: shape for key, shape in shapes.items() if key not in used}
        try:
            (self.width,), (self.mlp,) = self.shapes["input_layer.bias"], self.shapes["blocks.0.mlp.mlp.0.bias"]
        except (KeyError, ValueError):
            raise CheckpointError(
                f"{self.path}: holds no image tower of SigLIP2; give transformers' Siglip2VisionModel or Siglip2Model, "
                "or timm's naflexvit_so400m_patch16_siglip"
            ) from None
        if self.shapes.get("input_layer.weight") == (self.width, PATCH):
            self.shapes["input_layer.weight"] = (self.width, PATCH * frames)
        self.blocks = sum(key.endswith(".norm1.bias") for key in self._sources)
        self.heads = HEADS.get(self.width) if heads is None else heads
        self.log_scale = float(weights.read("logit_scale")) if "logit_scale" in weights.shapes else None
        self._read: dict[str, Tensor] = {}

    def config(self) -> TransformerConfig:
        """Shape of an encoder that takes these weights.

        Raises:
            CheckpointError: the number of heads is not known.
        """
        if self.heads is None:
            raise CheckpointError(
                f"{self.path}: nothing says how many heads its {self.width} channels have; put its {CONFIG_NAME} there"
            )
        return TransformerConfig(width=self.width, blocks=self.blocks, heads=self.heads, mlp=self.mlp)

    def read(self, key: str) -> Tensor:
        """The tensor called `key` in our encoder; frames of a patch that an image has not are zero (paper 3.2)."""
        source = self._sources[key]
        parts = [self._part(name)[source.start : source.stop] for name in source.keys]
        tensor = (torch.cat(parts) if len(parts) > 1 else parts[0]).reshape(source.shape)
        if key == "input_layer.weight":
            return F.pad(tensor, (0, PATCH * (self._frames - 1)))
        return tensor

    def _part(self, key: str) -> Tensor:
        # The rows of one are asked for twice, and a pickled file hands each tensor over once.
        if "in_proj" not in key:
            return self._weights.read(self._names[key])
        if key not in self._read:
            self._read[key] = self._weights.read(self._names[key])
        return self._read[key]


def open_image_tower(path: str | Path, *, frames: int = 1) -> ImageTowerWeights:
    """Open a file, or the one in a folder.

    Args:
        path: a folder as transformers writes it, or a `.safetensors`, `.bin`, `.pt` or `.pth` file of either layout.
            The `config.json` beside it, if there is one, is checked.
        frames: of our encoder's patches.

    Raises:
        CheckpointError: no such file, a broken one, one that wants to run code, another model, or settings that our
            encoder has no choice of.
    """
    path = Path(path).expanduser()
    file = _weights_file(path) if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file; give SigLIP2's weights")
    if file.suffix == ".bin":
        weights: Weights = PickleWeights(file)
    else:
        weights = checkpoint.open_weights(checkpoint.Source(file, None))
    return ImageTowerWeights(weights, frames=frames, heads=_heads(file.with_name(CONFIG_NAME)))


def _weights_file(folder: Path) -> Path:
    for name in WEIGHTS_NAMES:
        if (folder / name).is_file():
            return folder / name
    if any(folder.glob("*.index.json")):
        raise CheckpointError(f"{folder}: its weights are in several files; save them as one (max_shard_size)")
    raise CheckpointError(f"{folder}: holds no {' or '.join(WEIGHTS_NAMES)}; give a folder that does, or a file")


def _heads(path: Path) -> int | None:
    """From transformers' config, whose other settings must be those that our encoder has; None without one."""
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text())
        vision: Mapping[str, Any] = config.get("vision_config", config)
        for name, value in FIXED.items():
            if vision.get(name, value) != value:
                raise CheckpointError(f"{path}: {name} is {vision[name]!r}; the encoder has {value!r} and no choice")
        heads = vision.get("num_attention_heads")
    except (ValueError, AttributeError, TypeError):
        raise CheckpointError(f"{path}: no config of transformers or timm; copy it again") from None
    # timm's files have one that says nothing of heads.
    return heads if isinstance(heads, int) else None


def _sources(shapes: Mapping[str, Shape]) -> Iterator[tuple[str, _Source]]:
    timm = "embeds.proj.weight" in shapes
    for ours, theirs in (_TIMM if timm else _TRANSFORMERS).items():
        for block in range(_blocks(shapes, theirs[0])):
            for kind in ("weight", "bias"):
                keys = tuple(f"{name.format(block)}.{kind}" for name in theirs)
                shape = _stacked([shapes.get(key, ()) for key in keys])
                if shape:
                    yield f"{ours.format(block)}.{kind}", _Source(keys, shape)
    yield from _odd_ones(shapes)


def _stacked(shapes: Sequence[Shape]) -> Shape:
    """Of tensors one upon the other; empty where one is missing or does not fit."""
    if not all(shapes) or len({shape[1:] for shape in shapes}) > 1:
        return ()
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def _blocks(shapes: Mapping[str, Shape], name: str) -> int:
    count = 0
    while "{}" in name and f"{name.format(count)}.weight" in shapes:
        count += 1
    return count if "{}" in name else 1


def _odd_ones(shapes: Mapping[str, Shape]) -> Iterator[tuple[str, _Source]]:
    """What is no layer with a weight and a bias, or part of one."""
    for key in ("head.probe", "attn_pool.latent"):
        if key in shapes:
            yield "head.probe", _Source((key,), (math.prod(shapes[key]),))
    key = "embeds.pos_embed"
    if key in shapes:
        yield "pos_embedder.position_embedding.weight", _Source((key,), (math.prod(shapes[key][:-1]), shapes[key][-1]))
    for kind in ("weight", "bias"):
        key = f"head.attention.in_proj_{kind}"
        third, remainder = divmod(shapes.get(key, (1,))[0], 3)
        if not remainder:
            rest = shapes[key][1:]
            yield f"head.attention.to_q.{kind}", _Source((key,), (third, *rest), 0, third)
            yield f"head.attention.to_kv.{kind}", _Source((key,), (2 * third, *rest), third)
