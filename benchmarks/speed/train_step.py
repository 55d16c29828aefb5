"""One optimiser step of image reconstruction with L1: tokens a second, MFU, memory, and what the time goes into.

    python -m benchmarks.speed.train_step [--preset so-c] [--tokens 16384] [--side 256] [--frames 1] [--device cuda]
        [--modes eager compiled recompute] [--repeats 5]

Random weights and pixels: speed does not depend on them. A step is forward and backward pass over one pack, clipping,
AdamW and the moving average, as the trainer does it: bfloat16 autocast over float32 weights on CUDA, float32 on a CPU.
Modes: "eager", "compiled" (torch.compile of the blocks), "recompute" (compiled, with activation checkpointing).
MFU is against the dense bfloat16 peak of the data sheet, for devices without one here against a matrix product of
their own. Where memory runs out, the mode is tried again on half the tokens.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import resource
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from atoken.config import PRESETS, preset
from atoken.patches import pack_pixels
from atoken.tokenizer import AToken
from atoken.tokens import SparseTokens
from atoken.training.flops import PEAKS, Load, reconstruct_flops, segments_of
from atoken.training.memory import activations, parameters, states
from atoken.training.optimizer import Average, build_optimizer
from atoken.training.recipe import Optimizer
from atoken.training.trainee import Trainee

MODES = ("eager", "compiled", "recompute")
PARTS = ("forward", "backward", "update")
WARMUP = 2
TOP = 12
FEWEST_TOKENS = 1024

KINDS = {
    "attention": ("flash", "fmha", "attention", "sdpa"),
    "matrix products": ("gemm", "nvjet", "cutlass", "xmma", "addmm", "::mm", "::bmm", "linear"),
    "update": ("adam", "multi_tensor", "foreach", "lerp", "norm_l2"),
}
"""Kinds of costs by parts of their names; what matches none moves memory: norms, activations, rotations, copies."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: of each of `PARTS` on the device, of the whole step, and of the host until it had asked for all."""

    parts: tuple[float, ...]
    step: float
    host: float


class Step:
    """A trainee, a pack, and the parts of a step over it."""

    def __init__(self, trainee: Trainee, tokens: SparseTokens) -> None:
        self.trainee, self.tokens = trainee, tokens
        self.half = tokens.features.is_cuda
        self.optimizer = build_optimizer(trainee, Optimizer())
        self.average = Average(trainee, 0.9999)
        self.loss = torch.zeros(())

    def forward(self) -> None:
        """Posterior, a sample of it, its reconstruction, L1: each item counts once."""
        model, tokens = self.trainee.tokenizer, self.tokens
        with torch.autocast(tokens.features.device.type, torch.bfloat16, enabled=self.half):
            _, moments = model.forward_encoder(tokens)
            mean, logvar = moments.float().chunk(2, dim=-1)
            noisy = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
            rebuilt = model.forward_decoder(tokens.with_features(noisy)).float()
        error = (rebuilt - tokens.features).abs().mean(dim=-1)
        self.loss = torch.stack([part.mean() for part in torch.split(error, list(tokens.lengths))]).mean()

    def backward(self) -> None:
        """Gradients of `loss`."""
        self.loss.backward()  # type: ignore[no-untyped-call]

    def update(self) -> None:
        """Clipping, AdamW, moving average."""
        nn.utils.clip_grad_norm_(self.trainee.parameters(), 1.0)
        self.optimizer.step()
        self.average.update(1)
        self.optimizer.zero_grad()

    def run(self) -> Timing:
        """One step; nothing waits for the device before its end."""
        cuda = self.half
        marks: list[Any] = [_mark(cuda)]
        start = time.perf_counter()
        for name in PARTS:
            getattr(self, name)()
            marks.append(_mark(cuda))
        host = time.perf_counter() - start
        if cuda:
            torch.cuda.synchronize()
        whole = time.perf_counter() - start
        pairs = itertools.pairwise(marks)
        parts = tuple(a.elapsed_time(b) / 1e3 if cuda else b - a for a, b in pairs)
        return Timing(parts, whole, host)


def _mark(cuda: bool) -> Any:
    if not cuda:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def build_trainee(name: str, device: str) -> Trainee:
    """The preset with random weights on the device; the pooling head and the scores are not trained here."""
    with torch.device(device):
        trainee = Trainee(AToken(preset(name)))
    trainee.tokenizer.encoder.head.requires_grad_(False)
    trainee.log_scale.requires_grad_(False)
    trainee.bias.requires_grad_(False)
    return trainee.train()


