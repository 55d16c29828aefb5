"""How fast the metrics of a 1080p frame are, and what memory they take beside it.

    python -m benchmarks.speed.frames

PSNR and SSIM beside scikit-image, of the same two frames in the same run, in turns. Two times: the processor's of one
thread (a busy machine does not count), and by the clock with all of torch's threads, each the least of the rounds;
"times" is how many times longer scikit-image takes. It gets uint8 frames as most callers hand them over, and float32
ones, as TokenBench does, with which it is faster. With a CUDA device, the clock's time there too.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from harness.data.base import ClipShape
from harness.metrics.clip_base import ClipMeter, ClipMetric
from harness.metrics.psnr import ClipPsnr, psnr
from harness.metrics.seams import Seam
from harness.metrics.ssim import ClipSsim, ssim

HEIGHT, WIDTH, ROUNDS = 1080, 1920, 7
SHAPE = ClipShape(height=HEIGHT, width=WIDTH, rate=Fraction(24))
Work = Callable[[], object]


def main() -> None:
    """Print what each metric takes, and the ratios to scikit-image."""
    from skimage import data
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    photo = torch.from_numpy(np.asarray(data.astronaut()).copy()).permute(2, 0, 1)[None]  # type: ignore[no-untyped-call]
    large = torch.nn.functional.interpolate(photo.float(), (HEIGHT, WIDTH), mode="bicubic").clamp(0, 255)
    noise = torch.randn(large.shape, generator=torch.Generator().manual_seed(0)) * 8
    pair = large.to(torch.uint8), (large + noise).clamp(0, 255).to(torch.uint8)
    levels = [image[0].permute(1, 2, 0).contiguous().numpy() for image in pair]
    floats = [image.astype(np.float32) for image in levels]

    def their_ssim(images: list[np.ndarray]) -> float:
        return float(structural_similarity(*images, channel_axis=-1, data_range=255))  # type: ignore[no-untyped-call]

    def their_psnr(images: list[np.ndarray]) -> float:
        return float(peak_signal_noise_ratio(*images, data_range=255))  # type: ignore[no-untyped-call]

    threads = torch.get_num_threads()
    print(f"{WIDTH}x{HEIGHT}, torch {torch.__version__}, {threads} threads, a frame")
    metrics: list[ClipMetric] = [
        ClipPsnr(name="PSNR", resamples=0),
        ClipSsim(name="SSIM (7x7)", resamples=0, flavour="skimage"),
        ClipSsim(name="SSIM (Gaussian)", resamples=0),
        Seam(name="seam (time)", resamples=0),
        Seam(name="seam (space)", resamples=0, axis="space"),
    ]
    for metric in metrics:
        meter = metric.start(SHAPE)

        def ours(meter: ClipMeter = meter) -> None:
            meter.update(*pair)

        line = f"{metric.columns[0]:16}{_memory(ours)}"
        (one,), (all_,) = _times([ours], threads)
        line += f"  {one:6.1f} ms of one thread, {all_:6.1f} ms of all"
        if torch.cuda.is_available():
            line += f", {_cuda(metric, pair):6.2f} ms of {torch.cuda.get_device_name()}"
        print(line)

    def our_ssim() -> float:
        return float(ssim(*pair, "skimage", images=(0, 255), data_range=255)[0])

    def our_psnr() -> float:
        return float(psnr(*pair)[0])

    for name, mine, theirs in (("PSNR", our_psnr, their_psnr), ("SSIM (7x7)", our_ssim, their_ssim)):
        works: list[Work] = [mine]
        works += [lambda f=theirs, x=images: f(x) for images in (levels, floats)]  # type: ignore[misc]
        one_thread, clock = _times(works, threads)
        for kind, i in (("uint8", 1), ("float32", 2)):
            print(
                f"{name:16}scikit-image of {kind:8}{one_thread[i]:6.1f} ms, {one_thread[i] / one_thread[0]:5.1f} times;"
                f" by the clock {clock[i]:6.1f} ms, {clock[i] / clock[0]:5.1f} times"
            )
        print(f"{name:16}difference of the values {abs(mine() - theirs(levels)):.1e}")


def _times(works: list[Work], threads: int) -> tuple[list[float], list[float]]:
    """Milliseconds of the processor on one thread, and by the clock on all: the least of the rounds, in turns."""
    found = []
    for count, now in ((1, time.process_time), (threads, time.perf_counter)):
        torch.set_num_threads(count)
        seen: list[list[float]] = [[] for _ in works]
        for _ in range(ROUNDS):
            for work, times in zip(works, seen, strict=True):
                start = now()
                work()
                times.append((now() - start) * 1000)
        found.append([min(times) for times in seen])
    return found[0], found[1]


def _memory(work: Work) -> str:
    """What the process grows by at most while it works, where the system (Linux) tells."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return ""
    work()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)  # what the allocator keeps of earlier work would hide this one's
    reset.write_text("5")
    before = _status("VmRSS")
    work()
    return f"+{_status('VmHWM') - before:4.0f} MB"


def _status(key: str) -> float:
    """An entry of the process's status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1000


def _cuda(metric: ClipMetric, pair: tuple[torch.Tensor, torch.Tensor]) -> float:
    meter = metric.start(SHAPE)
    images = [image.cuda() for image in pair]
    least = float("inf")
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        meter.update(*images)
        torch.cuda.synchronize()
        least = min(least, (time.perf_counter() - start) * 1000)
    return least


if __name__ == "__main__":
    main()
