"""The tokenizer: images and videos in, tokens, latents, codes, features and pixels out."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atoken import checkpoint
from atoken.config import ATokenConfig
from atoken.errors import InputError
from atoken.patches import Fit, Frames, Output, Pixels, converter, pack_pixels, unpack_pixels
from atoken.quantizer import FSQ, decoder_input
from atoken.space import SpaceTiles
from atoken.streaming import decode_stream, encode_stream
from atoken.tokens import Latents, SparseTokens
from atoken.transformer import Decoder, Encoder, initialise

__all__ = ["AToken"]


class AToken(nn.Module):
    """Encoder, projection to latents, optional quantizer, decoder (paper section 3).

    The public methods take lists of items, pack them into one sequence and compute without
    gradients; an item's result does not depend on the other items of the list. `forward_encoder`,
    `pool` and `forward_decoder` are the differentiable parts for training.
    """

    def __init__(self, config: ATokenConfig) -> None:
        """Random weights; see `from_pretrained`."""
        super().__init__()
        self.config = config
        latents = config.latent_channels
        self.encoder = Encoder(config.encoder, config.token_channels)
        self.proj = nn.Linear(config.encoder.width, 2 * latents, bias=False)
        self.decoder = Decoder(config.decoder, latents, config.token_channels)
        self.quantizer = None if config.quantizer is None else FSQ(config.quantizer)
        if not self.proj.weight.is_meta:  # As for the position table: nothing to draw there.
            self.apply(initialise)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        preset: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "AToken":
        """Load a model, in evaluation mode.

        Args:
            name_or_path: a folder written by `save_pretrained`, an official `.pt` file, a
                `.safetensors` file, or the name of a model inside this package ("atoken-nano").
            preset: which model the file holds, where neither a config beside it nor its shapes
                say: "so-c", "so-c-s1", "so-d", "base" or "nano".
            dtype: of the weights in memory, whatever is stored.

        Raises:
            CheckpointError: no such model, a broken or foreign file, or an undecidable preset.
        """
        source = checkpoint.locate(name_or_path)
        weights = checkpoint.open_weights(source)
        config = checkpoint.decide_config(source, weights.shapes, preset)
        # Without storage first: the weights are never in memory twice.
        with torch.device("meta"):
            model = cls(config)
        checkpoint.load_into(model, weights, device=torch.device(device), dtype=dtype)
        return model.eval()

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> Path:
        """Write `config.json` and `model.safetensors`, the file layout of huggingface_hub.

        Args:
            dtype: to store floating-point weights in; as they are if not given.

        Returns:
            The weights file.
        """
        return checkpoint.save(self.state_dict(), self.config, Path(folder), dtype)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.proj.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.proj.weight.dtype

    # -- Differentiable parts ----------------------------------------------------------------

    def forward_encoder(self, tokens: SparseTokens) -> tuple[Tensor, Tensor]:
        """Encode pixel tokens, each temporal tile of an item on its own.

        Args:
            tokens: features [L, token_channels] in [-1, 1], on the model's device.

        Returns:
            Features [L, C] and moments [L, 2 * latent_channels] (mean, then log variance).
        """
        tokens = tokens.to(dtype=self.dtype)
        features = self.encoder(tokens, self.config.tile_steps)
        return features, self.proj(features)

    def pool(self, features: Tensor, lengths: Sequence[int]) -> Tensor:
        """Pool encoder features [L, C] into one vector per item: [N, C], not normalised."""
        pooled: Tensor = self.encoder.head(features, lengths)
        return pooled

    def forward_decoder(
        self, tokens: SparseTokens, *, stride_frames: int | None = None, cache_frames: int = 0
    ) -> Tensor:
        """Decode what the decoder takes: latents, or for quantized models FSQ codes as floats.

        Args:
            tokens: features [L, latent_channels], on the model's device.
            stride_frames: length and step of a temporal window in frames, by default
                `config.tile_frames`; rounded down to latent steps.
            cache_frames: frames before a window that its tokens also see (as keys and values kept
                from when they were decoded); rounded down to latent steps.

        Returns:
            Pixel tokens [L, token_channels], about [-1, 1], not clamped.

        Raises:
            InputError: a stride below one latent step or a negative cache.
        """
        rebuilt: Tensor = self.decoder(
            tokens.to(dtype=self.dtype), *self.config.window_steps(stride_frames, cache_frames)
        )
        return rebuilt

    # -- Public methods on items -------------------------------------------------------------

    @torch.no_grad()
    def encode(self, items: Sequence[Pixels], *, fit: Fit = "pad", frames: Frames = "pad") -> Latents:
        """Latents of images and videos.

        Args:
            items: images [H, W, 3] or PIL, videos [T, H, W, 3]; uint8, or floats in [-1, 1].
            fit: "pad" reflects up to whole patches, "crop" centre-crops down to them.
            frames: "pad" keeps every frame, "drop" imitates the release.

        Returns:
            Means and log variances in float32, on the model's device.

        Raises:
            InputError: an item that is not such an array, or not finite and in range.
        """
        tokens = self._pack(items, fit, frames)
        _, moments = self.forward_encoder(tokens)
        mean, logvar = moments.float().chunk(2, dim=-1)
        return Latents(tokens.with_features(mean.contiguous()), logvar.contiguous())

    @torch.no_grad()
    def quantize(self, latents: Latents | SparseTokens) -> SparseTokens:
        """Integer codes [L, codebooks] int32 of latents (their mean, if a posterior is given).

        Raises:
            InputError: the model is continuous, or the tokens are codes already.
        """
        if self.quantizer is None:
            raise InputError(f"{self.config.name} is continuous: it has no codes; use so-d")
        tokens = latents.mean if isinstance(latents, Latents) else latents
        if tokens.is_codes:
            raise InputError("these tokens are codes already")
        return tokens.with_features(self.quantizer(tokens.features)[1])

    def decode(
        self,
        tokens: Latents | SparseTokens,
        *,
        output: Output = "uint8",
        stride_frames: int | None = None,
        cache_frames: int = 0,
    ) -> list[np.ndarray[Any, Any]]:
        """Pixels of latents or codes, in the sizes that the items had.

        Args:
            tokens: `Latents` (their mean is decoded), a sample of them, or integer codes. A
                quantized model rounds any floating-point latents to codes first.
            output: "uint8" clamps and rounds to nearest; "float" gives float32, about [-1, 1],
                not clamped.
            stride_frames, cache_frames: as in `forward_decoder`.

        Returns:
            [H, W, 3] for images, [T, H, W, 3] for videos.

        Raises:
            InputError: codes for a continuous model, tokens that are not whole items.
        """
        convert = converter(output)
        clips = self.decode_pixels(tokens, stride_frames=stride_frames, cache_frames=cache_frames)
        specs = (tokens.mean if isinstance(tokens, Latents) else tokens).items
        arrays = zip(map(convert, clips), specs, strict=True)
        return [array[0] if spec.kind == "image" else array for array, spec in arrays]

    @torch.no_grad()
    def decode_pixels(
        self, tokens: Latents | SparseTokens, *, stride_frames: int | None = None, cache_frames: int = 0
    ) -> list[Tensor]:
        """`decode` on the device: per item [T, H, W, 3] float32, not clamped; T is 1 for images."""
        tokens = self.decoder_input(tokens)
        rebuilt = self.forward_decoder(tokens, stride_frames=stride_frames, cache_frames=cache_frames)
        return unpack_pixels(tokens.with_features(rebuilt.float()), self.config.patch)

    @torch.no_grad()
    def embed(self, items: Sequence[Pixels], *, fit: Fit = "pad", frames: Frames = "pad") -> Tensor:
        """One unit vector per item for comparison with text: [N, C] float32 (`image_feat`)."""
        tokens = self._pack(items, fit, frames)
        features, _ = self.forward_encoder(tokens)
        return F.normalize(self.pool(features, tokens.lengths).float(), dim=-1)

    @torch.no_grad()
    def features(self, items: Sequence[Pixels], *, fit: Fit = "pad", frames: Frames = "pad") -> SparseTokens:
        """Dense encoder features [L, C] float32, before any projection (`x_no_proj`)."""
        tokens = self._pack(items, fit, frames)
        return tokens.with_features(self.forward_encoder(tokens)[0].float())

    # -- Videos of any length, as streams ----------------------------------------------------

    def encode_video(
        self,
        frames: Iterable[Pixels],
        *,
        fit: Fit = "pad",
        frames_rule: Frames = "pad",
        space: SpaceTiles | None = None,
    ) -> Iterator[Latents]:
        """`encode` of one video of any length, holding no more than a temporal tile of it.

        Args:
            frames: any mix of frames [H, W, 3] and blocks of them [n, H, W, 3], of one size; uint8,
                or floats in [-1, 1]. Their number need not be known.
            fit, frames_rule: as `fit` and `frames` of `encode`.
            space: cut frames into these tiles too; changes the result, see `atoken.space`.

        Yields:
            Latents of each temporal tile once its frames are there: one item, whose t goes on from
            the part before. `join_video` makes one item of all.

        Raises:
            InputError: on the way, a frame that `encode` would refuse or that has another size or
                type than the first, named by its number from 0; no frame at all.
        """
        return encode_stream(self, frames, fit=fit, frames_rule=frames_rule, space=space)

    def decode_video(
        self,
        parts: Iterable[Latents | SparseTokens],
        *,
        output: Output = "uint8",
        stride_frames: int | None = None,
        cache_frames: int = 0,
        space: SpaceTiles | None = None,
    ) -> Iterator[np.ndarray[Any, Any]]:
        """`decode` of one video of any length, holding a window of it and its cache.

        Args:
            parts: of `encode_video`, their codes or samples, in any cut along t; one item as [item].
            output, stride_frames, cache_frames: as in `decode`.
            space: decode in these spatial tiles and blend their pixels, see `atoken.space`.

        Yields:
            Blocks [n, H, W, 3] in order, each as soon as its window is complete.

        Raises:
            InputError: what `decode` refuses; on the way, parts that do not follow one another.
        """
        convert = converter(output)
        blocks = self.decode_video_pixels(parts, stride_frames=stride_frames, cache_frames=cache_frames, space=space)
        return map(convert, blocks)

    def decode_video_pixels(
        self,
        parts: Iterable[Latents | SparseTokens],
        *,
        stride_frames: int | None = None,
        cache_frames: int = 0,
        space: SpaceTiles | None = None,
    ) -> Iterator[Tensor]:
        """`decode_video` on the device: blocks [n, H, W, 3] float32, about [-1, 1], not clamped."""
        steps, cache = self.config.window_steps(stride_frames, cache_frames)
        return decode_stream(self, parts, stride_steps=steps, cache_steps=cache, space=space)

    def _pack(self, items: Sequence[Pixels], fit: Fit, frames: Frames) -> SparseTokens:
        return pack_pixels(items, patch=self.config.patch, fit=fit, frames=frames, device=self.device)

    def decoder_input(self, tokens: Latents | SparseTokens) -> SparseTokens:
        """What `forward_decoder` takes, of what `decode` takes."""
        return decoder_input(tokens, self.config, self.quantizer, self.device)
