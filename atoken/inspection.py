"""What the commands `atoken info` and `atoken convert` do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import prod
from pathlib import Path

import torch

from atoken.assets.gaussian_decoder import GaussianDecoder
from atoken.checkpoint import CONFIG_NAME, Source, decide_config, demand_fit, locate, open_weights, sha256_file
from atoken.config import ATokenConfig
from atoken.errors import CheckpointError
from atoken.files import replacing
from atoken.token_files import weights_sha256
from atoken.tokenizer import AToken
from atoken.weights_file import Weights, write_safetensors

__all__ = ["convert", "describe"]

# The first that fits: the pooling head lies inside the encoder and is counted apart.
_PARTS = {"encoder.head.": "pooling head", "encoder.": "encoder", "proj.": "projection", "decoder.": "decoder"}


def describe(checkpoint: str, preset: str | None) -> Iterator[str]:
    """Lines about a checkpoint: variant, file and hashes, dtype, parameters per part, config.

    Raises:
        CheckpointError: no such file, a broken one, or none of AToken's.
    """
    source = locate(checkpoint)
    weights = open_weights(source)
    config, variant = _variant(source, weights, preset)
    if config is not None:
        with torch.device("meta"):
            demand_fit(AToken(config), weights)
    parts = dict.fromkeys(("encoder", "pooling head", "projection", "decoder"), 0)
    for key, shape in weights.shapes.items():
        part = next((name for start, name in _PARTS.items() if key.startswith(start)), "other")
        parts[part] = parts.get(part, 0) + prod(shape)
    rows = {
        "variant": variant,
        "file": f"{source.weights} ({source.weights.stat().st_size:,} bytes)",
        "file SHA-256": sha256_file(source.weights),
        "weights SHA-256": weights_sha256(open_weights(source)),
        "dtype": ", ".join(_dtypes(weights)),
    }
    rows |= {f"parameters, {part}": f"{count:,}" for part, count in parts.items()}
    rows["parameters"] = f"{sum(parts.values()):,}"
    if GaussianDecoder.is_in(source.weights.parent):
        rows["Gaussian decoder"] = "in the same folder"
    if config is not None:
        rows["config"] = json.dumps(config.to_dict())
    width = max(map(len, rows))
    return (f"{name:<{width}}  {value}" for name, value in rows.items())


def convert(
    checkpoint: Path, output: Path, preset: str | None, dtype: str | None, gaussians: Path | None = None
) -> Path:
    """Write a checkpoint as safetensors with its config; every key is checked on the way.

    Args:
        gaussians: a Gaussian decoder that shall lie beside it; then `output` is a folder.

    Returns:
        The weights file.

    Raises:
        CheckpointError: a checkpoint that does not fit its preset, or a folder that is taken.
    """
    stored = _dtypes(open_weights(locate(checkpoint)))
    if dtype is None and len(stored) > 1:
        raise CheckpointError(f"{checkpoint}: holds {' and '.join(stored)}; choose one with --dtype")
    kind = getattr(torch, dtype or stored[0])
    if gaussians is not None and output.suffix == ".safetensors":
        raise CheckpointError(f"{output}: a Gaussian decoder goes into a folder beside the model; give a folder")
    model = AToken.from_pretrained(checkpoint, preset=preset, gaussians=gaussians, dtype=kind)
    if output.suffix != ".safetensors":
        return model.save_pretrained(output)
    config = json.dumps(model.config.to_dict(), indent=2) + "\n"
    beside = output.with_name(CONFIG_NAME)
    # It would be taken for this model's config when the file is loaded.
    if beside.exists() and beside.read_text() != config:
        raise CheckpointError(f"{beside}: belongs to another model; choose a folder of its own")
    with replacing(beside) as aside:
        aside.write_text(config)
    write_safetensors(model.tokenizer_state(), output)
    return output


def _variant(source: Source, weights: Weights, preset: str | None) -> tuple[ATokenConfig | None, str]:
    """The config and its name; where So/C and So/D are alike, both names and no config."""
    try:
        config = decide_config(source, weights.shapes, preset)
    except CheckpointError as error:
        if preset is not None or not {"encoder.input_layer.weight", "proj.weight"} <= weights.shapes.keys():
            raise
        return None, str(error).removeprefix(f"{source.weights}: ")
    return config, config.name


def _dtypes(weights: Weights) -> list[str]:
    """Names of the dtypes in a file; reads, and so uses up, the opened file."""
    return sorted({str(weights.read(key).dtype).removeprefix("torch.") for key in weights.shapes})
