"""Attention pooling of an item's tokens into one vector (FACTS section 6)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from atoken.attention import Segments, attend
from atoken.config import TransformerConfig
from atoken.mlp import MLP

__all__ = ["PoolingHead"]


class _ProbeAttention(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.head_dim
        self.to_q = nn.Linear(config.width, config.width)
        self.to_kv = nn.Linear(config.width, 2 * config.width)
        self.to_out = nn.Linear(config.width, config.width)

    def forward(self, probe: Tensor, x: Tensor, lengths: Sequence[int]) -> Tensor:
        q = self.to_q(probe).unflatten(-1, (self.heads, self.head_dim))
        k, v = self.to_kv(x).unflatten(-1, (2, self.heads, self.head_dim)).unbind(1)
        segments = Segments.of([1] * len(lengths), list(lengths), device=x.device, dtype=x.dtype)
        queries = q.expand(len(lengths), -1, -1)
        out: Tensor = self.to_out(attend(queries, k, v, segments).flatten(1))
        return out


class PoolingHead(nn.Module):
    """A learned probe attends to ALL tokens of an item (over all temporal tiles), then an MLP."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.zeros(config.width))
        self.attention = _ProbeAttention(config)
        self.layernorm = nn.LayerNorm(config.width, eps=1e-6)
        self.mlp = MLP(config.width, config.mlp, bias=True)

    def forward(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """Pool final encoder features.

        Args:
            x: [L, C] packed features.
            lengths: tokens of each item.

        Returns:
            [N, C], not normalised.
        """
        pooled = self.attention(self.probe, x, lengths)
        out: Tensor = pooled + self.mlp(self.layernorm(pooled))
        return out
