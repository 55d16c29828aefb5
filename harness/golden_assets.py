"""Golden cases of 3D assets: voxels through the tokenizer's public methods, and on to Gaussians."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from atoken.assets.asset import Asset
from atoken.assets.gaussian_decoder import GaussianDecoder, GaussianDecoderConfig
from atoken.checkpoint import load_into
from harness.errors import BenchError
from harness.golden_network import StoredWeights, model_of
from harness.golden_sheet import Case, Produced

__all__ = ["asset"]

# What this library always does; a file that asks for anything else cannot be reproduced.
_FIXED = {"attn_mode": "swin"}
_FIXED_GAUSSIANS = {"perturb_offset": True, "scaling_activation": "softplus"}
_RATES = ("_xyz", "_features_dc", "_opacity", "_scaling")


@torch.no_grad()
def asset(case: Case, device: torch.device, dtype: torch.dtype) -> Produced:
    """Encode the case's voxels, decode the mean, and make Gaussians of what was decoded.

    Raises:
        ATokenError: the file's weights or voxels do not fit its own header.
    """
    model = model_of(case, device, dtype)
    decoder = _gaussian_decoder(case, device, dtype)
    model.attach_gaussians(decoder)
    # The file's t is 1; ours starts at 0, which must not matter.
    item = Asset(case.tensors["in/feats01"], case.tensors["in/voxels"], case.name)
    latents = model.encode([item])
    features = model.features([item])
    pooled = model.pool(features.features.to(dtype), features.lengths)
    (voxels,) = model.decode_voxels(latents)
    before: list[Tensor] = []
    with decoder.out_layer.register_forward_pre_hook(lambda _layer, given: before.append(given[0])):
        raw = decoder(voxels.features, voxels.coords, [len(voxels)])
    (gaussians,) = model.decode_gaussians(latents)
    count = decoder.config.gaussians
    parts = zip(
        ("xyz", "features_dc", "scaling", "rotation", "opacity"),
        torch.split(raw, [3 * count, 3 * count, 3 * count, 4 * count, count], dim=-1),
        ((3,), (1, 3), (3,), (4,), (1,)),
        strict=True,
    )
    values = {f"gs_raw_{name}": part.reshape(-1, *shape) for name, part, shape in parts}
    # Two of them the release has worked on already: positions are those in the unit cube that starts at 0,
    # rotations have their multiplier but not yet the upright one added.
    upright = torch.tensor([1.0, 0.0, 0.0, 0.0], device=device)
    values |= {"gs_raw_xyz": gaussians.means + 0.5, "gs_raw_rotation": gaussians.quaternions - upright}
    return Produced(
        values=values
        | {
            "x_no_proj": features.features,
            "image_feat_raw": pooled,
            "image_feat": model.embed([item]),
            "moments": torch.cat([latents.mean.features, latents.logvar], dim=-1),
            "mean": latents.mean.features,
            "logvar": latents.logvar,
            "std": latents.std,
            "kl_per_token": latents.kl_per_token,
            "rec_feats_768": voxels.features,
            "rec_feats_rows0_7": model.forward_decoder(model.decoder_input(latents))[:8],
            "gs_pre_out_layer": before[0],
            "gs_xyz": gaussians.means,
            "gs_scaling": gaussians.scales,
            "gs_rotation": gaussians.rotations,
            "gs_opacity": gaussians.opacities[:, None],
        }
    )


def _gaussian_decoder(case: Case, device: torch.device, dtype: torch.dtype) -> GaussianDecoder:
    with torch.device("meta"):
        decoder = GaussianDecoder(_config_of(case.header["gs_cfg"]))
    load_into(decoder, StoredWeights(case, "weights_gs/"), device=device, dtype=dtype)
    return decoder.eval()


def _config_of(stated: Mapping[str, Any]) -> GaussianDecoderConfig:
    of = stated["representation_config"]
    rates = of["lr"]
    for given, fixed in ((stated, _FIXED), (of, _FIXED_GAUSSIANS), (rates, dict.fromkeys(_RATES, 1.0))):
        for key, value in fixed.items():
            if given.get(key, value) != value:
                raise BenchError(f"gs_cfg asks for {key} = {given[key]!r}; this library knows {value!r} only")
    return GaussianDecoderConfig(
        channels=stated["latent_channels"],
        width=stated["model_channels"],
        blocks=stated["num_blocks"],
        heads=stated["num_heads"],
        mlp=stated["mlp_channels"],
        gaussians=of["num_gaussians"],
        resolution=stated["resolution"],
        window=stated["window_size"],
        reach=of["voxel_size"],
        scaling_bias=of["scaling_bias"],
        opacity_bias=of["opacity_bias"],
        smallest_scale=of["3d_filter_kernel_size"],
        rotation_rate=rates["_rotation"],
    )
