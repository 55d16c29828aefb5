"""Muon against torch's own, and what it promises of parts, rows and scale."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from atoken.training.muon import MuonAdamW, orthogonal
from atoken.training.optimizer import build_optimizer
from atoken.training.recipe import Optimizer


def make_optimizer(weight: nn.Parameter, *, parts: int = 1, decay: float = 0.0) -> MuonAdamW:
    optimizer = MuonAdamW([{"params": [weight], "parts": parts}], lr=0.01, weight_decay=decay)
    optimizer.state[weight] = {"momentum": torch.zeros_like(weight)}
    return optimizer


def moved(weight: torch.Tensor, gradients: list[torch.Tensor], *, parts: int = 1) -> torch.Tensor:
    """What these gradients add to the weight."""
    parameter = nn.Parameter(weight.clone())
    optimizer = make_optimizer(parameter, parts=parts)
    for gradient in gradients:
        parameter.grad = gradient
        optimizer.step()
    return parameter.detach() - weight


@pytest.mark.parametrize("shape", [(24, 24), (24, 96), (96, 24)])
def test_steps_are_those_of_torchs_muon(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    own = make_optimizer(ours, decay=0.1)
    other = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        ours.grad, theirs.grad = torch.randn(shape).repeat(2, 1, 1).unbind()
        own.step()
        other.step()
    # Theirs rounds to bfloat16 within a step.
    assert (ours - theirs).norm() < 0.02 * (theirs - start).norm()


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), size=st.floats(1e-6, 1e6), seed=st.integers(0, 99))
def test_all_directions_come_to_about_one_length(rows: int, columns: int, size: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    left, values, right = torch.linalg.svd(torch.randn(rows, columns, generator=generator), full_matrices=False)
    values = values.clamp_min(0.05 * values.norm())
    (found,) = orthogonal([size * (left * values) @ right])
    assert found.shape == (rows, columns)
    brought = torch.linalg.svdvals(found)
    assert brought.min() > 0.65
    assert brought.max() < 1.25
    torch.testing.assert_close(found, left * (left.T @ found @ right.T).diagonal() @ right, atol=2e-3, rtol=0)


def test_matrices_are_taken_together_as_they_are_alone() -> None:
    torch.manual_seed(1)
    matrices = [torch.randn(shape) for shape in [(8, 8), (8, 20), (20, 8), (8, 8), (3, 5)]]
    for matrix, found in zip(matrices, orthogonal(matrices), strict=True):
        torch.testing.assert_close(found, orthogonal([matrix])[0], atol=1e-5, rtol=1e-5)


def test_query_key_and_value_are_matrices_of_their_own() -> None:
    torch.manual_seed(2)
    weight, gradients = torch.randn(24, 8), [torch.randn(24, 8) for _ in range(3)]
    stacked = moved(weight, gradients, parts=3)
    alone = [moved(weight[rows], [g[rows] for g in gradients]) for rows in (slice(8), slice(8, 16), slice(16, 24))]
    torch.testing.assert_close(stacked, torch.cat(alone))
    assert not torch.allclose(stacked, moved(weight, gradients), atol=1e-3)


def test_rows_and_columns_without_gradient_stay_bit_for_bit() -> None:
    # What passes clips on is held this way, see atoken.training.start.clips.
    torch.manual_seed(3)
    weight, gradients = torch.randn(12, 8), [torch.randn(12, 8) for _ in range(4)]
    for gradient in gradients:
        gradient[3], gradient[:, 5] = 0.0, 0.0
    change = moved(weight, gradients)
    assert not change[3].any()
    assert not change[:, 5].any()
    assert (change != 0).sum() == 11 * 7


class TwoPaths(nn.Module):
    """A stacked matrix of a block and a layer outside, neither of which sees the other."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict({"to_qkv": nn.Linear(4, 12, bias=False)})
        self.outside = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks["to_qkv"](x).square().sum() + self.outside(x).square().sum()


def test_the_rest_moves_by_adamw() -> None:
    torch.manual_seed(4)
    model = nn.ModuleDict({"decoder": TwoPaths()})
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    ends = {}
    for matrices in ("adamw", "muon"):
        model.load_state_dict(start)
        optimizer = build_optimizer(model, Optimizer(matrices=matrices, lr=0.01))
        for x in torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)):
            optimizer.zero_grad()
            model["decoder"](x).backward()
            optimizer.step()
        ends[matrices] = {name: p.detach().clone() for name, p in model.named_parameters()}
    for name, value in start.items():
        assert not torch.equal(ends["muon"][name], value), name
        assert torch.equal(ends["adamw"][name], ends["muon"][name]) == (".outside." in name), name
    assert {group["parts"]: len(group["params"]) for group in optimizer.param_groups} == {0: 2, 3: 1}
