"""What a run costs beyond decoding: ``identity`` with PSNR and SSIM on JPEG photographs at 256x256.

    python -m benchmarks.speed.harness_overhead [--count 1000] [--workers 2] [--threads 1]

JPEG decoding should be what a run waits for. Measured on as many JPEG files of ImageNet's usual size as
asked for: the wall time of decoding and preparing alone, and of whole runs. What a run takes longer than
decoding is metrics and bookkeeping: at most 40 % of its wall time is wanted with 2 workers. SSIM needs no
arithmetic for an image that came back exactly, so a second row changes every image a little.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from harness import execution, loading
from harness.console import Console
from harness.data.base import ImageSource
from harness.data.catalog import open_images
from harness.data.prepare import Pipeline
from harness.metrics.registry import build_metrics
from harness.plan import Plan, Settings, Share
from harness.protocol import MetricSpec, Protocol, load
from harness.request import default_threads
from harness.tokenizers.base import Encoded, Tokenizer
from harness.tokenizers.identity import Identity, create
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
        dataset = open_images("folder", photos)
        protocol = _protocol()
        tokenizers = (create(None, device="cpu", dtype="float32"), Dimmed("cpu"))
        before = _decoding(dataset, protocol, options.workers)
        runs = [
            _run(_plan(dataset, protocol, options.threads, tokenizer), Path(place) / "runs", options.workers)
            for tokenizer in tokenizers
        ]
        # Before and after, so that a machine that slows down meanwhile does not flatter the runs.
        decoding = (before + _decoding(dataset, protocol, options.workers)) / 2
    print(f"{options.count} JPEG files of {HEIGHT}x{WIDTH}, {options.workers} workers, {options.threads} threads")
    print(f"decoding and preparing alone: {1000 * decoding / options.count:.2f} ms an image")
    print("tokenizer   ms an image   metrics and bookkeeping: of the wall time   of the CPU seconds")
    for tokenizer, (wall, own, workers) in zip(tokenizers, runs, strict=True):
        share, cpu = 1 - decoding / wall, own / (own + workers)
        print(f"{tokenizer.card.name:<12}{1000 * wall / options.count:11.2f}{share:44.1%}{cpu:21.1%}")
    print(f"wanted of the wall time for identity: {TARGET:.0%} or less")


class Dimmed(Identity):
    """``identity``, but every value is a grey level lower: no metric meets an image that came back exactly."""

    card = replace(Identity.card, name="dimmed", title="one grey level lower")

    def decode(self, encoded: Encoded) -> list[Tensor]:
        return [image - 1 / 127.5 for image in super().decode(encoded)]


def _write_photos(folder: Path, count: int) -> None:
    """Crops of the sample photographs, each another window."""
    samples = open_images("samples")
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


def _decoding(dataset: ImageSource, protocol: Protocol, workers: int) -> float:
    start = time.perf_counter()
    for _ in loading.prepared(dataset, Pipeline.parse(protocol.prepare), range(len(dataset)), workers=workers):
        pass
    return time.perf_counter() - start


def _plan(dataset: ImageSource, protocol: Protocol, threads: int, tokenizer: Tokenizer) -> Plan:
    metrics, absent = build_metrics(protocol, WeightStore(), torch.device("cpu"))
    return Plan(
        experiment="image-recon",
        spec=tokenizer.card.name,
        tokenizer=tokenizer,
        dataset=dataset,
        protocol=protocol,
        metrics=metrics,
        absent=absent,
        settings=Settings(threads=threads),
    )


def _run(plan: Plan, runs: Path, workers: int) -> tuple[float, float, float]:
    """Wall seconds of a run, CPU seconds of this process and of its workers."""
    before = _cpu()
    start = time.perf_counter()
    execution.execute(plan, runs, share=Share(), workers=workers, console=Console(speaks=False))
    wall = time.perf_counter() - start
    own, children = (after - earlier for after, earlier in zip(_cpu(), before, strict=True))
    return wall, own, children


def _cpu() -> tuple[float, float]:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime


if __name__ == "__main__":
    main()
