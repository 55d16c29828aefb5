"""The adversarial baseline of Fig. 4a: the PatchGAN of pix2pix as taming-transformers and LightningDiT train it.

The discriminator and the tokenizer take turns. Before a start step (5,001 in LightningDiT's main recipe) neither loss
counts; then the tokenizer's is reconstruction + share * `adaptive_weight` * `generator_loss` (share 0.5 there).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atoken.training.losses.precision import widened

__all__ = ["PatchDiscriminator", "adaptive_weight", "discriminator_loss", "generator_loss"]

_LARGEST = 1e4
"""Of the adaptive weight."""


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches of 70 x 70 pixels: 4 x 4 convolutions, batch norm, leaky ReLU.

    Args:
        channels: of the images.
        width: channels after the first layer; doubled by each further one, up to eight times.
        layers: with stride 2.
        seed: of the weights, drawn from a generator of their own: normal with deviation 0.02.
    """

    def __init__(self, channels: int = 3, width: int = 64, layers: int = 3, *, seed: int = 0) -> None:
        super().__init__()
        widths = [width * min(2**index, 8) for index in range(layers + 1)]
        parts: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for index in range(layers):
            stride = 2 if index + 1 < layers else 1
            # No bias: the batch norm takes it away.
            parts += [
                nn.Conv2d(widths[index], widths[index + 1], 4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(widths[index + 1]),
                nn.LeakyReLU(0.2),
            ]
        parts.append(nn.Conv2d(widths[-1], 1, 4, stride=1, padding=1))
        self.main = nn.Sequential(*parts)
        generator = torch.Generator().manual_seed(seed)
        for part in parts:
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, 0.0, 0.02, generator=generator)
                if part.bias is not None:
                    bound = part.weight[0].numel() ** -0.5  # as torch draws it, but from this generator
                    nn.init.uniform_(part.bias, -bound, bound, generator=generator)
            elif isinstance(part, nn.BatchNorm2d):
                nn.init.normal_(part.weight, 1.0, 0.02, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, 1, h, w], one a patch, of images [N, 3, H, W] in [-1, 1]; 26 x 26 of 224 x 224. High is real."""
        logits: Tensor = self.main(images)
        return logits


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Hinge loss: half of mean(relu(1 - real)) + mean(relu(1 + fake)), a scalar. The fakes are detached images."""
    return 0.5 * (F.relu(1.0 - widened(real_logits)).mean() + F.relu(1.0 + widened(fake_logits)).mean())


def generator_loss(fake_logits: Tensor) -> Tensor:
    """-mean(fake), a scalar."""
    return -widened(fake_logits).mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """Ratio of the lengths of both losses' gradients at the decoder's last weights, 0 to 1e4: a scalar, no gradient.

    Args:
        reconstruction, adversarial: scalars whose graphs are still there; they are kept.
        last_layer: weight of the decoder's last layer.
    """
    wanted, given = (
        torch.linalg.vector_norm(widened(torch.autograd.grad(loss, last_layer, retain_graph=True)[0]))
        for loss in (reconstruction, adversarial)
    )
    weight: Tensor = wanted / (given + 1e-4)
    return weight.clamp(max=_LARGEST)
