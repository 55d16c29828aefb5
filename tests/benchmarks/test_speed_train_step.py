"""The bench of a training step runs its parts, and says how fast and into what the time goes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from benchmarks.speed import train_step as bench


def test_a_step_is_timed_and_profiled(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--preset", "nano", "--tokens", "64", "--side", "32", "--device", "cpu", "--repeats", "1"]
    bench.main([*arguments, "--modes", "eager"])
    out = capsys.readouterr().out
    assert "eager: 16 items of 4 tokens" in out
    assert "MFU" in out
    assert "aten::mm" in out
    assert "kinds: matrix products" in out


def test_a_step_trains() -> None:
    torch.manual_seed(0)
    trainee = bench.build_trainee("nano", "cpu")
    step = bench.Step(trainee, bench.random_pack(trainee, tokens=16, side=32, frames=4, device="cpu"))
    losses = []
    for _ in range(3):
        timing = step.run()
        losses.append(step.loss.item())
        assert timing.step >= sum(timing.parts[:2])
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_bias_TNT", "matrix products"),
        ("void pytorch_flash::flash_bwd_kernel<...>", "attention"),
        ("void at::native::multi_tensor_apply_kernel<...>", "update"),
        ("triton_poi_fused_gelu_0", "memory"),
    ],
)
def test_costs_have_kinds(name: str, kind: str) -> None:
    assert bench.kind_of(name) == kind


def test_it_needs_no_more_than_torch() -> None:
    # GPU machines may have neither video nor mesh readers.
    program = (
        "import sys\n"
        "for name in ('av', 'trimesh', 'rich', 'embreex', 'yaml'): sys.modules[name] = None\n"
        "import benchmarks.speed.train_step"
    )
    done = subprocess.run([sys.executable, "-c", program], env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
