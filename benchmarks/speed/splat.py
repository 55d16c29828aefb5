"""How fast Gaussians are drawn on the processor: compiled code beside torch, from the same numbers.

    python -m benchmarks.speed.splat [--count 300000] [--side 512] [--threads 2] [--repeats 5]

Gaussians as the decoder makes them: 32 at each voxel of a sphere's surface, about a voxel's size, seen from the four
evaluation views. The compiled picture of `--side` pixels should take at most 3 s on 2 cores. What
trains is timed on 128x128 pixels with 8 Gaussians at each voxel of a sample asset: compiled code and torch, drawing and
with gradients, in turn with the plain way, tile by tile with autograd and checkpoints. Wall time is what a
user waits for; processor time does not count what others do on the machine.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from atoken.assets.cameras import four_views
from atoken.assets.gaussians import Gaussians
from atoken.assets.mesh import load_mesh
from atoken.assets.splat import Renderer, render
from atoken.assets.splat_projection import ALPHA_CUT, TILE, Projected, View, project
from atoken.assets.splat_torch import LARGEST_ALPHA, LEAST_LIGHT
from atoken.assets.voxels import occupied_by_mesh
from harness.data.asset_samples import ARCHIVE

WANTED = 3.0  # seconds
SMALL_SIDE = 128


def sphere(count: int) -> Gaussians:
    """Gaussians of the sizes and opacities of the decoder's first guesses, on a sphere of radius 0.4."""
    random = torch.Generator().manual_seed(0)
    places = torch.nn.functional.normalize(torch.randn(count, 3, generator=random), dim=1)
    return Gaussians.of(
        means=0.4 * places + torch.rand(count, 3, generator=random) / 64,
        features_dc=torch.randn(count, 3, generator=random),
        scales=4e-3 * torch.randn(count, 3, generator=random).mul(0.5).exp(),
        rotations=torch.randn(count, 4, generator=random),
        opacities=torch.rand(count, generator=random) * 0.9 + 0.05,
    )


def main(arguments: list[str] | None = None) -> None:
    """The command of the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.splat", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=300_000)
    parser.add_argument("--side", type=int, default=512, help="of the square picture, in pixels (%(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    scene, views = sphere(given.count), four_views()
    start = time.perf_counter()
    render(scene[:1], views[0], 16, 16)
    machine = f"{given.threads} threads, {os.cpu_count()} cores at load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, float32, torch {torch.__version__}, median of {given.repeats}")
    print(f"first picture, with compiling or loading what was compiled before: {time.perf_counter() - start:.1f} s")

    wall, work = timed([lambda: [render(scene, view, given.side, given.side) for view in views]], given.repeats)[0]
    size = f"{given.side}x{given.side}"
    print(f"{given.count} Gaussians, {size}: {wall / 4:.2f} s a picture ({work / 4:.2f} s of processor time)")
    print(f"wanted <= {WANTED:g} s on 2 cores; {WANTED / (wall / 4):.1f} times as fast as that")

    trained = sample()
    trained.means.requires_grad_()
    view = View(views[0], SMALL_SIDE, SMALL_SIDE, 0.2, math.inf, 0.1)

    def drawn(renderer: Renderer) -> torch.Tensor:
        return render(trained, views[0], SMALL_SIDE, SMALL_SIDE, renderer=renderer)

    def plainly() -> torch.Tensor:
        return tile_by_tile(project(trained, view), SMALL_SIDE)

    rows: list[tuple[str, Callable[[], torch.Tensor]]] = [
        ("compiled", partial(drawn, "compiled")),
        ("torch", partial(drawn, "torch")),
        ("tile by tile", plainly),
    ]

    def training(draw: Callable[[], torch.Tensor]) -> None:
        torch.autograd.backward(draw().sum())

    trainings = [partial(training, draw) for _, draw in rows]
    times = timed([*(draw for _, draw in rows), *trainings], given.repeats)
    print(
        f"{len(trained)} Gaussians, {SMALL_SIDE}x{SMALL_SIDE}: wall and processor time of a picture, drawn and trained"
    )
    (wall, work), plain = times[-1], plainly().detach()
    for (name, draw), drawing, trained_in in zip(rows, times[:3], times[3:], strict=True):
        apart = float((draw().detach() - plain).abs().max())
        shown = " ".join(f"{1e3 * seconds:.0f}" for seconds in (*drawing, *trained_in))
        gain = f"{wall / trained_in[0]:.1f} and {work / trained_in[1]:.1f} times as fast as the last"
        print(f"{name}: {shown} ms; training {gain}; {apart:.1g} apart from it")


def sample() -> Gaussians:
    """Eight Gaussians at each voxel of the sample umbrella's first 5,000, of the sizes of `sphere`."""
    voxels = occupied_by_mesh(load_mesh(ARCHIVE / "exterior/umbrella/umbrella.obj"))[:5000]
    random = torch.Generator().manual_seed(0)
    places = torch.from_numpy(voxels).repeat_interleave(8, dim=0)
    means = (places + torch.rand(len(places), 3, generator=random)) / 64 - 0.5
    return replace(sphere(len(places)), means=means)


