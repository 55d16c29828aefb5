"""AdamW, or Muon beside it, over a trainee's parts, and the moving average of its weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from atoken.training.distributed import local
from atoken.training.muon import MuonAdamW
from atoken.training.recipe import Optimizer

__all__ = ["Average", "build_optimizer", "set_learning_rate"]


STACKED = {".to_qkv.": 3, ".to_kv.": 2}
"""Weights that hold several matrices, and how many."""


def build_optimizer(model: nn.Module, settings: Optimizer) -> MuonAdamW:
    """Groups by learning rate, decay and kind of step.

    The matrices of blocks and head decay, and move by Muon if the settings say so; what stands at the two ends (input
    and output layers, norms, positions, the probe, scale and bias of scores) does neither, and learns at `io_lr_ratio`.
    The encoder learns at `encoder_lr_ratio` of either. The Gaussian decoder, which starts from nothing with few steps
    to come, learns at the full rate.
    """
    groups: dict[tuple[float, float, int], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        inner = (".blocks." in name or ".head." in name) and name.endswith(".weight") and parameter.ndim == 2
        ratio = 1.0 if inner or ".gaussian_decoder." in name else settings.io_lr_ratio
        if ".encoder." in name:
            ratio *= settings.encoder_lr_ratio
        parts = _parts(name) if inner and settings.matrices == "muon" else 0
        groups.setdefault((ratio, settings.weight_decay if inner else 0.0, parts), []).append(parameter)
    optimizer = MuonAdamW(
        [
            {"params": group, "lr_ratio": ratio, "weight_decay": decay, "parts": parts}
            for (ratio, decay, parts), group in groups.items()
        ],
        lr=settings.lr,
        betas=settings.betas,
        fused=True,
    )
    # Moments of zero, as the first step would make them: not every weight has a gradient in every step, and a
    # checkpoint must hold all of them whenever it is written.
    for (_, _, parts), group in groups.items():
        for parameter in group:
            moments = ("momentum",) if parts else ("exp_avg", "exp_avg_sq")
            # AdamW counts steps for each weight, and asks even of Muon's for the number when it is loaded.
            step = torch.zeros((), dtype=torch.float32, device=parameter.device)
            optimizer.state[parameter] = {"step": step} | {name: torch.zeros_like(parameter) for name in moments}
    return optimizer


def _parts(name: str) -> int:
    return next((number for part, number in STACKED.items() if part in name), 1)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_ratio"]


class Average:
    """Exponential moving average of the trained weights, cut over the ranks as they are (paper 3.5)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Starts at the weights as they are."""
        self.decay = decay
        self._weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.values: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` steps; a short memory at first, so that the start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages = [local(value) for value in self.values.values()]
        torch._foreach_lerp_(averages, [local(p.detach()) for p in self._weights.values()], 1.0 - decay)

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Take the values of an earlier run."""
        for name, value in self.values.items():
            local(value).copy_(local(values[name]))
