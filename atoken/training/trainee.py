"""What is trained, as one module: the tokenizer, its Gaussian decoder, and the scale and bias of text scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from atoken.tokenizer import AToken

__all__ = ["Terms", "Trainee"]

Terms = dict[str, Tensor]
"""Loss terms by name, each summed over the items of a pack, not weighted."""

LOG_SCALE, BIAS = math.log(10.0), -10.0
"""Where the sigmoid loss starts (SigLIP, section 3.2): nearly all pairs are negatives."""


class Trainee(nn.Module):
    """One root for sharding: all weights that a step needs are used inside its `forward`.

    Attributes:
        tokenizer: with a Gaussian decoder attached where assets are reconstructed.
        log_scale, bias: score = exp(log_scale) * cosine + bias, as SigLIP and the release (FACTS section 10).
    """

    def __init__(self, tokenizer: AToken, *, log_scale: float = LOG_SCALE, bias: float = BIAS) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        # Of one number each, not scalars: those cannot be sharded.
        self.log_scale = nn.Parameter(torch.tensor([log_scale]))
        self.bias = nn.Parameter(torch.tensor([bias]))

    def forward(self, terms: Callable[..., Terms], *inputs: Any, **settings: Any) -> Terms:
        """`terms(self, ...)`: sharded weights are whole while it runs."""
        return terms(self, *inputs, **settings)

    def blocks(self) -> list[nn.Module]:
        """The transformer blocks, in the order in which they run."""
        halves: list[Any] = [self.tokenizer.encoder, self.tokenizer.decoder]
        if self.tokenizer.gaussian_decoder is not None:
            halves.append(self.tokenizer.gaussian_decoder)
        return [block for half in halves for block in half.blocks]