def tile_by_tile(projected: Projected[torch.Tensor], side: int) -> torch.Tensor:
    """What `splat_torch.blend` does, a tile and 1,024 Gaussians at a time, [side, side, 4] for a multiple of 16."""
    left, top, right, bottom = projected.tiles.unbind(dim=1)
    lines = []
    for row in range(side // TILE):
        line = []
        for column in range(side // TILE):
            index = ((top <= row) & (row < bottom) & (left <= column) & (column < right)).nonzero().squeeze(1)
            pixels = torch.cartesian_prod(torch.arange(TILE) + row * TILE, torch.arange(TILE) + column * TILE).flip(1)
            picture, light = torch.zeros(len(pixels), 4), torch.ones(len(pixels))
            for start in range(0, len(index), 1024):
                some = index[start : start + 1024]
                added, light = checkpoint(_chunk, projected, some, pixels, light, use_reentrant=False)
                picture = picture + added
            line.append(picture.reshape(TILE, TILE, 4))
        lines.append(torch.cat(line, dim=1))
    return torch.cat(lines)


def _chunk(
    projected: Projected[torch.Tensor], index: torch.Tensor, pixels: torch.Tensor, light: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    dx, dy = (projected.centres[index].unsqueeze(1) - pixels).unbind(dim=-1)
    a, b, c = projected.conics[index].unsqueeze(2).unbind(dim=1)
    power = -0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy
    alpha = (projected.opacities[index].unsqueeze(1) * power.exp()).clamp_max(LARGEST_ALPHA)
    alpha = torch.where((alpha >= ALPHA_CUT) & (power <= 0), alpha, 0)
    after = light * (1 - alpha).cumprod(dim=0)
    drawn = after.detach() >= LEAST_LIGHT
    weights = torch.where(drawn, alpha * torch.cat([light.unsqueeze(0), after[:-1]]), 0)
    added = torch.cat([weights.T @ projected.colours[index], weights.sum(dim=0).unsqueeze(1)], dim=1)
    return added, torch.where(drawn[-1], after[-1], 0)


def timed(calls: Sequence[Callable[[], object]], repeats: int) -> list[tuple[float, float]]:
    """Median wall and processor seconds of each call, taken in turns after one round to warm up."""
    seen: list[list[tuple[float, float]]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for call, times in zip(calls, seen, strict=True):
            wall, work = time.perf_counter(), time.process_time()
            call()
            if turn:
                times.append((time.perf_counter() - wall, time.process_time() - work))
    return [(statistics.median(t[0] for t in times), statistics.median(t[1] for t in times)) for times in seen]


if __name__ == "__main__":
    main()
