"""Memory and time of videos that stream: `atoken encode` and `atoken decode` from file to file.

    python -m benchmarks.speed.stream [--model atoken-nano] [--minutes 10] [--threads 1] [--repeats 5]

Three synthetic clips (a moving pattern, H.264, 24 frames/s) go through both commands, each in a process
of its own whose peak resident memory the system tells: 10 seconds and `--minutes` minutes of 192x192,
and 2 seconds of 1280x720. Wanted: the long clip within 15 % of the short one, and 720p under its bound,
which holds a tile of 4 x 45 x 80 tokens as pixels in float32 (177 MB) a few times over beside Python.
Times of the commands begin before Python does. Then, in one process, a whole clip in memory is encoded
and decoded at once and as a stream, in turn; the median of the ratios counts. More threads than idle
cores wait for one another at each small tile: measure on a quiet machine, or with one thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atoken.parts import join_video
from atoken.tokenizer import AToken

RATE = 24
GROWTH_WANTED = 1.15
BOUND_720P = 2.0  # GiB
TIMED_FRAMES = 160


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one command: peak resident memory in MiB, wall seconds."""

    peak: float
    seconds: float


def main(arguments: list[str] | None = None) -> None:
    """The command of the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.stream", description=__doc__)
    parser.add_argument("--model", default="atoken-nano", help="as `atoken encode --model` takes it (%(default)s)")
    parser.add_argument("--minutes", type=float, default=10, help="length of the long clip (%(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args(arguments)
    long = f"{given.minutes:g} min"
    clips = {
        "10 s": (192, 192, 10 * RATE),
        long: (192, 192, int(60 * given.minutes * RATE)),
        "2 s": (720, 1280, 2 * RATE),
    }
    print(f"{given.model}, float32, {given.threads} threads")
    print(f"{'clip':>8} {'size':>9} {'frames':>7}" + "".join(f" {what:>12}" for what in HEADINGS))
    peaks = {}
    for name, (height, width, frames) in clips.items():
        with tempfile.TemporaryDirectory() as place:
            costs = through_files(Path(place), given.model, (height, width, frames), given.threads)
        peaks[name] = max(cost.peak for cost in costs)
        figures = [f"{cost.peak:8.0f} MiB" for cost in costs] + [f"{cost.seconds:8.1f} s" for cost in costs]
        print(
            f"{name:>8} {f'{height}x{width}':>9} {frames:7}" + "".join(f" {figure:>12}" for figure in figures),
            flush=True,
        )
    growth = peaks[long] / peaks["10 s"]
    print(f"peak of {long} / peak of 10 s: {growth:.3f}, wanted <= {GROWTH_WANTED}")
    print(f"peak of 2 s of 720p: {peaks['2 s'] / 1024:.2f} GiB, wanted <= {BOUND_720P} GiB")
    torch.set_num_threads(given.threads)
    for what, ratio in in_memory(given.model, given.repeats).items():
        print(f"{what} {TIMED_FRAMES} frames of 192x192 as a stream / at once: {ratio:.2f} x the time")


# A process between: the system counts to a child's peak what its parent held when it was started.
METER = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
HEADINGS = ("encode peak", "decode peak", "encode time", "decode time")


def pattern(height: int, width: int, frames: int) -> Iterator[np.ndarray]:
    """Blocks of frames, uint8 RGB [n, H, W, 3]: waves that move, in three colours."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for start in range(0, frames, 16):
        t = np.arange(start, min(start + 16, frames), dtype=np.float32)[:, None, None]
        waves = [np.sin(x / 9 + t / 5), np.cos(y / 13 - t / 7), np.sin((x + y) / 23 + t / 3)]
        yield np.stack([(127.5 + 127.5 * wave + 0 * (x + y)).astype(np.uint8) for wave in waves], axis=-1)


def write_clip(path: Path, height: int, width: int, frames: int) -> None:
    """The pattern as H.264, as a user's clips come."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(RATE))
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.options = {"preset": "ultrafast"}
        for block in pattern(height, width, frames):
            for pixels in block:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def through_files(folder: Path, model: str, size: tuple[int, int, int], threads: int) -> list[Cost]:
    """Costs of encoding and of decoding one clip with the commands."""
    write_clip(folder / "clip.mp4", *size)
    encode = ["encode", folder / "clip.mp4", "-o", folder / "tokens.safetensors", "--model", model, "--device", "cpu"]
    decode = ["decode", folder / "tokens.safetensors", "-o", folder / "out", "--device", "cpu"]
    return [measured([sys.executable, "-m", "atoken.cli", *map(str, command)], threads) for command in (encode, decode)]


def measured(command: list[str], threads: int) -> Cost:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed; the message ends with what it said.
    """
    start = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", METER, *command], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr}")
    return Cost(int(done.stdout.split()[-1]) / 1024, time.perf_counter() - start)


def in_memory(name: str, repeats: int) -> dict[str, float]:
    """Time of a stream over that of the whole clip at once, for encoding and decoding."""
    model = AToken.from_pretrained(name)
    clip = np.concatenate(list(pattern(192, 192, TIMED_FRAMES)))
    latents = model.encode([clip])
    calls: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "encoding": (lambda: join_video(model.encode_video([clip])), lambda: model.encode([clip])),
        "decoding": (lambda: list(model.decode_video([latents])), lambda: model.decode(latents)),
    }
    return {what: statistics.median(_ratio(*pair) for _ in range(repeats)) for what, pair in calls.items()}


def _ratio(stream: Callable[[], object], whole: Callable[[], object]) -> float:
    times = []
    for call in (stream, whole):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times[0] / times[1]


if __name__ == "__main__":
    main()
