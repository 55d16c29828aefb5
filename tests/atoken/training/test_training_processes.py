"""Several processes train the model that one trains, and each goes on with what the other left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atoken.training.logs import LOG
from atoken.training.recipe import Matrices, Recipe

SCRIPT = """
import json, sys, torch
torch.set_num_threads(1)
from pathlib import Path
from atoken import config
from atoken.config import ATokenConfig
from atoken.training.recipe_files import parse
from atoken.training.session import Inputs, run_session
folder, out, recipe, tiny, steps = sys.argv[1:]
tiny = ATokenConfig.from_dict(json.loads(tiny))
config.PRESETS[tiny.name] = tiny
out = Path(out)
recipe = parse(json.loads(recipe), where="test")
inputs = Inputs(data={"images": [folder]}, val={}, out=out, cache=out.parent / "cache", workers=0)
calls = iter(range(10**6))
run_session(recipe, range(1), inputs, device="cpu", stop=lambda: next(calls) == int(steps))
"""

Train = Callable[..., dict[int, dict[str, float]]]


@pytest.fixture
def train(folder: Path, tmp_path: Path, tiny: Any) -> Train:
    """Train in processes of their own; gives the lines of the log by step."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)

    def call(recipe: Recipe, out: Path, *, processes: int, steps: int = -1) -> dict[int, dict[str, float]]:
        launcher = [sys.executable]
        if processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        values = [json.dumps(recipe.to_dict()), json.dumps(tiny.to_dict()), str(steps)]
        repository = str(Path(__file__).resolve().parents[3])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": repository}
        command = [*launcher, str(script), str(folder), str(out), *values]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
        return {line["step"]: line for line in lines if "image_recon/loss" in line}

    return call


@pytest.mark.parametrize("matrices", ["adamw", "muon"])
def test_two_processes_agree_with_one_and_one_goes_on(
    make_recipe: Callable[..., Recipe], train: Train, tmp_path: Path, matrices: Matrices
) -> None:
    recipe = make_recipe(9)
    recipe = replace(recipe, optimizer=replace(recipe.optimizer, matrices=matrices))
    alone = train(recipe, tmp_path / "alone", processes=1)
    cut = train(recipe, tmp_path / "two", processes=2, steps=6)
    assert list(cut) == [1, 2, 3, 4, 5, 6]
    together = train(recipe, tmp_path / "two", processes=1)
    assert list(together) == list(alone) == list(range(1, 10))
    for step, line in alone.items():
        for name in ("image_recon/loss", "image_recon/l1", "grad_norm"):
            assert together[step][name] == pytest.approx(line[name], rel=2e-4), (step, name)


def test_a_batch_that_the_processes_cannot_share(folder: Path, make_recipe: Callable[..., Recipe]) -> None:
    from atoken.training.data import Batches, open_sources
    from atoken.training.errors import TrainingError

    sources = open_sources({"images": [str(folder)]}, cache=None)
    with pytest.raises(TrainingError, match=r"image_recon: 3 processes cannot share 4 samples evenly; take 3 or 6"):
        Batches(
            sources, make_recipe().stages[0], stage_index=0, seed=0, rank=0, world=3, patch=(1, 16, 16), pack_tokens=64
        )
