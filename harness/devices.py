"""Which device a command computes on, and how exactly."""

from __future__ import annotations

import os

import torch

from harness.errors import BenchError
from harness.plan import Settings


def resolve(name: str) -> str:
    """``cpu`` or ``cuda:N`` from what the user wrote: ``cpu``, ``cuda``, ``cuda:N`` or ``auto`` (CUDA if there is one).

    Under torchrun, ``cuda`` is the process's own device.

    Raises:
        BenchError: no such device on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BenchError(f"--device {name}: not a device; write cpu, cuda or cuda:N") from None
    if device.type == "cpu":
        return "cpu"
    if device.type != "cuda" or not torch.cuda.is_available():
        raise BenchError(f"--device {name}: not on this machine; use --device cpu")
    index = int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise BenchError(f"--device cuda:{index}: this machine has {torch.cuda.device_count()} CUDA devices")
    return f"cuda:{index}"


def use_numerics(settings: Settings) -> None:
    """Make torch compute what the settings say, the same way every time: no TF32 behind float32's name."""
    torch.set_num_threads(settings.threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if settings.device.startswith("cuda"):
        torch.cuda.set_device(settings.device)
