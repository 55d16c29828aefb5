"""How fast a run goes: sums between two lines of the log."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch

from atoken.tokenizer import AToken
from atoken.training.data import Pack
from atoken.training.distributed import World
from atoken.training.flops import PEAKS, step_flops

__all__ = ["Meter"]


@dataclass(slots=True)
class Meter:
    """Counts of this rank since it was made.

    Attributes:
        waited: seconds in which the loop stood still for data.
    """

    steps: int = 0
    waited: float = 0.0
    _samples: int = 0
    _tokens: int = 0
    _flops: float = 0.0
    _start: float = field(default_factory=time.perf_counter)

    def add(self, model: AToken, pack: Pack) -> None:
        """Count a pack's forward and backward pass; what is computed a second time is not (MFU)."""
        self._samples += len(pack.ids)
        self._tokens += sum(pack.lengths)
        self._flops += step_flops(model, pack, recompute=False)

    def speed(self, world: World) -> dict[str, float]:
        """What is told: rates of all ranks, FLOP/s and memory of this one, MFU where the device's peak is known."""
        cuda = world.device.type == "cuda"
        if cuda:
            torch.cuda.synchronize(world.device)
        elapsed = time.perf_counter() - self._start
        told = {
            "steps_per_s": self.steps / elapsed,
            "samples_per_s": self._samples * world.size / elapsed,
            "tokens_per_s": self._tokens * world.size / elapsed,
            "tflops_per_gpu": self._flops / elapsed / 1e12,
            "data_share": self.waited / elapsed,
        }
        if cuda:
            told["memory_gib"] = torch.cuda.max_memory_allocated(world.device) / 2**30
            name = torch.cuda.get_device_name(world.device)
            peak = next((peak for part, peak in PEAKS.items() if part in name), None)
            if peak is not None:
                told["mfu"] = self._flops / elapsed / peak
        return told