def random_pack(trainee: Trainee, *, tokens: int, side: int, frames: int, device: str) -> SparseTokens:
    """As many images (or videos, of more than one frame) as fill `tokens`, one at least."""
    config = trainee.tokenizer.config
    shape = (side, side, 3) if frames == 1 else (frames, side, side, 3)
    each = -(-frames // config.patch[0]) * (-(-side // config.patch[1])) ** 2
    items = list(torch.randint(0, 256, (max(1, tokens // each), *shape), dtype=torch.uint8))
    return pack_pixels(items, patch=config.patch, device=device)


def prepare_blocks(trainee: Trainee, mode: str) -> None:
    """Let the blocks run in a mode, whichever they ran in before."""
    if mode == "eager":
        return
    torch._dynamo.reset()
    for block in trainee.blocks():
        compiled = torch.compile(type(block).forward.__get__(block))
        # Around what is compiled: `checkpoint` keeps the compiler out of all that it calls.
        recomputed = partial(checkpoint, compiled, use_reentrant=False)
        block.forward = recomputed if mode == "recompute" else compiled


def device_peak(device: str) -> tuple[float, str]:
    """FLOP/s that count as all, and where they are from."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    for part, peak in PEAKS.items():
        if part in name:
            return peak, f"{name}, data sheet"
    cuda = device.startswith("cuda")
    side, kind = (8192, torch.bfloat16) if cuda else (2048, torch.float32)
    left, right = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        left @ right
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds), f"{name}, measured on {side} x {side} matrices in {kind}"


def peak_memory(device: str) -> float:
    """GiB: allocated on a CUDA device since the last reset, of a CPU's process since its start."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def top_costs(step: Step) -> list[tuple[str, int, float]]:
    """Name, calls and milliseconds of a step's kernels (of operators on a CPU), costliest first."""
    cuda = step.half
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as profiled:
        step.run()
    costs = []
    for event in profiled.key_averages():
        if not cuda:
            costs.append((event.key, event.count, event.self_cpu_time_total / 1e3))
        elif event.device_type == DeviceType.CUDA:
            costs.append((event.key, event.count, event.self_device_time_total / 1e3))
    return sorted(costs, key=lambda cost: -cost[2])


def kind_of(name: str) -> str:
    """See `KINDS`."""
    lower = name.lower()
    return next((kind for kind, parts in KINDS.items() if any(part in lower for part in parts)), "memory")


def show_costs(costs: Sequence[tuple[str, int, float]]) -> None:
    """Shares of the kinds, and the first few costs."""
    total = sum(milliseconds for *_, milliseconds in costs)
    kinds: dict[str, float] = {}
    for name, _, milliseconds in costs:
        kinds[kind_of(name)] = kinds.get(kind_of(name), 0.0) + milliseconds
    shares = sorted(kinds.items(), key=lambda kind: -kind[1])
    print("  kinds: " + ", ".join(f"{kind} {100 * value / total:.1f} %" for kind, value in shares))
    print(f"  {'ms':>9} {'share':>6} {'calls':>6}  name")
    for name, calls, milliseconds in costs[:TOP]:
        print(f"  {milliseconds:9.2f} {100 * milliseconds / total:5.1f}% {calls:6}  {name[:90]}")


def planned_memory(trainee: Trainee, load: Load, mode: str, *, half: bool) -> float:
    """GiB that `atoken train --plan` counts for such a step; compiled blocks keep less."""
    config = trainee.tokenizer.config
    kept = activations(config, load, decoded=True, half=half, recompute=mode == "recompute")
    return states(parameters(config), 1, half=half, activations=kept).total / 2**30


def measure(trainee: Trainee, tokens: SparseTokens, mode: str, *, repeats: int, peak: float, device: str) -> None:
    """Run, time and profile steps over a pack, and print what came out."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    step = Step(trainee, tokens)
    begun = time.perf_counter()
    for _ in range(WARMUP):
        step.run()
    warm = time.perf_counter() - begun
    timings = [step.run() for _ in range(repeats)]
    memory = peak_memory(device)
    config = trainee.tokenizer.config
    load = Load.of(segments_of(tokens.items, config), len(tokens))
    flops = reconstruct_flops(config, load, recompute=False).model
    seconds = statistics.median(timing.step for timing in timings)
    parts = [statistics.median(timing.parts[i] for timing in timings) for i in range(len(PARTS))]
    host = statistics.median(timing.host for timing in timings)
    told = ", ".join(f"{name} {1e3 * part:.1f}" for name, part in zip(PARTS, parts, strict=True))
    print(f"  step {1e3 * seconds:.1f} ms ({told}; host {1e3 * host:.1f}; {WARMUP} warm-up steps {warm:.1f} s)")
    print(
        f"  {load.tokens / seconds:,.0f} tokens/s, {flops / seconds / 1e12:.3g} TFLOP/s, "
        f"MFU {100 * flops / seconds / peak:.1f} %, of forward and backward alone "
        f"{100 * flops / (parts[0] + parts[1]) / peak:.1f} %"
    )
    planned = planned_memory(trainee, load, mode, half=step.half)
    print(f"  peak memory {memory:.2f} GiB, planned {planned:.2f} GiB, loss {step.loss.item():.4f}")
    show_costs(top_costs(step))


def main(arguments: list[str] | None = None) -> None:
    """The command of the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.train_step", description=__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="so-c")
    parser.add_argument("--tokens", type=int, default=16384, help="of the pack (%(default)s)")
    parser.add_argument("--side", type=int, default=256, help="of the square items, in pixels (%(default)s)")
    parser.add_argument("--frames", type=int, default=1, help="of an item: more than 1 makes videos (%(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["eager", "compiled"])
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args(arguments)
    device: str = given.device
    peak, source = device_peak(device)
    print(f"{given.preset}, torch {torch.__version__}, peak {peak / 1e12:.4g} TFLOP/s ({source})", flush=True)
    trainee = build_trainee(given.preset, device)
    print(f"{sum(p.numel() for p in trainee.parameters()):,} parameters", flush=True)
    for mode in sorted(set(given.modes), key=MODES.index):
        prepare_blocks(trainee, mode)
        tokens = given.tokens
        while tokens >= min(FEWEST_TOKENS, given.tokens):
            pack = random_pack(trainee, tokens=tokens, side=given.side, frames=given.frames, device=device)
            print(f"{mode}: {len(pack)} items of {pack.lengths[0]} tokens", flush=True)
            try:
                measure(trainee, pack, mode, repeats=given.repeats, peak=peak, device=device)
                break
            except torch.cuda.OutOfMemoryError:
                print(f"  out of memory with {tokens} tokens", flush=True)
                trainee.zero_grad()
                tokens //= 2
            gc.collect()
            torch.cuda.empty_cache()
        gc.collect()


if __name__ == "__main__":
    main()
