"""How much of a run's time is ours: ``identity`` with PSNR and SSIM on JPEG photographs at 256x256.

    python -m benchmarks.speed.harness_overhead [--count 1000] [--workers 2] [--threads 1]

JPEG decoding should be what a run waits for. Printed, on as many JPEG files of ImageNet's usual size as
asked for: the wall time of decoding and preparing alone, of the whole run, and which part of the run this
process spent on metrics and bookkeeping rather than waiting for pixels. The target is 40 % of the wall
time with 2 workers on 2 cores; the CPU seconds say the same on a machine that others use too.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from harness import execution, loading
from harness.console import Console
from harness.data.base import Dataset
from harness.data.catalog import open_dataset
from harness.data.prepare import Pipeline
from harness.metrics.registry import build_metrics
from harness.plan import Plan, Settings, Share
from harness.protocol import MetricSpec, Protocol, load
from harness.request import default_threads
from harness.tokenizers.identity import create
from harness.weights import WeightStore

TARGET = 0.40
# The mean size of ImageNet's validation images, and a quality at which they are as large as those (110 KB).
HEIGHT, WIDTH, QUALITY = 400, 500, 93


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=default_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as place:
        photos = Path(place) / "photos"
        _write_photos(photos, options.count)
        dataset = open_dataset("folder", photos)
        protocol = _protocol()
        decoding = _decoding(dataset, protocol, options.workers)
        plan = _plan(dataset, protocol, options.threads)
        wall, waited, own, workers = _run(plan, Path(place) / "runs", options.workers)
    bytes_each = f"{options.count} JPEG files of {HEIGHT}x{WIDTH}, {options.workers} workers, {options.threads} threads"
    print(bytes_each)
    print(f"decoding and preparing alone   {decoding:7.2f} s   {1000 * decoding / options.count:6.2f} ms an image")
    print(f"the whole run                  {wall:7.2f} s   {1000 * wall / options.count:6.2f} ms an image")
    print(f"CPU seconds                    {own:7.2f} s here, {workers:.2f} s in the workers")
    busy = 1 - waited / wall
    print(f"metrics and bookkeeping        {busy:7.1%} of the wall time (target {TARGET:.0%}), ", end="")
    print(f"{own / (own + workers):.1%} of the CPU seconds")


def _write_photos(folder: Path, count: int) -> None:
    """Crops of the sample photographs, each another window."""
    samples = open_dataset("samples")
    large = [x for i in range(len(samples)) if min((x := samples.read(i).pixels).shape[:2]) >= HEIGHT]
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(count):
        pixels = large[index % len(large)]
        width = min(WIDTH, pixels.shape[1])
        top, left = rng.integers(pixels.shape[0] - HEIGHT + 1), rng.integers(pixels.shape[1] - width + 1)
        crop = Image.fromarray(pixels[top : top + HEIGHT, left : left + width])
        crop.resize((WIDTH, HEIGHT)).save(folder / f"{index:05d}.jpg", quality=QUALITY)


def _protocol() -> Protocol:
    """The paper's pixels with the two metrics that need no weights."""
    content = load("image-recon", "paper").content()
    metrics = [MetricSpec(metric="psnr", name="PSNR"), MetricSpec(metric="ssim", name="SSIM")]
    content["metrics"] = [{"metric": spec.metric, "name": spec.name} for spec in metrics]
    return Protocol.from_content(content, "harness_overhead")


def _decoding(dataset: Dataset, protocol: Protocol, workers: int) -> float:
    start = time.perf_counter()
    for _ in loading.prepared(dataset, Pipeline.parse(protocol.prepare), range(len(dataset)), workers=workers):
        pass
    return time.perf_counter() - start


def _plan(dataset: Dataset, protocol: Protocol, threads: int) -> Plan:
    metrics, absent = build_metrics(protocol, WeightStore(), torch.device("cpu"))
    return Plan(
        experiment="image-recon",
        spec="identity",
        tokenizer=create(None, device="cpu", dtype="float32"),
        dataset=dataset,
        protocol=protocol,
        metrics=metrics,
        absent=absent,
        settings=Settings(threads=threads),
    )


def _run(plan: Plan, runs: Path, workers: int) -> tuple[float, float, float, float]:
    """Wall seconds of a run, those it waited for pixels, CPU seconds of this process and of its workers."""
    waited = 0.0

    def timed(*arguments: Any, **options: Any) -> Iterator[Any]:
        nonlocal waited
        stream = loading.prepared(*arguments, **options)
        while True:
            start = time.perf_counter()
            item = next(stream, None)
            waited += time.perf_counter() - start
            if item is None:
                return
            yield item

    setattr(execution, "prepared", timed)  # noqa: B010 - the type checker does not let a module be patched openly
    before = _cpu()
    start = time.perf_counter()
    execution.execute(plan, runs, share=Share(), workers=workers, console=Console(speaks=False))
    wall = time.perf_counter() - start
    own, children = (after - earlier for after, earlier in zip(_cpu(), before, strict=True))
    return wall, waited, own, children


def _cpu() -> tuple[float, float]:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime


if __name__ == "__main__":
    main()
