"""Full attention inside each segment of a packed sequence; no mask, no padding, no token loops.

Nothing of queries x keys is ever held whole: a 16-frame tile of 1080p has 32,160 tokens, whose scores
would take 4 GB a head. torch's fused kernels work piece by piece; where there is none for a device and
type, torch would quietly compute all scores at once, so there the queries go through in pieces.

Shapes: L rows of queries, M rows of keys, H heads, D channels a head. Segment i owns `queries[i]`
consecutive rows of the former and `keys[i]` of the latter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate, groupby
from typing import cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["Segments", "attend"]

VarlenKernel = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int, int], Tensor]
"""(q [L,H,D], k [M,H,D], v [M,H,D], cumulative q, cumulative k, longest q, longest k) -> [L,H,D]"""


@lru_cache(maxsize=1)
def _varlen_kernel() -> VarlenKernel | None:
    """The packed CUDA kernel of this installation: torch's own, else flash-attn's, else none."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        try:
            from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found]
        except ImportError:
            return None
        return cast(VarlenKernel, flash_attn_varlen_func)
    if torch.version.hip is None and torch.__version__ >= "2.14":
        # Split keys would let the longest batch mate choose the order of an item's sums. Earlier
        # versions refuse the option with their default kernel, which never splits here anyway.
        return cast(VarlenKernel, partial(varlen_attn, num_splits=1))
    return cast(VarlenKernel, varlen_attn)


def _packed_kernel(device: torch.device, dtype: torch.dtype) -> VarlenKernel | None:
    """The varlen kernel where device and arithmetic allow it."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return None
    return _varlen_kernel() if torch.cuda.get_device_capability(device) >= (8, 0) else None


SCORES = 2**26
"""Scores held at once where no fused kernel exists: 256 MB in float32."""


@lru_cache(maxsize=16)
def _fused(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether SDPA has a kernel for such tensors that does not hold all scores.

    Only CPU and CUDA are known to choose by this rule. Heads have a multiple of 8 channels and lie
    side by side, which suits every fused kernel, so type and device decide.
    """
    if device.type not in ("cpu", "cuda"):
        return False
    probe = torch.empty(1, 1, 8, 8, device=device, dtype=dtype)
    return int(torch._fused_sdp_choice(probe, probe, probe)) != SDPBackend.MATH.value


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Lengths of the segments, in the forms that the kernels want.

    Attributes:
        runs: (count, queries, keys) of consecutive segments with equal lengths: one SDPA each.
        kernel: the packed kernel, or None to run SDPA over `runs`.
        fused: whether SDPA may have a run at once, however long.
        cumulative_queries, cumulative_keys: [segments + 1] int32 on the device, for the kernel.
        longest_queries, longest_keys: largest lengths.
    """

    runs: tuple[tuple[int, int, int], ...]
    kernel: VarlenKernel | None
    fused: bool
    cumulative_queries: Tensor
    cumulative_keys: Tensor
    longest_queries: int
    longest_keys: int

    @classmethod
    def of(
        cls, queries: list[int], keys: list[int] | None = None, *, device: torch.device, dtype: torch.dtype
    ) -> Segments:
        """From the row counts of each segment; `keys` equal to `queries` unless given.

        The kernel is chosen here, once for a forward pass.

        Args:
            dtype: in which attention will run, unless autocast is on.
        """
        keys = queries if keys is None else keys
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        runs = groupby(zip(queries, keys, strict=True))
        return cls(
            tuple((len(list(group)), q, k) for (q, k), group in runs),
            _packed_kernel(device, dtype),
            _fused(device, dtype),
            _cumulative(queries, device),
            _cumulative(keys, device),
            max(queries),
            max(keys),
        )


def _cumulative(lengths: list[int], device: torch.device) -> Tensor:
    return torch.tensor(list(accumulate(lengths, initial=0)), dtype=torch.int32, device=device)


def _attend_runs(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
    outputs = []
    q_start = k_start = 0
    for count, n_q, n_k in segments.runs:
        q_end, k_end = q_start + count * n_q, k_start + count * n_k
        run_q = torch.unflatten(q[q_start:q_end], 0, (count, n_q)).transpose(1, 2)
        run_k = torch.unflatten(k[k_start:k_end], 0, (count, n_k)).transpose(1, 2)
        run_v = torch.unflatten(v[k_start:k_end], 0, (count, n_k)).transpose(1, 2)
        if segments.fused:
            out = scaled_dot_product_attention(run_q, run_k, run_v)
        else:
            out = _attend_pieces(run_q, run_k, run_v)
        outputs.append(out.transpose(1, 2).flatten(0, 1))
        q_start, k_start = q_end, k_end
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _attend_pieces(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """SDPA of [B, H, n, D] in stretches of queries, so that no more than `SCORES` scores exist at once."""
    step = max(1, SCORES // (q.shape[0] * q.shape[1] * k.shape[2]))
    return torch.cat([scaled_dot_product_attention(part, k, v) for part in torch.split(q, step, dim=2)], dim=2)


def attend(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
    """Softmax attention inside each segment, scale 1/sqrt(D) (FACTS section 2).

    Half precision on CUDA runs one packed kernel; everything else runs SDPA, once for each run of
    equal segments, in stretches of queries where SDPA would hold all scores (with gradients autograd
    still keeps them all there). Compiled, SDPA is a graph for each number of runs; past torch's limit
    of graphs the blocks go on uncompiled.

    Args:
        q: [L, H, D]. k, v: [M, H, D], same dtype and device.

    Returns:
        [L, H, D].
    """
    if segments.kernel is None:
        return _attend_runs(q, k, v, segments)
    return segments.kernel(
        q,
        k,
        v,
        segments.cumulative_queries,
        segments.cumulative_keys,
        segments.longest_queries,
        segments.longest_keys,
    )
