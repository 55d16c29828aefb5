"""Golden cases with videos once more, through the streaming path: same file, same values wanted.

Frames arrive in blocks and latents in parts that fit neither tiles nor windows, so that what is
carried from one to the next is in the comparison. An image of the case streams as the video of one
frame that it is to the network.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from atoken.parts import join_video, split_video
from atoken.tokenizer import AToken
from atoken.tokens import Latents, SparseTokens
from harness.golden_network import CACHED, cached_no_target, items_of, model_of, pixels_of
from harness.golden_sheet import Case, Produced, Row, Tolerance, compare

__all__ = ["streamed"]

BLOCK_FRAMES = 5
PART_STEPS = 3


@torch.no_grad()
def streamed(case: Case, device: torch.device, dtype: torch.dtype, tolerance: Tolerance) -> list[Row]:
    """A row ``stream/OUTPUT`` for each output that a stream gives; none if the case has no video.

    Raises:
        ATokenError: the file's weights or items do not fit its own header.
    """
    if not any("video" in task for task in case.header["task_types"]):
        return []
    model = model_of(case, device, dtype)
    latents = Latents.cat([_encoded(model, item) for item in items_of(case)])
    start = latents.mean
    if model.quantizer is not None and "out/indices" in case.tensors:
        # The stored indices: one of our own that rounding turned over is told of elsewhere.
        start = start.with_features(case.tensors["out/indices"].to(device))
    rebuilt = _decoded(model, start)
    produced = Produced(values={"mean": latents.mean.features, "logvar": latents.logvar, "rec_feats": rebuilt.features})
    produced.values.update(pixels_of(case, rebuilt, model.config))
    for key in case.under("out/"):
        if match := CACHED.fullmatch(key):
            cache, stride = int(match[1]), int(match[2])
            produced.values[key] = _decoded(model, start, stride, cache).features
            produced.no_target.update(cached_no_target(key, start, model.config))
    wanted = {key: value for key, value in case.tensors.items() if key.removeprefix("out/") in produced.values}
    rows = compare(replace(case, tensors=wanted), produced, tolerance)
    return [replace(row, output=f"stream/{row.output}") for row in rows]


def _encoded(model: AToken, item: Tensor) -> Latents:
    clip = item if item.ndim == 4 else item[None]
    return join_video(model.encode_video(torch.split(clip, BLOCK_FRAMES), fit="crop", frames_rule="drop"))


def _decoded(model: AToken, tokens: SparseTokens, stride: int | None = None, cache: int = 0) -> SparseTokens:
    """Pixel tokens of all items, taken from the frames that their streams give."""
    pt, ph, pw = model.config.patch
    rows = []
    for item in tokens.split():
        parts = split_video(item, steps=PART_STEPS, patch=model.config.patch)
        clip = torch.cat(list(model.decode_video_pixels(parts, stride_frames=stride, cache_frames=cache)))
        t, h, w = item.items[0].grid(model.config.patch)
        rows.append(clip.view(t, pt, h, ph, w, pw, 3).permute(0, 2, 4, 1, 3, 5, 6).reshape(t * h * w, -1))
    return tokens.with_features(torch.cat(rows))
