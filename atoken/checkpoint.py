"""Finding, checking and loading weights: strict, safe, and never twice in memory."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from atoken.config import PRESETS, ATokenConfig, preset
from atoken.errors import CheckpointError
from atoken.files import replacing
from atoken.weights_file import (
    PickleWeights,
    SafetensorsWeights,
    Shape,
    Weights,
    write_safetensors,
)

__all__ = [
    "CONFIG_NAME",
    "WEIGHTS_NAME",
    "Source",
    "decide_config",
    "demand_fit",
    "load_into",
    "locate",
    "open_weights",
    "packaged_models",
    "save",
    "sha256_file",
]

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
MODELS = Path(__file__).parent / "models"
OPTIONAL = ("logit_scale", "logit_bias")
"""Of the text comparison; in some files, never needed here (FACTS section 10)."""
TRAINING_ONLY = ("lpips_loss.",)
"""The perceptual loss in the Gaussian decoder's file (FACTS section 9)."""
PICKLED = (".pt", ".pth")
SHOWN = 8


@dataclass(frozen=True, slots=True)
class Source:
    """A weights file and the config beside it, if there is one."""

    weights: Path
    config: Path | None


def packaged_models() -> list[str]:
    """Names of the models whose weights are inside this package."""
    return sorted(path.parent.name for path in MODELS.glob(f"*/{WEIGHTS_NAME}"))


