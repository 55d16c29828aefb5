"""How fast PSNR and SSIM are: milliseconds of one thread per image, beside the libraries they are tested against.

    python -m benchmarks.speed.metrics

Every line is measured in the same run, alternating, as processor time (a busy machine does not count); the
ratio says how many times longer the library takes for the same number.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

SIDE, IMAGES, ROUNDS = 256, 8, 15


def main() -> None:
    """Print a line per metric and library."""
    from skimage import data
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    from harness.metrics.psnr import psnr
    from harness.metrics.ssim import ssim

    torch.set_num_threads(1)
    photo = torch.from_numpy(np.asarray(data.astronaut())[:SIDE, :SIDE].copy())  # type: ignore[no-untyped-call]
    photo = photo.permute(2, 0, 1)
    reference = torch.stack([photo.roll(16 * i, dims=2) for i in range(IMAGES)])
    noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(0)) * 8
    reconstruction = (reference + noise).clamp(0, 255).to(torch.uint8)
    arrays = [
        (x.permute(1, 2, 0).numpy(), y.permute(1, 2, 0).numpy()) for x, y in zip(reference, reconstruction, strict=True)
    ]
    floats = (reference / 127.5 - 1, reconstruction / 127.5 - 1)

    def skimage_psnr() -> None:
        for x, y in arrays:
            peak_signal_noise_ratio(x, y, data_range=255)  # type: ignore[no-untyped-call]

    def skimage_ssim() -> None:
        for x, y in arrays:
            structural_similarity(x, y, channel_axis=-1, data_range=255)  # type: ignore[no-untyped-call]

    rows: list[tuple[str, Callable[[], object], str, Callable[[], object] | None]] = [
        ("PSNR", lambda: psnr(reference, reconstruction), "scikit-image", skimage_psnr),
        (
            "SSIM (skimage)",
            lambda: ssim(reference, reconstruction, "skimage", images=(0.0, 1.0), data_range=1.0),
            "scikit-image",
            skimage_ssim,
        ),
        (
            "SSIM (gaussian)",
            lambda: ssim(reference, reconstruction, "gaussian", images=(-1.0, 1.0), data_range=2.0),
            "torchmetrics",
            _torchmetrics(*floats),
        ),
    ]
    print(f"{SIDE}x{SIDE}, {IMAGES} images, one thread, torch {torch.__version__}, ms of processor time per image")
    for name, ours, library, theirs in rows:
        if theirs is None:
            print(f"{name:16} {_per_image(ours)[0]:7.2f}   {library} is not installed")
            continue
        mine, other = _per_image(ours, theirs)
        print(f"{name:16} {mine:7.2f}   {library} {other:7.2f}   {other / mine:5.1f} times")


def _torchmetrics(reference: torch.Tensor, reconstruction: torch.Tensor) -> Callable[[], object] | None:
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError:
        return None
    return lambda: structural_similarity_index_measure(
        reconstruction, reference, data_range=(-1.0, 1.0), reduction="none"
    )


def _per_image(*functions: Callable[[], object]) -> list[float]:
    """Median over rounds of each function's milliseconds per image, taken in turns."""
    for function in functions:
        function()
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(ROUNDS):
        for function, seen in zip(functions, times, strict=True):
            start = time.process_time()
            function()
            seen.append((time.process_time() - start) * 1000 / IMAGES)
    return [float(np.median(seen)) for seen in times]


if __name__ == "__main__":
    main()
