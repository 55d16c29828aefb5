"""Float32 that is float32: no TF32 or bfloat16 inside convolutions and products, whatever the run set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_float32() -> Iterator[None]:
    """Without gradients, autocast or reduced-precision float32 on any device; restores what was set.

    cuDNN uses TF32 in convolutions unless told not to, which moves LPIPS and Inception features in the
    third digit; and it chooses its algorithm by timing where `benchmark` is on, which moves the last.
    """
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    try:
        with cudnn, torch.inference_mode(), torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
