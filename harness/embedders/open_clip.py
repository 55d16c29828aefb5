"""Models of open_clip (CLIP, SigLIP2 of fixed resolution, PE-Core) as rows, from local weights.

``open_clip:MODEL:FILE``, ``open_clip:FOLDER`` (as open_clip's hub has them); --option tag=laion2b_s32b_b82k

A file does not say how its model wants pixels. open_clip's list of published weights does, by model and tag; where the
tags of a model differ, the user names one.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from atoken.checkpoint import sha256_file
from atoken.text.open_clip import CONFIG, OpenClipTower
from harness.embedders.base import EmbedderCard, TextReader
from harness.embedders.pixels import PixelEmbedder, Triple, dtype_of, safe_name, triple
from harness.errors import BenchError


def create(argument: str | None, *, device: str, dtype: str, tag: str | None = None) -> PixelEmbedder:
    """Factory of ``open_clip:...``.

    Args:
        argument: ``MODEL:FILE`` or a folder.
        dtype: of the image half; texts are read in float32.
        tag: of the published weights that the file is a copy of, where open_clip has several for the model that want
            unlike pixels.

    Raises:
        MissingPackage: open_clip is not installed.
        CheckpointError: no such file or model, or a file that is broken or another model's.
        BenchError: no argument, an unknown dtype or tag, or a model that open_clip has no pixels' statistics of.
    """
    if argument is None:
        raise BenchError("open_clip needs weights: open_clip:MODEL:FILE or open_clip:FOLDER")
    kind = dtype_of(dtype)
    model, _, path = argument.rpartition(":")
    if tag is not None and not model:
        raise BenchError(f"--option tag={tag}: a folder says itself how it wants its pixels; leave it out")
    tower = OpenClipTower(path, model=model or None, images=True, device=device)
    mean, std = _published(model, tag, tower.config) if model else _in_folder(Path(path).expanduser() / CONFIG)
    side = tower.config["vision_cfg"].get("image_size", 224)
    if not isinstance(side, int):
        raise BenchError(f"open_clip:{argument}: takes images of {side}; only square ones are run")
    tower.cast_images(kind)
    name = model or Path(path).name
    card = EmbedderCard(
        name=safe_name("open_clip", name),
        title=f"{name} (open_clip)",
        weights_sha256={tower.file.name: sha256_file(tower.file)},
        source="local weights of a model of open_clip; licence and data are those of whoever published them",
        settings={"model": model or None, "config": tower.config, "mean": mean, "std": std, "tag": tag},
        width=tower.width,
        text=TextReader(name=f"open_clip {model}".strip(), fingerprint=tower.fingerprint),
        side=side,
        input=f"[0, 1], mean {list(mean)}, std {list(std)}",
    )
    return PixelEmbedder(card, tower.encode_images, mean=mean, std=std, device=device, dtype=kind, tower=tower)


def _published(model: str, tag: str | None, config: dict[str, Any]) -> tuple[Triple, Triple]:
    open_clip = import_module("open_clip")  # is there: the tower has been loaded by it
    tags = open_clip.list_pretrained_tags_by_model(model)
    if tag is not None and tag not in tags:
        raise BenchError(f"--option tag={tag}: open_clip knows of {model} {', '.join(tags) or 'no weights'}")
    found = {name: open_clip.get_pretrained_cfg(model, name) for name in ([tag] if tag else tags)}
    ways = {(triple(of.get("mean"), model), triple(of.get("std"), model)) for of in found.values()}
    if not ways:
        raise BenchError(
            f"open_clip knows no published weights of {model}, so that nothing says how it wants its pixels; give a "
            f"folder with {CONFIG} and its preprocess_cfg"
        )
    if len(ways) > 1:
        raise BenchError(
            f"weights of {model} want unlike pixels; say whose they are with --option tag={'|'.join(tags)}"
        )
    # open_clip turns this activation on where it loads by tag, and cannot where it is given a file.
    if tag is not None and found[tag].get("quick_gelu", False) != bool(config.get("quick_gelu", False)):
        other = model.removesuffix("-quickgelu") if config.get("quick_gelu") else f"{model}-quickgelu"
        raise BenchError(f"--option tag={tag}: those weights have another activation than {model}; take {other}")
    return next(iter(ways))


def _in_folder(path: Path) -> tuple[Triple, Triple]:
    preprocess = json.loads(path.read_text()).get("preprocess_cfg") or {}  # read once already, with its model_cfg
    return triple(preprocess.get("mean"), f"{path}: mean"), triple(preprocess.get("std"), f"{path}: std")
