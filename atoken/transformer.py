"""The encoder and decoder stacks (FACTS section 2), with the official parameter names.

Shape legend: L tokens of a pack, M keys that they see, C model width, H heads, D channels a head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atoken.attention import Segments, attend
from atoken.config import TransformerConfig
from atoken.mlp import MLP
from atoken.pooling import PoolingHead
from atoken.positions import LearnedPositions, rotary_table, rotate
from atoken.tiles import Merge, Tiles, plan_tiles, plan_windows
from atoken.tokens import SparseTokens

__all__ = ["Block", "Carry", "Context", "Decoder", "Encoder", "HeadNorm", "SelfAttention", "initialise"]

NORM_EPS = 1e-6
INIT_STD = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """What every block of a pass shares: who sees whom, and the angles of queries and keys (None: not turned)."""

    segments: Segments
    query_rotary: Tensor | None
    key_rotary: Tensor | None
    merge: Merge | None = None

    @classmethod
    def of(cls, tiles: Tiles, head_dim: int, merge: Merge | None = None) -> "Context":
        """Tables for one pass over `tiles`; keys stand where queries do unless merged."""
        queries = rotary_table(tiles.coords, head_dim)
        keys = queries if merge is None else rotary_table(merge.coords, head_dim)
        return cls(tiles.segments, queries, keys, merge)


class Carry:
    """Keys and values that one layer hands from window to window (FACTS section 8).

    Keys are kept after the head norm and before the rotation: each window turns them to where they
    stand in it.
    """

    def __init__(self) -> None:
        self._held: tuple[Tensor, Tensor] | None = None

    def extend(self, k: Tensor, v: Tensor, merge: Merge) -> tuple[Tensor, Tensor]:
        """Join what is held with the new keys and values [rows, H, D] of a window.

        Returns:
            The keys and values [M, H, D] that the window's queries see.
        """
        if self._held is not None:
            k, v = torch.cat([self._held[0], k]), torch.cat([self._held[1], v])
        self._held = (k[merge.keep], v[merge.keep])
        return k[merge.order], v[merge.order]


class HeadNorm(nn.Module):
    """L2-normalise each head, times gamma [H, D], times sqrt(D); in float32."""

    def __init__(self, heads: int, head_dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(heads, head_dim))

    def forward(self, x: Tensor) -> Tensor:
        """[L, H, D] -> [L, H, D] float32."""
        gain = self.gamma.float() * self.gamma.shape[-1] ** 0.5
        normed: Tensor = F.normalize(x.float(), dim=-1, eps=1e-12) * gain
        return normed


class SelfAttention(nn.Module):
    """Multi-head self-attention with rotary positions, inside each segment of the pack."""

    def __init__(self, config: TransformerConfig, *, bias: bool, head_norm: bool) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.head_dim
        self.to_qkv = nn.Linear(config.width, 3 * config.width, bias=bias)
        self.q_rms_norm = HeadNorm(config.heads, config.head_dim) if head_norm else None
        self.k_rms_norm = HeadNorm(config.heads, config.head_dim) if head_norm else None
        self.to_out = nn.Linear(config.width, config.width, bias=bias)

    def forward(self, x: Tensor, context: Context, carry: Carry | None = None) -> Tensor:
        """[L, C] -> [L, C]; with a `carry`, queries also see the keys that it holds."""
        q, k, v = self.to_qkv(x).unflatten(-1, (3, self.heads, self.head_dim)).unbind(1)
        if self.q_rms_norm is not None and self.k_rms_norm is not None:
            q, k = self.q_rms_norm(q), self.k_rms_norm(k)
        if carry is not None and context.merge is not None:
            k, v = carry.extend(k, v, context.merge)
        if context.query_rotary is not None and context.key_rotary is not None:
            # One after the other: turning takes float32, of which memory need not hold two.
            q = rotate(q, context.query_rotary).to(v.dtype)
            k = rotate(k, context.key_rotary).to(v.dtype)
        out: Tensor = self.to_out(attend(q.to(v.dtype), k.to(v.dtype), v, context.segments).flatten(1))
        return out


class Block(nn.Module):
    """Pre-norm transformer block: x += attn(norm1(x)); x += mlp(norm2(x)).

    The encoder's kind has LayerNorm and biases; the decoder's RMSNorm, head norms and no bias.
    """

    def __init__(self, config: TransformerConfig, *, decoder: bool) -> None:
        super().__init__()
        self.norm1 = _norm(config.width, decoder=decoder)
        self.attn = SelfAttention(config, bias=not decoder, head_norm=decoder)
        self.norm2 = _norm(config.width, decoder=decoder)
        self.mlp = MLP(config.width, config.mlp, bias=not decoder)

    def forward(self, x: Tensor, context: Context, carry: Carry | None = None) -> Tensor:
        """[L, C] -> [L, C]."""
        x = x + self.attn(self.norm1(x), context, carry)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


def _norm(width: int, *, decoder: bool) -> nn.Module:
    # Both kernels take means in float32 whatever the dtype of x.
    return nn.RMSNorm(width, eps=NORM_EPS) if decoder else nn.LayerNorm(width, eps=NORM_EPS)


class Encoder(nn.Module):
    """Pixel tokens -> features; holds the pooling head too, as the checkpoints do."""

    def __init__(self, config: TransformerConfig, token_channels: int, *, rotary: bool = True) -> None:
        """Random weights.

        Args:
            rotary: turn queries and keys by where their tokens stand; without, this is SigLIP2's image tower.
        """
        super().__init__()
        self.head_dim, self.rotary = config.head_dim, rotary
        self.input_layer = nn.Linear(token_channels, config.width)
        self.pos_embedder = LearnedPositions(config.width)
        self.blocks = nn.ModuleList(Block(config, decoder=False) for _ in range(config.blocks))
        self.post_layernorm = _norm(config.width, decoder=False)
        self.head = PoolingHead(config)

    def forward(self, tokens: SparseTokens, tile_steps: int) -> Tensor:
        """Features of pixel tokens, each temporal tile on its own.

        Args:
            tokens: features [L, token_channels], pixels in [-1, 1].
            tile_steps: latent time steps of a tile.

        Returns:
            [L, C] after the final norm (`x_no_proj`).
        """
        tiles = plan_tiles(tokens, tile_steps)
        context = Context.of(tiles, self.head_dim) if self.rotary else Context(tiles.segments, None, None)
        return self.run(tokens.features, tiles, context)

    def run(self, features: Tensor, tiles: Tiles, context: Context) -> Tensor:
        """`forward` by a plan that is there already: [L, token_channels] -> [L, C].

        Fewer channels are those of a patch's first frames; of the others, which are zero then, nothing is computed.
        """
        layer, channels = self.input_layer, features.shape[1]
        # The layer itself is called where it can be: people hook it.
        whole = channels == layer.in_features
        embedded = layer(features) if whole else F.linear(features, layer.weight[:, :channels], layer.bias)
        x = embedded + self.pos_embedder(tiles)
        for block in self.blocks:
            x = block(x, context)
        out: Tensor = self.post_layernorm(x)
        return out


class Decoder(nn.Module):
    """Latents -> pixel tokens."""

    def __init__(self, config: TransformerConfig, latents: int, token_channels: int) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.input_layer = nn.Linear(latents, config.width, bias=False)
        self.pos_embedder = LearnedPositions(config.width)
        self.blocks = nn.ModuleList(Block(config, decoder=True) for _ in range(config.blocks))
        self.out_norm = _norm(config.width, decoder=True)
        self.out_layer = nn.Linear(config.width, token_channels, bias=False)

    def forward(self, tokens: SparseTokens, tile_steps: int, cache_steps: int = 0) -> Tensor:
        """Pixel tokens of latents.

        Args:
            tokens: features [L, latents].
            tile_steps: latent time steps of a window.
            cache_steps: latent time steps before a window whose keys and values it sees; 0 makes
                windows independent and runs them all at once.

        Returns:
            [L, token_channels], about [-1, 1], not clamped.
        """
        if cache_steps == 0:
            tiles = plan_tiles(tokens, tile_steps)
            return self.run(tokens.features, tiles, Context.of(tiles, self.head_dim), None)
        carries = [Carry() for _ in self.blocks]
        rows, outputs = [], []
        for window in plan_windows(tokens, tile_steps, cache_steps):
            context = Context.of(window.tiles, self.head_dim, window.merge)
            rows.append(window.rows)
            features = tokens.features[window.rows]
            outputs.append(self.run(features, window.tiles, context, carries))
        return torch.cat(outputs)[torch.cat(rows).argsort()]

    def run(
        self,
        features: Tensor,
        tiles: Tiles,
        context: Context,
        carries: list[Carry] | None,
        channels: int | None = None,
    ) -> Tensor:
        """One window by a plan that is there already: [L, latents] -> [L, token_channels].

        Args:
            carries: of each block, what the window before left; None where windows are independent.
            channels: compute so many of a token alone, those of its first frames.
        """
        x = self.input_layer(features) + self.pos_embedder(tiles)
        for index, block in enumerate(self.blocks):
            x = block(x, context, None if carries is None else carries[index])
        x = self.out_norm(x)
        out: Tensor = self.out_layer(x) if channels is None else F.linear(x, self.out_layer.weight[:channels])
        return out


def initialise(module: nn.Module) -> None:
    """Truncated normal for matrices and the probe, zero biases; norms keep their ones."""
    if isinstance(module, PoolingHead):
        nn.init.trunc_normal_(module.probe, std=INIT_STD)
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
