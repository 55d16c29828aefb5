"""Losses on CUDA in bfloat16 autocast against the CPU in float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from atoken.training.losses import (
    LpipsHeads,
    PatchDiscriminator,
    VGG16Trunk,
    adaptive_weight,
    distillation,
    generator_loss,
    gram_from,
    item_means,
    kl_divergence,
    l1,
    sigmoid_loss,
    to_square,
)

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
LENGTHS = (3, 70, 1, 26)


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_sums_are_the_cpus_with_their_gradients() -> None:
    values, other = _random(100, 48), _random(100, 48, seed=1)
    losses = {
        "means": lambda x, y: item_means(x[:, 0], LENGTHS) + y.sum() * 0,
        "l1": lambda x, y: l1(x, y, LENGTHS),
        "kl": kl_divergence,
        "distillation": lambda x, y: distillation(x, y, directions="both"),
        "sigmoid": lambda x, y: sigmoid_loss(
            x, y, torch.eye(100, dtype=torch.bool, device=x.device), x[0, 0] * 0, x[0, 0] * 0 - 1.0, total=100
        ),
        "squares": lambda x, y: to_square([x.view(20, 80, 3), y.view(40, 40, 3)], 32),
    }
    for name, loss in losses.items():
        results = []
        for device in ("cpu", "cuda"):
            x, y = values.to(device).requires_grad_(), other.to(device)
            with torch.autocast(device, torch.bfloat16):
                value = loss(x, y)
            assert value.dtype == torch.float32, name
            (gradient,) = torch.autograd.grad(value.square().sum(), x)
            results.append((value.detach().cpu(), gradient.cpu()))
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_perceptual_terms_in_autocast_are_near_the_cpus() -> None:
    trunk, heads = VGG16Trunk(random_for_tests=0), LpipsHeads()
    original = _random(2, 3, 64, 64).clamp(-1, 1)
    results = []
    for device in ("cpu", "cuda"):
        trunk, heads = trunk.to(device), heads.to(device)
        rebuilt = (original + 0.2 * _random(2, 3, 64, 64, seed=1)).to(device).requires_grad_()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            with torch.no_grad():
                wanted = trunk(original.to(device))
            maps = trunk(rebuilt)
            values = [heads(maps, wanted), *(gram_from(maps, wanted, form) for form in ("G1", "G2", "G3"))]
        assert all(value.dtype == torch.float32 for value in values)
        (gradient,) = torch.autograd.grad(values[0].sum(), rebuilt, retain_graph=True)
        assert torch.isfinite(torch.autograd.grad(sum(value.sum() for value in values), rebuilt)[0]).all()
        results.append((torch.stack(values).detach().cpu(), gradient.cpu()))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0.1, atol=0)
    assert torch.nn.functional.cosine_similarity(*(result[1].flatten() for result in results), dim=0) > 0.95


def test_the_adversarial_terms_run_in_autocast() -> None:
    discriminator = PatchDiscriminator().cuda()
    layer = torch.nn.Linear(8, 3 * 64 * 64).cuda()
    with torch.autocast("cuda", torch.bfloat16):
        images = layer(_random(2, 8).cuda()).view(2, 3, 64, 64)
        weight = adaptive_weight(images.float().abs().mean(), generator_loss(discriminator(images)), layer.weight)
    assert weight.dtype == torch.float32
    assert 0 < weight.item() < 1e4
