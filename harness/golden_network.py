"""Golden cases of the whole network: encoder, pooling, latents, quantizer, decoder, pixels."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from atoken.checkpoint import load_into
from atoken.config import ATokenConfig, FSQConfig, TransformerConfig
from atoken.patches import pack_pixels, unpack_pixels
from atoken.tokenizer import AToken
from atoken.tokens import Latents, SparseTokens
from harness.errors import BenchError
from harness.golden_parts import quantized
from harness.golden_sheet import Case, Produced, Tolerance

__all__ = ["CACHED", "StoredWeights", "cached_no_target", "config_of", "items_of", "model_of", "network", "pixels_of"]

# What this library always does; a file that asks for anything else cannot be reproduced.
_FIXED = {
    "encoder_attn_mode": "full",
    "encoder_pe_mode": "joint",
    "encoder_qk_rms_norm": False,
    "encoder_use_bias": True,
    "encoder_use_rms_norm": False,
    "decoder_attn_mode": "full",
    "decoder_pe_mode": "joint",
    "decoder_qk_rms_norm": True,
    "decoder_use_bias": False,
    "decoder_use_rms_norm": True,
    "use_decoder": True,
    "quantizer_type": "fsq",
    "quantizer_chunk_size": 1,
}
CACHED = re.compile(r"kv(\d+)_stride(\d+)/rec_feats")
_PIXELS = re.compile(r"pixels_(\d+)(?:_(first|last)(\d+))?")
_HOOKED = re.compile(r"dbg/(encoder|decoder)/(?:(input_layer|pos_embedding)|block_(\d+)(_attn)?)")


def config_of(header: Mapping[str, Any]) -> ATokenConfig:
    """Our config of a golden file's `arch_cfg`.

    Raises:
        BenchError: it asks for something that this library does not do.
    """
    arch = header["arch_cfg"]
    for key, value in _FIXED.items():
        if arch.get(key, value) != value:
            raise BenchError(f"arch_cfg asks for {key} = {arch[key]!r}; this library knows {value!r} only")
    halves = {
        half: TransformerConfig(
            width=arch[f"{half}_model_channels"],
            blocks=arch[f"{half}_num_blocks"],
            heads=arch[f"{half}_num_heads"],
            mlp=arch[f"{half}_mlp_channels"],
        )
        for half in ("encoder", "decoder")
    }
    config = ATokenConfig(
        name=str(header["base_config"]),
        encoder=halves["encoder"],
        decoder=halves["decoder"],
        latent_channels=arch["latent_channels"],
        patch=tuple(arch["patch_size"]),
        # Files of 3D objects do not tell it: an object has one time step.
        tile_frames=16 if "gs_cfg" in header else header["num_sample_frames_batch_size"],
        quantizer=_fsq(arch) if arch.get("use_quantizer") else None,
    )
    for key in ("in_channels", "out_channels"):
        if arch[key] != config.token_channels:
            raise BenchError(f"arch_cfg asks for {key} = {arch[key]}; its patches have {config.token_channels}")
    return config


def _fsq(arch: Mapping[str, Any]) -> FSQConfig:
    books, size = arch["quantizer_num_codebooks"], arch["quantizer_codebook_size"]
    dims = arch["quantizer_feature_dim"] // books
    level = round(size ** (1 / dims))
    if level**dims != size:
        raise BenchError(f"arch_cfg asks for {size} codes of {dims} dimensions, which no whole number of levels gives")
    return FSQConfig(levels=(level,) * dims, codebooks=books)


def network(case: Case, device: torch.device, dtype: torch.dtype, tolerance: Tolerance) -> Produced:
    """Run the case from its raw pixels; decode from the mean, or from the stored indices.

    Raises:
        ATokenError: the file's weights or items do not fit its own header.
    """
    model = model_of(case, device, dtype)
    pixels = pack_pixels(items_of(case), patch=model.config.patch, fit="crop", frames="drop", device=device)
    with torch.no_grad(), _Hooks(case, model) as hooks:
        features, moments = model.forward_encoder(pixels)
        pooled = model.pool(features, pixels.lengths)
        mean, logvar = moments.float().chunk(2, dim=-1)
        latents = Latents(pixels.with_features(mean), logvar)
        produced = Produced() if model.quantizer is None else quantized(case, model.quantizer, mean, tolerance)
        # Not from our own indices: one that rounding turned over is told of once, not in every pixel.
        start = latents.mean.with_features(produced.values.get("indices_to_codes", mean))
        rebuilt = model.forward_decoder(start)
        hooks.rest()
        produced.values.update(
            {
                "x_no_proj": features,
                "image_feat_raw": pooled,
                "image_feat": nn.functional.normalize(pooled.float(), dim=-1),
                "moments": moments,
                "mean": mean,
                "logvar": logvar,
                "std": latents.std,
                "kl_per_token": latents.kl_per_token,
                "rec_feats": rebuilt,
            }
        )
        produced.values.update(hooks.values)
        produced.values.update(pixels_of(case, start.with_features(rebuilt.float()), model.config))
        _cached(case, model, start, produced)
    return produced


class StoredWeights:
    """A golden file's weights, in the form in which the library loads any checkpoint."""

    def __init__(self, case: Case, prefix: str = "weights/") -> None:
        """Those whose key starts with `prefix`, by the rest of their key."""
        self.path = Path(case.name)
        self._tensors = case.under(prefix)
        self.shapes = {key: tuple(value.shape) for key, value in self._tensors.items()}

    def read(self, key: str) -> Tensor:
        """The tensor called `key`, as stored."""
        return self._tensors[key]


