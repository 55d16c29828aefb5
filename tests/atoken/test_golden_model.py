"""The golden cases of the official code, to 2e-5 in float32 (FACTS section 0)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from atoken.attention import Segments
from atoken.config import FSQConfig
from atoken.patches import pack_pixels
from atoken.positions import LearnedPositions, rotary_frequencies, rotary_table, rotate
from atoken.preprocess import process_image
from atoken.quantizer import FSQ
from atoken.tiles import Tiles

TOLERANCE = 2e-5
KL_TOLERANCE = 1e-4
MODEL_CASES = ["a_image", "a1_image_s1", "b_image_batch", "c_video8", "de_video40", "f_mixed", "g_fsq"]


def close(got: Tensor, want: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(got, want, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", MODEL_CASES)
@torch.no_grad()
def test_model_case(golden, name):
    case = golden(name)
    out = {k.removeprefix("out/"): v for k, v in case.tensors.items() if k.startswith("out/")}
    model, items = case.model(), case.items()
    tokens = pack_pixels(items, fit="crop", frames="drop")
    assert torch.equal(tokens.coords, case.tensors["in/coords"][:, 1:])
    assert torch.equal(tokens.features, case.tensors["in/feats"].float())

    features, moments = model.forward_encoder(tokens)
    close(features, out["x_no_proj"])
    close(moments, out["moments"])
    close(model.pool(features, tokens.lengths), out["image_feat_raw"])
    close(model.embed(items, fit="crop", frames="drop"), out["image_feat"])
    latents = model.encode(items, fit="crop", frames="drop")
    close(latents.mean.features, out["mean"])
    close(latents.logvar, out["logvar"])
    close(latents.std, out["std"])
    close(latents.kl_per_token, out["kl_per_token"], KL_TOLERANCE)

    decoded = latents.mean
    if model.quantizer is not None:
        codes, indices = model.quantizer(latents.mean.features)
        assert torch.equal(indices, out["indices"])
        assert torch.equal(codes, out["quantized"])
        assert torch.equal(model.quantizer.indices_to_codes(indices), out["indices_to_codes"])
        close(model.quantizer.bound(latents.mean.features), out["fsq_bounded"])
        decoded = decoded.with_features(codes)
    close(model.forward_decoder(decoded), out["rec_feats"])
    for index, clip in enumerate(model.decode_pixels(latents)):
        channels_first = clip.permute(0, 3, 1, 2)
        if f"pixels_{index}" in out:
            close(channels_first, out[f"pixels_{index}"])
        else:
            close(channels_first[:4], out[f"pixels_{index}_first4"])
            close(channels_first[-4:], out[f"pixels_{index}_last4"])
    # Batch mates that all start at t = 0, as packed pixels do, do not reach each other there either.
    for stride, cache in case.json("kv"):
        cached = model.forward_decoder(decoded, stride_frames=stride, cache_frames=cache)
        close(cached, out[f"kv{cache}_stride{stride}/rec_feats"])


@torch.no_grad()
def test_intermediate_outputs_can_be_hooked(golden):
    case = golden("a_image")
    model = case.model()
    seen: dict[str, Tensor] = {}
    for half in ("encoder", "decoder"):
        stack = model.get_submodule(half)
        watched = {"input_layer": stack.input_layer, "pos_embedding": stack.pos_embedder}
        for index, block in enumerate(stack.blocks):
            watched |= {f"block_{index}": block, f"block_{index}_attn": block.attn}
        for name, module in watched.items():
            module.register_forward_hook(lambda _m, _i, o, key=f"{half}/{name}": seen.update({key: o}))
    model.decode(model.encode(case.items(), fit="crop", frames="drop"))
    wanted = {k.removeprefix("out/dbg/"): v for k, v in case.tensors.items() if k.startswith("out/dbg/")}
    assert wanted.keys() == seen.keys()
    for key, value in wanted.items():
        close(seen[key], value)


@pytest.mark.parametrize("head_dim", [24, 64, 72])
def test_rope(golden, head_dim):
    tensors = golden("i_rope").tensors
    given = {k.split("/")[-1]: v for k, v in tensors.items() if k.startswith(f"in/hd{head_dim}/")}
    out = {k.split("/")[-1]: v for k, v in tensors.items() if k.startswith(f"out/hd{head_dim}/")}
    close(rotary_frequencies(head_dim), out["freqs"], 1e-7)
    table = rotary_table(given["coords_txyz"].long(), head_dim)
    close(table.real, out["cos"], 1e-6)
    close(table.imag, out["sin"], 1e-6)
    close(rotate(given["q"], table), out["q_rot"], 2e-6)
    close(rotate(given["k"], rotary_table(given["k_coords_txyz"].long(), head_dim)), out["k_rot"], 2e-6)


def test_position_grids(golden):
    tensors = golden("j_pos").tensors
    embedder = LearnedPositions(8)
    embedder.load_state_dict({"position_embedding.weight": tensors["weights/position_embedding.weight"]})
    cases = [key.split("/")[1] for key in tensors if key.endswith("coords_btxyz")]
    assert len(cases) == 6
    for name in cases:
        coords = tensors[f"in/{name}/coords_btxyz"].long()
        lengths = torch.bincount(coords[:, 0]).tolist()
        extents = [part[:, 2:4].amax(0) + 1 for part in coords.split(lengths)]
        grids = [(int(h), int(w)) for h, w in extents]
        segments = Segments.of(lengths, device=torch.device("cpu"), dtype=torch.float32)
        tiles = Tiles(coords[:, 1:], lengths, grids, segments)
        close(embedder(tiles).detach(), tensors[f"out/{name}/embedding"], 1e-6)
        with torch.no_grad():
            close(embedder(tiles), tensors[f"out/{name}/embedding"], 1e-6)


def test_fsq(golden):
    tensors = golden("k_fsq").tensors
    quantizer = FSQ(FSQConfig())
    codes, indices = quantizer(tensors["in/z"])
    close(quantizer.bound(tensors["in/z"]), tensors["out/bounded"], 1e-6)
    assert torch.equal(codes, tensors["out/quantized"])
    assert torch.equal(indices, tensors["out/indices"])
    assert torch.equal(quantizer.indices_to_codes(indices), tensors["out/codes_from_indices"])
    every = torch.arange(4096)[:, None].expand(-1, 8)
    assert torch.equal(quantizer.indices_to_codes(every)[:, :6], tensors["out/codebook_4096x6"])


def test_process_image(golden):
    case = golden("l_preprocess")
    for index, spec in enumerate(case.json("specs")):
        image = process_image(
            case.tensors[f"in/process_{index}/uint8"],
            min_resolution=spec["min_resolution"],
            max_resolution=spec["max_resolution"],
            square_image_length=spec.get("square_image_length"),
        )
        tokens = pack_pixels([image], fit="crop", frames="drop")
        close(tokens.features, case.tensors[f"out/process_{index}/feats"], 1e-6)
        assert torch.equal(tokens.coords, case.tensors[f"out/process_{index}/coords_txyz"])
