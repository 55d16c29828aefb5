"""Golden cases of the parts alone: RoPE, learned positions, FSQ, preprocessing.

They run in float32 whatever dtype is audited: the network too computes angles, the position grid
and the quantizer in float32.
"""

from __future__ import annotations

import re
from math import prod

import torch
from torch import Tensor

from atoken.assets.gaussian_decoder import voxel_positions
from atoken.config import FSQConfig
from atoken.patches import pack_pixels
from atoken.positions import LearnedPositions, rotary_frequencies, rotary_table, rotate
from atoken.preprocess import process_image
from atoken.quantizer import FSQ
from atoken.tiles import plan_tiles
from atoken.tokens import ItemSpec, SparseTokens
from harness.golden_sheet import TOLERANCES, Case, Produced, Tolerance

__all__ = ["fsq", "positions", "preprocess", "rope", "rounding_margin"]


def rope(case: Case, device: torch.device) -> Produced:
    """Frequencies, angles and rotated queries and keys for each head width in the header."""
    produced = Produced()
    for width in case.header["head_dims"]:
        given = {name: value.to(device) for name, value in case.under(f"in/hd{width}/").items()}
        table = rotary_table(given["coords_txyz"].long(), width)
        keys = rotary_table(given["k_coords_txyz"].long(), width)
        values = {
            "freqs": rotary_frequencies(width),
            "cos": table.real,
            "sin": table.imag,
            "q_rot": rotate(given["q"], table),
            "k_rot": rotate(given["k"], keys),
        }
        produced.values.update({f"hd{width}/{name}": value for name, value in values.items()})
    return produced


def positions(case: Case, device: torch.device) -> Produced:
    """The learned table resized to each item's grid; `ape_*` are the Gaussian decoder's sines and cosines."""
    table = case.tensors["weights/position_embedding.weight"]
    embedder = LearnedPositions(table.shape[1])
    embedder.load_state_dict({"position_embedding.weight": table.float()})
    embedder.to(device)
    produced = Produced()
    for key, coords in case.under("in/").items():
        name, _, kind = key.partition("/")
        if kind == "coords_btxyz":
            with torch.no_grad():
                produced.values[f"{name}/embedding"] = embedder(plan_tiles(_items(coords.to(device)), steps=1))
        else:
            width = case.tensors[f"out/{name}/embedding"].shape[1]
            produced.values[f"{name}/embedding"] = voxel_positions(coords.to(device), width)
    return produced


def _items(coords: Tensor) -> SparseTokens:
    """Tokens without features at `coords` [L, 5] (item, t, x, y, z), all set to one time step.

    The embedding does not depend on t, and a stored item may hold several steps out of order.
    """
    lengths = tuple(torch.unique_consecutive(coords[:, 0], return_counts=True)[1].tolist())
    spec = ItemSpec(kind="image", frames=1, height=1, width=1, out_frames=1, out_height=1, out_width=1)
    still = coords[:, 1:].clone()
    still[:, 0] = 0
    return SparseTokens(torch.zeros(len(coords), 1, device=coords.device), still, lengths, (spec,) * len(lengths))


def fsq(case: Case, device: torch.device) -> Produced:
    """Bounding, rounding, indices and their inverse, for the levels in the header."""
    levels = tuple(case.header["levels"])
    z = case.tensors["in/z"].to(device)
    quantizer = FSQ(FSQConfig(levels=levels, codebooks=z.shape[1] // len(levels)))
    produced = quantized(case, quantizer, z, TOLERANCES[torch.float32])
    single = FSQ(FSQConfig(levels=levels, codebooks=1))
    every = torch.arange(prod(levels), dtype=torch.int32, device=device)[:, None]
    produced.values[f"codebook_{prod(levels)}x{len(levels)}"] = single.indices_to_codes(every)
    return produced


def quantized(case: Case, quantizer: FSQ, z: Tensor, tolerance: Tolerance) -> Produced:
    """What the quantizer makes of latents `z` [L, C]; the names serve the part and the network."""
    bounded = quantizer.bound(z)
    codes, indices = quantizer(z)
    margin = rounding_margin(bounded)
    back = quantizer.indices_to_codes(case.tensors["out/indices"].to(z.device))
    values = {
        "bounded": bounded,
        "fsq_bounded": bounded,
        "rounding_margin": margin,
        "fsq_rounding_margin": margin,
        "indices": indices,
        "quantized": codes,
        "codes_from_indices": back,
        "indices_to_codes": back,
    }
    # The stored margin decides what may turn over, so that no error of ours can excuse itself.
    stored = next((t for k, t in case.tensors.items() if re.fullmatch(r"out/(fsq_)?rounding_margin", k)), margin.cpu())
    sure = stored >= tolerance.border
    certain = {"quantized": sure, "indices": sure.view(*indices.shape, -1).all(dim=-1)}
    return Produced(values=values, certain=certain)


def rounding_margin(bounded: Tensor) -> Tensor:
    """Distance of bounded latents to the nearest border between two levels."""
    return ((bounded - bounded.floor()) - 0.5).abs()


def preprocess(case: Case, device: torch.device) -> Produced:
    """The release's `process_image` and its cut into tokens, by the specs in the header."""
    produced = Produced()
    for index, spec in enumerate(case.header["specs"]):
        image = process_image(
            case.tensors[f"in/process_{index}/uint8"].to(device),
            min_resolution=spec.get("min_resolution"),
            max_resolution=spec.get("max_resolution"),
            square_image_length=spec.get("square_image_length"),
        )
        tokens = pack_pixels([image], fit="crop", frames="drop", device=device)
        produced.values[f"process_{index}/feats"] = tokens.features
        produced.values[f"process_{index}/coords_txyz"] = tokens.coords
    return produced
