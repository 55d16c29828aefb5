"""The tokenizer's network: its weights, where they come from and go to, and its differentiable parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from atoken import checkpoint
from atoken.assets.asset_tokens import patch_channels
from atoken.assets.gaussian_decoder import GaussianDecoder
from atoken.attention import Segments
from atoken.config import ATokenConfig
from atoken.errors import CheckpointError
from atoken.pooling import pooling_segments
from atoken.quantizer import FSQ, decoder_input
from atoken.tiles import Tiles, plan_tiles
from atoken.tokens import Latents, SparseTokens
from atoken.transformer import Context, Decoder, Encoder, initialise

__all__ = ["Network", "Plan"]

_GAUSSIANS = "gaussian_decoder."


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Who sees whom in a pack and where its tokens stand; see `Network.plan`."""

    tiles: Tiles
    encoder: Context
    decoder: Context
    pooling: Segments


class Network(nn.Module):
    """Encoder, projection to latents, optional quantizer, decoder (paper section 3).

    Attributes:
        gaussian_decoder: makes Gaussians of decoded assets; None unless one was loaded or attached. It has weights
            files of its own: `tokenizer_state` is the state without it.
    """

    def __init__(self, config: ATokenConfig) -> None:
        """Random weights and no Gaussian decoder; see `from_pretrained`."""
        super().__init__()
        self.config = config
        latents = config.latent_channels
        self.encoder = Encoder(config.encoder, config.token_channels)
        self.proj = nn.Linear(config.encoder.width, 2 * latents, bias=False)
        self.decoder = Decoder(config.decoder, latents, config.token_channels)
        self.quantizer = None if config.quantizer is None else FSQ(config.quantizer)
        self.gaussian_decoder: GaussianDecoder | None = None
        if not self.proj.weight.is_meta:  # As for the position table: nothing to draw there.
            self.apply(initialise)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        preset: str | None = None,
        gaussians: str | Path | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Load a model, in evaluation mode.

        Args:
            name_or_path: a folder written by `save_pretrained`, an official `.pt` file, a
                `.safetensors` file, or the name of a model inside this package ("atoken-nano").
            preset: which model the file holds, where neither a config beside it nor its shapes
                say: "so-c", "so-c-s1", "so-d", "base", "nano" or "pico".
            gaussians: a Gaussian decoder to attach, as `GaussianDecoder.from_pretrained` takes it: the release's
                `3d_decode_gs.pt` for example. If not given, that which `save_pretrained` wrote into the same
                folder (the packaged models have one), and none where there is none.
            dtype: of the weights in memory, whatever is stored.

        Raises:
            CheckpointError: no such model, a broken or foreign file, an undecidable preset, or a Gaussian
                decoder of other patches.
        """
        source = checkpoint.locate(name_or_path)
        weights = checkpoint.open_weights(source)
        config = checkpoint.decide_config(source, weights.shapes, preset)
        # Without storage first: the weights are never in memory twice.
        with torch.device("meta"):
            model = cls(config)
        checkpoint.load_into(model, weights, device=torch.device(device), dtype=dtype)
        if gaussians is None and GaussianDecoder.is_in(source.weights.parent):
            gaussians = source.weights.parent
        if gaussians is not None:
            model.attach_gaussians(GaussianDecoder.from_pretrained(gaussians, device=device, dtype=dtype))
        return model.eval()

    def attach_gaussians(self, decoder: GaussianDecoder) -> None:
        """Let `decoder` make Gaussians of the assets that this model decodes.

        Raises:
            CheckpointError: it takes voxels of another patch.
        """
        wanted = patch_channels(self.config.patch)
        if decoder.config.channels != wanted:
            raise CheckpointError(
                f"the Gaussian decoder takes voxels of {decoder.config.channels} values; "
                f"{self.config.name} decodes them to {wanted}"
            )
        self.gaussian_decoder = decoder

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> Path:
        """Write `config.json` and `model.safetensors`, the file layout of huggingface_hub.

        A Gaussian decoder that is attached goes beside them, see `GaussianDecoder.save_pretrained`.

        Args:
            dtype: to store floating-point weights in; as they are if not given.

        Returns:
            The weights file.
        """
        path = checkpoint.save(self.tokenizer_state(), self.config, Path(folder), dtype)
        if self.gaussian_decoder is not None:
            self.gaussian_decoder.save_pretrained(folder, dtype=dtype)
        return path

    def tokenizer_state(self) -> dict[str, Tensor]:
        """`state_dict` without an attached Gaussian decoder: the keys of the release's checkpoints."""
        return {key: value for key, value in self.state_dict().items() if not key.startswith(_GAUSSIANS)}

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.proj.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.proj.weight.dtype

    # -- Differentiable parts ----------------------------------------------------------------

    def plan(self, tokens: SparseTokens) -> Plan:
        """The layout of a pack, for several passes over packs that differ in their features alone.

        Making it waits for the device. It is good for the precision (autocast) that it was made under.

        Args:
            tokens: any features, on the model's device.
        """
        typed = tokens.to(dtype=self.dtype)
        tiles = plan_tiles(typed, self.config.tile_steps)
        encoder = (
            Context.of(tiles, self.encoder.head_dim) if self.encoder.rotary else Context(tiles.segments, None, None)
        )
        decoder = Context.of(tiles, self.decoder.head_dim)
        return Plan(tiles, encoder, decoder, pooling_segments(tokens.lengths, self.device, self.dtype))

    def forward_encoder(self, tokens: SparseTokens, plan: Plan | None = None) -> tuple[Tensor, Tensor]:
        """Encode pixel tokens, each temporal tile of an item on its own.

        Args:
            tokens: features [L, token_channels] in [-1, 1], on the model's device. With a plan, also those of a
                patch's first frames alone, the others being zero: an image's first, a quarter of the channels.
            plan: of such tokens, where it is there already.

        Returns:
            Features [L, C] and moments [L, 2 * latent_channels] (mean, then log variance).
        """
        tokens = tokens.to(dtype=self.dtype)
        if plan is None:
            features = self.encoder(tokens, self.config.tile_steps)
        else:
            features = self.encoder.run(tokens.features, plan.tiles, plan.encoder)
        return features, self.proj(features)

    def pool(self, features: Tensor, lengths: Sequence[int], plan: Plan | None = None) -> Tensor:
        """Pool encoder features [L, C] into one vector per item: [N, C], not normalised."""
        pooled: Tensor = self.encoder.head(features, lengths, None if plan is None else plan.pooling)
        return pooled

    def forward_decoder(
        self,
        tokens: SparseTokens,
        plan: Plan | None = None,
        *,
        channels: int | None = None,
        stride_frames: int | None = None,
        cache_frames: int = 0,
    ) -> Tensor:
        """Decode what the decoder takes: latents, or for quantized models FSQ codes as floats.

        Args:
            tokens: features [L, latent_channels], on the model's device.
            plan: of such tokens, where it is there already; windows are the tiles then.
            channels: with a plan, how many of a pixel token are computed, if not all: those of its first frames.
            stride_frames: length and step of a temporal window in frames, by default
                `config.tile_frames`; rounded down to latent steps.
            cache_frames: frames before a window that its tokens also see (as keys and values kept
                from when they were decoded); rounded down to latent steps.

        Returns:
            Pixel tokens [L, token_channels or `channels`], about [-1, 1], not clamped.

        Raises:
            InputError: a stride below one latent step or a negative cache.
        """
        tokens = tokens.to(dtype=self.dtype)
        if plan is not None:
            return self.decoder.run(tokens.features, plan.tiles, plan.decoder, None, channels)
        rebuilt: Tensor = self.decoder(tokens, *self.config.window_steps(stride_frames, cache_frames))
        return rebuilt

    def decoder_input(self, tokens: Latents | SparseTokens) -> SparseTokens:
        """What `forward_decoder` takes, of what `decode` takes."""
        return decoder_input(tokens, self.config, self.quantizer, self.device)
