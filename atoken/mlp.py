"""The feed-forward half of blocks and pooling head (FACTS section 2)."""

from torch import Tensor, nn

__all__ = ["MLP"]


class MLP(nn.Module):
    """Linear, GELU (tanh approximation), linear."""

    def __init__(self, width: int, hidden: int, *, bias: bool) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden, bias=bias),
            nn.GELU(approximate="tanh"),
            nn.Linear(hidden, width, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        out: Tensor = self.mlp(x)
        return out
