"""Image towers of timm as rows, from local weights: ``timm:MODEL:FILE``, --option text=open_clip:MODEL:FILE

A tower alone has vectors of images and none of texts: enough for Figure 8 and nearest neighbours. One that was trained
beside a text tower is paired with it by the option, if their widths agree.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from atoken import checkpoint
from atoken.errors import CheckpointError
from atoken.text.clean import MissingPackage
from atoken.text.pretrained import first_line
from atoken.weights_file import PickleWeights, Weights
from harness.embedders.base import EmbedderCard
from harness.embedders.pixels import PixelEmbedder, dtype_of, named_tower, safe_name, triple
from harness.errors import BenchError


def create(argument: str | None, *, device: str, dtype: str, text: str | None = None) -> PixelEmbedder:
    """Factory of ``timm:MODEL:FILE``.

    Args:
        argument: timm's name of the model, with the tag of its weights where the plain name means others
            (``vit_base_patch16_siglip_256.v2_webli``), and a weights file in timm's layout.
        dtype: of the image tower.
        text: its text tower, ``siglip2:FOLDER``, ``open_clip:FOLDER`` or ``open_clip:MODEL:FILE``.

    Raises:
        MissingPackage: timm is not installed.
        CheckpointError: no such file, or one that is broken or another model's.
        BenchError: no argument, or an unknown model, dtype or text tower.
    """
    model, _, path = (argument or "").partition(":")
    if not path:
        raise BenchError("timm needs a model and its weights: timm:MODEL:FILE")
    kind = dtype_of(dtype)
    try:
        timm = import_module("timm")
    except ImportError:
        raise MissingPackage("this image tower needs timm; install it") from None
    if not timm.is_model(model):
        raise BenchError(f"timm has no model {model!r}; its list_models() has the names")
    file = Path(path).expanduser()
    try:
        made = timm.create_model(model, pretrained=False)
    except Exception as error:  # an unknown tag, for one
        raise BenchError(f"timm:{model}: {first_line(error)}") from None
    facts = made.pretrained_cfg
    network = _loaded(made, _open(file), str(facts.get("classifier") or "")).to(kind).to(device)
    mean, std = (triple(facts[name], f"timm's {name} of {model}") for name in ("mean", "std"))
    _, height, side = facts["input_size"]
    if height != side:
        raise BenchError(f"timm:{model}: takes images of {height} x {side}; only square ones are run")
    width = int(made.num_features)
    tower, reader = (None, None) if text is None else named_tower(text, width, device)
    card = EmbedderCard(
        name=safe_name("timm", model),
        title=f"{model} (timm)",
        weights_sha256={file.name: checkpoint.sha256_file(file)},
        source=f"local weights of a model of timm; licence: {facts.get('license') or 'see whoever published them'}",
        settings={"model": model, "mean": mean, "std": std},
        width=width,
        text=reader,
        side=side,
        input=f"[0, 1], mean {list(mean)}, std {list(std)}",
    )
    return PixelEmbedder(card, network, mean=mean, std=std, device=device, dtype=kind, tower=tower)


def _open(file: Path) -> Weights:
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file; give a weights file of timm")
    return PickleWeights(file) if file.suffix == ".bin" else checkpoint.open_weights(checkpoint.Source(file, None))


def _loaded(model: Any, weights: Weights, classifier: str) -> nn.Module:
    """The model with these weights, every one of them, and then without its classifier."""
    if classifier and not any(key.startswith(f"{classifier}.") for key in weights.shapes):
        model.reset_classifier(0)  # a file that was saved without one
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    faults = [
        f"{len(keys)} {what}: {', '.join(keys[:4])}"
        for what, keys in (
            ("missing", sorted(ours.keys() - weights.shapes.keys())),
            ("unexpected", sorted(weights.shapes.keys() - ours.keys())),
            ("misshapen", sorted(k for k in ours if weights.shapes.get(k, ours[k]) != ours[k])),
        )
        if keys
    ]
    if faults:
        raise CheckpointError(f"{weights.path}: does not fit timm's model ({'; '.join(faults)}); give another file")
    state: dict[str, Tensor] = {key: weights.read(key) for key in ours}
    model.load_state_dict(state, strict=True)
    model.reset_classifier(0)
    network: nn.Module = model.eval().requires_grad_(False)
    return network
