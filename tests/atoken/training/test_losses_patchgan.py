"""The adversarial baseline against what pix2pix and taming-transformers publish of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from atoken.training.losses import PatchDiscriminator, adaptive_weight, discriminator_loss, generator_loss


def test_a_judgement_is_of_70_by_70_pixels() -> None:
    discriminator = PatchDiscriminator().eval()
    images = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)).requires_grad_()
    logits = discriminator(images)
    assert logits.shape == (1, 1, 26, 26)
    (gradient,) = torch.autograd.grad(logits[0, 0, 13, 13], images)
    rows, columns = (gradient.abs().sum(dim=axes).flatten().nonzero().flatten() for axes in ((0, 1, 3), (0, 1, 2)))
    assert int(rows[-1] - rows[0]) + 1 == 70
    assert int(columns[-1] - columns[0]) + 1 == 70


def test_layers_and_weights_are_the_published_ones() -> None:
    discriminator = PatchDiscriminator()
    # taming-transformers' discriminator has as many.
    assert sum(weight.numel() for weight in discriminator.parameters()) == 2_765_633
    convolutions = [layer for layer in discriminator.main if isinstance(layer, nn.Conv2d)]
    assert [(layer.out_channels, layer.stride[0], layer.bias is not None) for layer in convolutions] == [
        (64, 2, True), (128, 2, False), (256, 2, False), (512, 1, False), (1, 1, True),
    ]  # fmt: skip
    assert [layer.weight.std().item() for layer in convolutions] == pytest.approx([0.02] * 5, rel=0.05)
    same = PatchDiscriminator().state_dict()
    assert all(torch.equal(value, same[key]) for key, value in discriminator.state_dict().items())
    assert not torch.equal(PatchDiscriminator(seed=1).main[0].weight, convolutions[0].weight)


def test_hinge_losses() -> None:
    generator = torch.Generator().manual_seed(0)
    real, fake = 2 * torch.randn(2, 4, 1, 5, 5, generator=generator)
    wanted = 0.5 * (np.maximum(1 - real.numpy(), 0).mean() + np.maximum(1 + fake.numpy(), 0).mean())
    assert discriminator_loss(real, fake).item() == pytest.approx(wanted, rel=1e-6)
    assert generator_loss(fake).item() == pytest.approx(-fake.numpy().mean(), rel=1e-6)
    # A discriminator that is sure enough learns no more; one that is at a loss has 1.
    assert discriminator_loss(torch.full((3,), 1.5), torch.full((3,), -1.5)).item() == 0
    assert discriminator_loss(torch.zeros(3), torch.zeros(3)).item() == 1
    half = discriminator_loss(real.bfloat16(), fake.bfloat16())
    assert half.dtype == torch.float32


def test_the_adaptive_weight_is_the_ratio_of_gradients_within_its_bounds() -> None:
    layer = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    hidden = layer * 2.0
    reconstruction = (hidden * torch.tensor([3.0, 0.0, 4.0])).sum()  # gradient (6, 0, 8)
    adversarial = 0.25 * hidden[1]  # gradient (0, 0.5, 0)
    weight = adaptive_weight(reconstruction, adversarial, layer)
    assert weight.item() == pytest.approx(10 / (0.5 + 1e-4))
    assert not weight.requires_grad
    assert adaptive_weight(reconstruction, 0.0 * adversarial, layer).item() == 1e4
    assert adaptive_weight(0.0 * reconstruction, adversarial, layer).item() == 0
    # The graphs are still there.
    (reconstruction + weight * adversarial).backward()
    assert layer.grad is not None
    assert math.isclose(layer.grad[1].item(), 0.5 * weight.item(), rel_tol=1e-6)


def test_the_discriminator_learns_to_tell_noise_from_flat_images() -> None:
    discriminator = PatchDiscriminator(width=8, layers=2)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-3, betas=(0.5, 0.9))
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(15):
        real = torch.rand(4, 3, 32, 32, generator=generator) * 2 - 1
        fake = torch.rand(4, 3, 1, 1, generator=generator).expand(4, 3, 32, 32) * 2 - 1
        loss = discriminator_loss(discriminator(real), discriminator(fake))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