def locate(name_or_path: str | Path) -> Source:
    """Find a model by path (folder or file) or by the name of a packaged model.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(name_or_path)
    if not path.exists():
        if path.parent != Path() or path.suffix:
            raise CheckpointError(f"{path}: no such file or folder; give the path of a checkpoint")
        path = MODELS / path.name
        if not (path / WEIGHTS_NAME).is_file():
            known = ", ".join(packaged_models()) or "none"
            raise CheckpointError(
                f"{name_or_path}: no such path, and no packaged model of this name "
                f"(packaged: {known}); give the path of a checkpoint"
            )
    weights = path / WEIGHTS_NAME if path.is_dir() else path
    if not weights.is_file():
        raise CheckpointError(f"{path}: holds no {WEIGHTS_NAME}; give a folder that does, or a file")
    config = weights.with_name(CONFIG_NAME)
    return Source(weights, config if config.is_file() else None)


def open_weights(source: Source) -> Weights:
    """Open a `.safetensors`, `.pt` or `.pth` file.

    Raises:
        CheckpointError: another kind of file, a broken one, or one that wants to run code.
    """
    path = source.weights
    try:
        if path.suffix == ".safetensors":
            return SafetensorsWeights(path)
        if path.suffix in PICKLED:
            return PickleWeights(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}; check its permissions") from None
    raise CheckpointError(f"{path}: unknown kind {path.suffix!r}; give .safetensors, .pt or .pth")


def decide_config(source: Source, shapes: Mapping[str, Shape], preset_name: str | None) -> ATokenConfig:
    """Which model the file holds: as named, else as the config beside it says, else by shapes.

    Raises:
        CheckpointError: the shapes fit no preset, or more than one (so-c and so-d are alike).
    """
    if preset_name is not None:
        return preset(preset_name)
    fitting = [config for config in PRESETS.values() if _looks_like(config, shapes)]
    # A released .pt has no config of its own: where shapes cannot contradict it, the one that
    # `convert` wrote beside another model's file would silently make a So/D of a So/C.
    undecided = len(fitting) > 1 and source.weights.suffix in PICKLED
    if source.config is not None and not undecided:
        return read_config(source.config)
    if not fitting:
        raise CheckpointError(
            f"{source.weights}: its shapes fit none of {', '.join(PRESETS)}; put a {CONFIG_NAME} "
            "beside it, or check that it is an AToken checkpoint"
        )
    if len(fitting) > 1:
        names = " or ".join(config.name for config in fitting)
        raise CheckpointError(f"{source.weights}: its shapes fit {names} alike; say which with preset=...")
    return fitting[0]


def read_config(path: Path) -> ATokenConfig:
    """Read a `config.json`.

    Raises:
        CheckpointError: not JSON, or not a config of this library.
    """
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); write it anew") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: must hold a JSON object; write it anew")
    try:
        return ATokenConfig.from_dict(data)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _looks_like(config: ATokenConfig, shapes: Mapping[str, Shape]) -> bool:
    """Whether the telling shapes agree; the whole state dict is compared when it is loaded."""
    telling: dict[str, Shape] = {
        "encoder.input_layer.weight": (config.encoder.width, config.token_channels),
        f"encoder.blocks.{config.encoder.blocks - 1}.mlp.mlp.0.bias": (config.encoder.mlp,),
        "proj.weight": (2 * config.latent_channels, config.encoder.width),
        f"decoder.blocks.{config.decoder.blocks - 1}.attn.q_rms_norm.gamma": (
            config.decoder.heads,
            config.decoder.head_dim,
        ),
    }
    return all(shapes.get(key) == shape for key, shape in telling.items())


def demand_fit(model: nn.Module, weights: Weights) -> list[str]:
    """The keys of `model`, once it is sure that the file holds each in its shape and no other.

    Raises:
        CheckpointError: missing, unexpected or misshapen keys.
    """
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {
        key: shape
        for key, shape in weights.shapes.items()
        if key in wanted or not (key in OPTIONAL or key.startswith(TRAINING_ONLY))
    }
    _demand_same(weights.path, wanted, found)
    return list(wanted)


def load_into(model: nn.Module, weights: Weights, *, device: torch.device, dtype: torch.dtype) -> None:
    """Replace every parameter and buffer of `model` (on the meta device) by the file's tensor of its name.

    Buffers are constants: they keep the precision that they are stored in, whatever `dtype` is.

    Raises:
        CheckpointError: missing, unexpected or misshapen keys, or values that are not finite.
    """
    wanted = demand_fit(model, weights)
    for key in wanted:
        tensor = weights.read(key)
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"{weights.path}: {key} is {tensor.dtype}, not floating point; give a checkpoint that was not quantized"
            )
        if tensor.numel() and not all(bool(torch.isfinite(end)) for end in tensor.aminmax()):
            raise CheckpointError(
                f"{weights.path}: {key} holds NaN or infinity; its training diverged or the file "
                "is damaged, take another checkpoint"
            )
        owner_name, _, name = key.rpartition(".")
        owner = model.get_submodule(owner_name)
        if name in dict(owner.named_buffers(recurse=False)):
            setattr(owner, name, tensor.to(device=device))
            continue
        trains = owner.get_parameter(name).requires_grad
        moved = tensor.to(device=device, dtype=dtype)
        setattr(owner, name, nn.Parameter(moved, requires_grad=trains))


def _demand_same(path: Path, wanted: Mapping[str, Shape], found: Mapping[str, Shape]) -> None:
    faults = []
    missing = [key for key in wanted if key not in found]
    unexpected = [key for key in found if key not in wanted]
    misshapen = [
        f"{key} {list(found[key])} instead of {list(shape)}"
        for key, shape in wanted.items()
        if key in found and found[key] != shape
    ]
    for what, keys in (
        ("missing", missing),
        ("unexpected", unexpected),
        ("misshapen", misshapen),
    ):
        if keys:
            faults.append(f"{len(keys)} {what}: {_first(keys)}")
    if faults:
        raise CheckpointError(
            f"{path}: does not fit the model ({'; '.join(faults)}); name the right preset or give another checkpoint"
        )


def _first(keys: Iterable[str]) -> str:
    keys = list(keys)
    more = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + more


def save(
    state: Mapping[str, Tensor],
    config: ATokenConfig,
    folder: Path,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write weights and config into `folder`; returns the weights file.

    Raises:
        WriteError: the system refused to write.
    """
    path = folder / WEIGHTS_NAME
    write_safetensors(state, path, dtype)
    with replacing(folder / CONFIG_NAME) as aside:
        aside.write_text(json.dumps(config.to_dict(), indent=2) + "\n")
    return path


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits, read in pieces."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
