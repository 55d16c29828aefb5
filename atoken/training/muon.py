"""Muon for the blocks' matrices beside AdamW for the rest, as one optimiser.

Muon steps along the orthogonal matrix nearest to a matrix's momentum, so that directions with small gradients are
learnt as fast as those with large ones: Jordan et al., "Muon: an optimizer for hidden layers in neural networks"
(2024). Its step is as long as AdamW's at the same rate, as in Liu et al., "Muon is scalable for LLM training"
(arXiv 2502.16982). The paper trains with AdamW alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from atoken.training.distributed import full, local, placed_like

__all__ = ["MuonAdamW", "orthogonal"]

MOMENTUM = 0.95
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of x, x^3 and x^5: taken five times, the polynomial brings singular values from 0.01 to 1 to about 1 (0.7 to 1.2)."""
ADAMW_RMS = 0.2
"""Root mean square of an AdamW step at a rate of 1, as Liu et al. find it; Muon's is brought to it."""


class MuonAdamW(torch.optim.AdamW):
    """AdamW, but for groups whose `parts` is not 0: their parameters [out, in] move by Muon with Nesterov momentum.

    `parts` is how many matrices, one above the other, a parameter of the group holds: 3 where it makes query, key and
    value. Rows and columns whose gradients have always been zero stay as they are, bit for bit.

    Not torch's own Muon: that computes in bfloat16, which a CPU without such units does far slower than float32 (one
    thread takes 4.0 s for a step of `nano`'s matrices instead of 0.2), and takes no sharded weights and no parts.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of both kinds; `closure` must be None."""
        assert closure is None
        put_aside = []
        for group in self.param_groups:
            if not group["parts"]:
                continue
            moved = [(p, p.grad) for p in group["params"] if p.grad is not None]
            self._step_matrices(moved, group)
            put_aside += moved
        for parameter, _ in put_aside:
            parameter.grad = None  # AdamW passes it over
        super().step()
        for parameter, gradient in put_aside:
            parameter.grad = gradient

    def _step_matrices(self, moved: list[tuple[Tensor, Tensor]], group: dict[str, Any]) -> None:
        """Weights with their gradients; none of them where a step has no task for them."""
        if not moved:
            return
        momenta = [self.state[weight]["momentum"] for weight, _ in moved]
        torch._foreach_lerp_([local(m) for m in momenta], [local(g) for _, g in moved], 1.0 - MOMENTUM)
        ahead = [gradient.lerp(momentum, MOMENTUM) for (_, gradient), momentum in zip(moved, momenta, strict=True)]
        # Every rank works on whole matrices: a part of one does not know the directions of the whole.
        parts = group["parts"]
        directions = orthogonal([part for value in ahead for part in full(value).chunk(parts)])
        steps = []
        for number, (weight, _) in enumerate(moved):
            own = directions[number * parts : (number + 1) * parts]
            scaled = torch.cat([value * (ADAMW_RMS * max(value.shape) ** 0.5) for value in own])
            steps.append(placed_like(scaled, weight))
        weights = [local(weight) for weight, _ in moved]
        torch._foreach_mul_(weights, 1.0 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(weights, steps, alpha=-group["lr"])


def orthogonal(matrices: Sequence[Tensor]) -> list[Tensor]:
    """For each matrix U S V^T about U V^T: singular values of a hundredth of the norm or more come to 0.7 to 1.2.

    Matrices of one shape are taken together.
    """
    found: dict[int, Tensor] = {}
    shapes: dict[tuple[int, int], list[int]] = {}
    for place, matrix in enumerate(matrices):
        shapes.setdefault((min(matrix.shape), max(matrix.shape)), []).append(place)
    a, b, c = COEFFICIENTS
    for places in shapes.values():
        x = torch.stack([_wide(matrices[place]) for place in places])
        x = x / x.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None]
        for _ in range(ITERATIONS):
            gram = x @ x.mT
            x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
        for place, value in zip(places, x, strict=True):
            found[place] = value if _is_wide(matrices[place]) else value.mT
    return [found[place] for place in range(len(matrices))]


def _wide(matrix: Tensor) -> Tensor:
    return matrix if _is_wide(matrix) else matrix.mT


def _is_wide(matrix: Tensor) -> bool:
    return matrix.shape[0] <= matrix.shape[1]
