"""How near the tokenizer comes to the machine's own matrix products, in one run.

    python -m benchmarks.speed.model [--preset so-c] [--side 256] [--batch 8] [--threads 2] [--repeats 5]

One image is encoded and decoded in float32 (random weights: speed does not depend on them). The
matrix products of that very call are recorded and timed alone, each on its own weights (so that
they stream from memory as in the model), with outputs allocated before. Wanted: products / model
of 0.9 or more, and a packed batch at least as fast per image as one image. The two are measured in
turn, so that a busy machine slows both; the median of the repeats counts.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from atoken.config import PRESETS, preset
from atoken.tokenizer import AToken

WANTED = 0.9


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product: left ``[(B,) M, K]`` times right ``[(B,) K, N]``, a weight as the model holds it."""

    left: tuple[int, ...]
    right: Tensor

    @property
    def out(self) -> tuple[int, ...]:
        return (*self.left[:-1], self.right.shape[-1])

    @property
    def flops(self) -> int:
        return 2 * math.prod(self.left) * self.right.shape[-1]


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the matrix products of the calls under it; attention counts as its two products."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: list[Product] = []
        self._stand_ins: dict[tuple[int, ...], Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm"):
            self.products.append(Product(tuple(args[0].shape), args[1]))
        elif name in ("addmm", "baddbmm"):
            self.products.append(Product(tuple(args[1].shape), args[2]))
        elif name.startswith("_scaled_dot_product"):
            query, key, value = ((math.prod(x.shape[:-2]), *x.shape[-2:]) for x in args[:3])
            scores = (*query[:2], key[1])
            self.products += [Product(query, self._stand_in(key).mT), Product(scores, self._stand_in(value))]
        return func(*args, **(kwargs or {}))

    def _stand_in(self, shape: tuple[int, ...]) -> Tensor:
        """For keys and values: those of the call are gone by the time of the replay."""
        if shape not in self._stand_ins:
            self._stand_ins[shape] = torch.randn(shape)
        return self._stand_ins[shape]


def random_model(name: str) -> AToken:
    """A model of that shape with random weights, allocated once."""
    with torch.device("meta"):
        model = AToken(preset(name))
    model = model.to_empty(device="cpu").eval()
    for key, parameter in model.named_parameters():
        if parameter.ndim > 1 and not key.endswith("gamma"):
            nn.init.normal_(parameter, std=0.02)
        else:
            nn.init.constant_(parameter, 0.0 if key.endswith("bias") else 1.0)
    return model


def record(model: AToken, images: list[Tensor]) -> list[Product]:
    """The products of encoding and decoding `images`.

    Raises:
        RuntimeError: a linear layer ran through a kernel that the recorder does not know.
    """
    recorder = Recorder()
    with recorder:
        reconstruct(model, images)
    tokens = sum(math.prod(-(-side // 16) for side in image.shape[:2]) for image in images)
    layers = (m for key, m in model.named_modules() if isinstance(m, nn.Linear) and ".head." not in key)
    least = sum(2 * tokens * layer.weight.numel() for layer in layers)
    if sum(product.flops for product in recorder.products) < least:
        raise RuntimeError("some linear layers were not recorded; teach Recorder the kernel that they use")
    return recorder.products


def reconstruct(model: AToken, images: list[Tensor]) -> None:
    """What is timed: pixels to latents to pixels."""
    model.decode_pixels(model.encode(images))


@torch.inference_mode()
def replay(products: list[Product]) -> Callable[[], None]:
    """A call that computes all `products`, one after another; left sides and outputs are shared by shape."""
    lefts = {product.left: torch.randn(product.left) for product in products}
    outs = {product.out: torch.empty(product.out) for product in products}
    steps = [(lefts[product.left], product.right, outs[product.out]) for product in products]

    @torch.inference_mode()
    def call() -> None:
        for left, right, out in steps:
            torch.matmul(left, right, out=out)

    return call


def medians(calls: list[Callable[[], None]], repeats: int) -> list[float]:
    """Seconds of each call: they take turns, after one round to warm up."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for call, measured in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if turn:
                measured.append(time.perf_counter() - start)
    return [statistics.median(measured) for measured in times]


def main(arguments: list[str] | None = None) -> None:
    """The command of the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.model", description=__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="so-c")
    parser.add_argument("--side", type=int, default=256, help="of the square images, in pixels (%(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="images of the packed batch (%(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    model = random_model(given.preset)
    print(f"{given.preset}, {given.side}x{given.side}, float32, {given.threads} threads, median of {given.repeats}")
    print(f"{'images':>6} {'model ms/image':>15} {'products ms/image':>18} {'products/model':>15} {'GFLOP/s':>8}")
    per_image = {}
    for count in (1, given.batch):
        images = list(torch.randint(0, 256, (count, given.side, given.side, 3), dtype=torch.uint8))
        products = record(model, images)
        run, alone = medians([lambda images=images: reconstruct(model, images), replay(products)], given.repeats)  # type: ignore[misc]
        per_image[count] = run / count
        rate = sum(product.flops for product in products) / run / 1e9
        print(f"{count:6} {1e3 * run / count:15.1f} {1e3 * alone / count:18.1f} {alone / run:15.3f} {rate:8.1f}")
    gain = per_image[1] / per_image[given.batch]
    print(f"wanted: products/model >= {WANTED}; packed batch per image {gain:.3f} x as fast as one image, wanted >= 1")


if __name__ == "__main__":
    main()
