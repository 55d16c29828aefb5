"""Attention pooling of an item's tokens into one vector (FACTS section 6)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from atoken.attention import Segments, attend
from atoken.config import TransformerConfig
from atoken.mlp import MLP

__all__ = ["PoolingHead", "pooling_segments"]


def pooling_segments(lengths: Sequence[int], device: torch.device, dtype: torch.dtype) -> Segments:
    """One query for each item, which sees all of the item's tokens."""
    return Segments.of([1] * len(lengths), list(lengths), device=device, dtype=dtype)


class _ProbeAttention(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.head_dim
        self.to_q = nn.Linear(config.width, config.width)
        self.to_kv = nn.Linear(config.width, 2 * config.width)
        self.to_out = nn.Linear(config.width, config.width)

    def forward(self, probe: Tensor, x: Tensor, segments: Segments) -> Tensor:
        q = self.to_q(probe).unflatten(-1, (self.heads, self.head_dim))
        k, v = self.to_kv(x).unflatten(-1, (2, self.heads, self.head_dim)).unbind(1)
        queries = q.expand(sum(count for count, _, _ in segments.runs), -1, -1)
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

    def forward(self, x: Tensor, lengths: Sequence[int], segments: Segments | None = None) -> Tensor:
        """Pool final encoder features.

        Args:
            x: [L, C] packed features.
            lengths: tokens of each item.
            segments: `pooling_segments` of them, where they are there already.

        Returns:
            [N, C], not normalised.
        """
        segments = segments or pooling_segments(lengths, x.device, x.dtype)
        pooled = self.attention(self.probe, x, segments)
        out: Tensor = pooled + self.mlp(self.layernorm(pooled))
        return out