def model_of(case: Case, device: torch.device, dtype: torch.dtype) -> AToken:
    """The case's own network, strictly loaded, in evaluation mode."""
    with torch.device("meta"):
        model = AToken(config_of(case.header))
    load_into(model, StoredWeights(case), device=device, dtype=dtype)
    return model.eval()


def items_of(case: Case) -> list[Tensor]:
    """Raw inputs as items: images [H, W, 3], videos [T, H, W, 3], by the file's task types."""
    items = []
    for task, raw in zip(case.header["task_types"], case.under("in/raw_").values(), strict=True):
        if "3D" in task:
            raise BenchError(f"task type {task!r} among images and videos; 3D cases have a gs_cfg and one object")
        is_image = "image" in task
        clip = raw if raw.ndim == 4 else raw[None]
        items.append((clip[0] if is_image and len(clip) == 1 else clip).float())
    return items


def pixels_of(case: Case, rebuilt: SparseTokens, config: ATokenConfig) -> dict[str, Tensor]:
    """The pixel outputs that the file names: whole items, or the ends of long videos."""
    clips = [clip.permute(0, 3, 1, 2) for clip in unpack_pixels(rebuilt, config.patch)]
    values = {}
    for key in case.under("out/"):
        if match := _PIXELS.fullmatch(key):
            item = int(match[1])
            clip = clips[item][:1] if "image" in case.header["task_types"][item] else clips[item]
            if match[2]:
                count = int(match[3])
                clip = clip[:count] if match[2] == "first" else clip[-count:]
            values[key] = clip
    return values


def _cached(case: Case, model: AToken, start: SparseTokens, produced: Produced) -> None:
    """Decode with every window length and cache that the file names."""
    for key in case.under("out/"):
        if match := CACHED.fullmatch(key):
            cache, stride = int(match[1]), int(match[2])
            produced.values[key] = model.forward_decoder(start, stride_frames=stride, cache_frames=cache)
            produced.no_target.update(cached_no_target(key, start, model.config))


def cached_no_target(key: str, tokens: SparseTokens, config: ATokenConfig) -> dict[str, str]:
    """By a cached output's key why it is not to be reached; nothing if it is."""
    cache, stride = (int(number) // config.patch[0] for number in CACHED.findall(key)[0])
    windows = {int(part.coords[:, 0].max() - part.coords[0, 0]) // stride for part in tokens.split()}
    # Some item has no token in the last window of another.
    return {key: "ended items stay in the release's cache: shown, not judged"} if cache and len(windows) > 1 else {}


class _Hooks:
    """Catches what the file's `dbg/` outputs name while the network runs once."""

    def __init__(self, case: Case, model: AToken) -> None:
        self.values: dict[str, Tensor] = {}
        self._stack = ExitStack()
        for key in case.under("out/"):
            if match := _HOOKED.fullmatch(key):
                module = self._module(model, match)
                if module is not None:
                    self._stack.callback(module.register_forward_hook(self._keep(key)).remove)

    def rest(self) -> None:
        """Take the hooks off: what runs from here on is not part of the pass."""
        self._stack.close()

    def __enter__(self) -> _Hooks:
        return self

    def __exit__(self, *exception: object) -> None:
        self.rest()

    def _keep(self, key: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_module: nn.Module, _arguments: Any, output: Tensor) -> None:
            self.values[key] = output

        return hook

    @staticmethod
    def _module(model: AToken, match: re.Match[str]) -> nn.Module | None:
        half = model.encoder if match[1] == "encoder" else model.decoder
        if match[2]:
            return half.input_layer if match[2] == "input_layer" else half.pos_embedder
        index = int(match[3])
        if index >= len(half.blocks):
            return None
        block = half.blocks[index]
        return block.get_submodule("attn") if match[4] else block
