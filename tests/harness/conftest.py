"""The command line as a test sees it, and the small things that runs are made of."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PROTOCOL = """\
schema: 1
name: tiny
experiment: image-recon
version: 1
title: tiny
source: tests
prepare: rgb|resize_short(32,bicubic)|center_crop(32)
latent: mean
seed: 7
eight_bit: half-up
bootstrap: 20
expected: {}
metrics:
  - {metric: psnr, name: PSNR}
"""


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Bench = Callable[..., Outcome]


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Bench:
    """Run `atoken-bench ARGUMENTS` in this process."""

    def call(*arguments: object) -> Outcome:
        from harness.cli import app

        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            app([str(argument) for argument in arguments])
        said = capsys.readouterr()
        code = ended.value.code
        return Outcome(code if isinstance(code, int) else int(code is not None), said.out, said.err)

    return call


def command(*arguments: object, prefix: tuple[str, ...] = ()) -> list[str]:
    """`atoken-bench ARGUMENTS` as a process of its own."""
    return [*prefix, sys.executable, "-m", "harness", *map(str, arguments)]


def environment(**variables: str) -> dict[str, str]:
    """For a process of its own: one thread, no hub, and nothing of an outer torchrun."""
    outer = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**outer, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **variables}


def finish(arguments: list[str], repository: Path, **variables: str) -> Outcome:
    ended = subprocess.run(
        arguments,
        cwd=repository,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    return Outcome(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A protocol of 32x32 crops and PSNR alone."""
    path = tmp_path / "tiny.yaml"
    path.write_text(PROTOCOL)
    return path


@pytest.fixture
def native(tmp_path: Path) -> Path:
    """A protocol that measures every image at its own size."""
    path = tmp_path / "native.yaml"
    path.write_text(PROTOCOL.replace("rgb|resize_short(32,bicubic)|center_crop(32)", "rgb|native"))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten small pictures with something in them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(10):
        picture(folder / f"{index}.png", 40, 48 + index, seed=index)
    return folder


def checkpoint(folder: Path, *, broken: bool = False) -> Path:
    """An AToken of a few thousand weights; with NaN in them where `broken`."""
    import torch

    from atoken.config import ATokenConfig, TransformerConfig
    from atoken.tokenizer import AToken

    half = TransformerConfig(width=32, blocks=2, heads=2, mlp=48)
    torch.manual_seed(0)
    model = AToken(ATokenConfig(name="tiny", encoder=half, decoder=half, latent_channels=48)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        if broken:
            next(model.parameters()).fill_(float("nan"))
    model.save_pretrained(folder)
    return folder


def picture(path: Path, height: int, width: int, *, seed: int = 0) -> None:
    rows, columns = np.mgrid[:height, :width]
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    waves = [np.sin(rows / 5 + p) + np.cos(columns / 7 - p) for p in phase]
    Image.fromarray((127.5 + 60 * np.stack(waves, 2)).clip(0, 255).astype(np.uint8)).save(path)
