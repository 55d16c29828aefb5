"""Any AToken checkpoint behind the adapter contract: ``atoken``, ``atoken:NAME``, ``atoken:PATH``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atoken import checkpoint
from atoken.config import PRESETS, ATokenConfig, FSQConfig
from atoken.space import spots
from atoken.tokens import Latents, PosteriorSampler, SparseTokens
from harness.data.base import ClipShape
from harness.errors import BenchError
from harness.plan import slug
from harness.tokenizers.atoken_assets import UNRENDERED, AssetOptions, ATokenAssets, gaussian_weights
from harness.tokenizers.base import Encoded, LatentMode, Tokenizer, TokenizerCard
from harness.tokenizers.video import EncodedPart, VideoTokenizer
from harness.tokenizers.video_options import VideoOptions

if TYPE_CHECKING:
    from atoken.tokenizer import AToken

DEFAULT = "atoken-nano"
_DATA = "images, meshes and clips, of the sample clips bikes and bigbuckbunny but not carphone"
# What a packaged model has seen, where it has seen what it may be measured on.
SEEN = {"atoken-nano": _DATA, "atoken-nano-d": _DATA}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """How the paper speaks of an architecture.

    Attributes:
        title: its name there.
        row: `TokenizerCard.paper_row`, family and method of Tables 4 and 6. Stage 2 of So/C is not released; with the
            shapes of Stage 3 only a preset could tell it, and there is none.
        compression: as printed: Stage 1 has seen images only, so that its 4-frame patches count as 1.
        images_only: it takes videos frame by frame.
    """

    title: str
    row: str
    compression: tuple[int, int, int] = (4, 16, 16)
    images_only: bool = False


PUBLISHED = {
    "so-c": Published(title="AToken-So/C", row="AToken-So/C / Stage 3"),
    "so-c-s1": Published(
        title="AToken-So/C Stage 1", row="AToken-So/C / Stage 1", compression=(1, 16, 16), images_only=True
    ),
    "so-d": Published(title="AToken-So/D", row="AToken-So/D"),
}


class ATokenAdapter(Tokenizer):
    """Images as 1-frame clips; sides are padded by reflection to whole patches and cropped back.

    A continuous model decodes the mean or a sample of its posterior; a quantized one its codes.
    """

    def __init__(self, model: AToken, card: TokenizerCard, search: int = 0) -> None:
        """`search` is that of `AToken.encode`."""
        self._model = model
        self._search = search
        self.card = card

    @property
    def device(self) -> torch.device:
        return self._model.device

    def encode(self, images: Sequence[Tensor], *, latent: LatentMode, seeds: Sequence[int]) -> Encoded:
        latents = self._model.encode([image.permute(1, 2, 0) for image in images], fit="pad", search=self._search)
        counts = latents.mean.lengths
        quantizer = self._model.config.quantizer
        if quantizer is None:
            return Encoded(payload=latents.mean if latent == "mean" else latents.sample(seeds), tokens=counts)
        codes = self._model.quantize(latents)
        return Encoded(
            payload=codes,
            tokens=counts,
            bits=[_bits(quantizer) * count for count in counts],
            codes=[item.features for item in codes.split()],
        )

    def decode(self, encoded: Encoded) -> list[Tensor]:
        return [clip[0].permute(2, 0, 1) for clip in self._model.decode_pixels(encoded.payload)]


class ATokenVideoAdapter(ATokenAdapter, VideoTokenizer, ATokenAssets):
    """Images as above, videos in the model's temporal tiles, and 3D assets.

    Holds a tile of 16 frames with its activations, the tile's pixels before and after, and for a cached decode the
    keys and values of the frames that are seen again; nothing grows with the clip. Sides and the last group of
    frames are completed and cut again.
    """

    def __init__(
        self, model: AToken, card: TokenizerCard, options: VideoOptions, assets: AssetOptions, search: int
    ) -> None:
        super().__init__(model, card, search)
        self._options = options
        self._asset_options = assets
        self.unrendered = UNRENDERED if model.gaussian_decoder is None else None

    def borders(self, shape: ClipShape) -> tuple[Sequence[int], Sequence[int]]:
        space = self._options.space
        if space is None:
            return super().borders(shape)
        patch = self._model.config.patch
        rows, columns, overlap = space.in_patches(patch)
        grid = -(-shape.height // patch[1]), -(-shape.width // patch[2])
        tiles = spots(grid, (rows, columns), overlap)
        return _middles([tile.rows for tile in tiles], patch[1]), _middles([tile.columns for tile in tiles], patch[2])

    def encode_clip(
        self,
        frames: Iterator[Tensor],
        shape: ClipShape,  # noqa: ARG002 - the frames say it
        *,
        latent: LatentMode,
        seed: int,
    ) -> Iterator[EncodedPart]:
        sampler = PosteriorSampler(seed)
        for latents in self._model.encode_video(frames, space=self._options.space, search=self._search):
            yield self._part(latents, None if latent == "mean" else sampler)

    def _part(self, latents: Latents, sampler: PosteriorSampler | None) -> EncodedPart:
        (count,) = latents.mean.lengths
        quantizer = self._model.config.quantizer
        if quantizer is None:
            return EncodedPart(payload=latents.mean if sampler is None else sampler.sample(latents), tokens=count)
        codes = self._model.quantize(latents)
        return EncodedPart(payload=codes, tokens=count, bits=count * _bits(quantizer), codes=codes.features)

    def decode_clip(self, parts: Iterator[EncodedPart], shape: ClipShape) -> Iterator[Tensor]:  # noqa: ARG002
        options = self._options
        payloads: Iterator[SparseTokens] = (part.payload for part in parts)
        return self._model.decode_video_pixels(
            payloads,
            stride_frames=options.stride_frames,
            cache_frames=options.cache_frames,
            space=options.space,
        )


def _middles(spans: Sequence[slice], side: int) -> list[int]:
    """Where one span gives way to the next: the middle of what they share, in pixels of patches of this side."""
    ends = sorted({(span.start, span.stop) for span in spans})
    return [(stop + start) * side // 2 for (_, stop), (start, _) in pairwise(ends)]


def create(
    argument: str | None,
    *,
    device: str,
    dtype: str,
    preset: str | None = None,
    stride_frames: str | None = None,
    cache_frames: str | None = None,
    space_tiles: str | None = None,
    gaussians: str | None = None,
    occupancy: str | None = None,
    gathering: str | None = None,
    search: str | None = None,
) -> ATokenAdapter:
    """Factory of ``atoken``.

    Args:
        argument: path of a checkpoint or name of a packaged model; `DEFAULT` if None.
        dtype: of weights and arithmetic: float32, bfloat16 or float16.
        preset: architecture of a file whose shapes do not tell it (So/D has So/C's).
        stride_frames, cache_frames, space_tiles: how videos are cut, see `VideoOptions`; images are not.
        gaussians: a Gaussian decoder for 3D assets; if None that which lies beside the model, if there is one.
        occupancy, gathering: how 3D assets become voxels, see `AssetOptions`.
        search: steps in which a quantized model looks for closer codes, see `atoken.search`.

    Raises:
        CheckpointError: no such checkpoint, or a broken or undecidable one.
        BenchError: an unknown dtype, or an option that is malformed or means nothing to this model.
        InputError: spatial tiles that do not suit the model's patches; a search by a continuous model.
    """
    from atoken.search import check_search
    from atoken.tokenizer import AToken

    if dtype not in DTYPES:
        raise BenchError(f"dtype {dtype!r} is none of {', '.join(DTYPES)}")
    name = argument or DEFAULT
    model = AToken.from_pretrained(name, preset=preset, gaussians=gaussians, device=device, dtype=DTYPES[dtype])
    texts = {"stride_frames": stride_frames, "cache_frames": cache_frames, "space_tiles": space_tiles}
    options = VideoOptions.read(model.config, **texts)
    assets = AssetOptions.read(model.config, occupancy=occupancy, gathering=gathering)
    steps = _steps(search)
    check_search(model, steps, options.space)
    card = _searching(image_card(name, model.config), steps)
    published = published_as(model.config)
    if published is not None and published.images_only:
        if given := [option for option, text in texts.items() if text is not None]:
            raise BenchError(f"{name}: has seen images only, so that frames go one by one; {given[0]} cuts nothing")
        return ATokenAdapter(model, card, steps)
    weights = gaussian_weights(gaussians, checkpoint.locate(name).weights.parent)
    return ATokenVideoAdapter(model, _wide_card(card, model.config, options, assets, weights), options, assets, steps)


def _steps(text: str | None) -> int:
    if text is None:
        return 0
    if not text.isascii() or not text.isdigit():
        raise BenchError(f"search={text}: give a number of steps, e.g. 10")
    return int(text)


def published_as(config: ATokenConfig) -> Published | None:
    """The paper's row of a config, where it is one of the released to the last number."""
    return PUBLISHED.get(config.name) if config == PRESETS.get(config.name) else None


def _bits(quantizer: FSQConfig) -> float:
    """Information of one token."""
    return quantizer.codebooks * math.log2(quantizer.codebook_size)


def _searching(card: TokenizerCard, steps: int) -> TokenizerCard:
    """Of a model that looks for closer codes, where there are any steps."""
    card = replace(card, settings=card.settings | {"search": steps})
    return _departing(card, f"search {steps}") if steps else card


def _departing(card: TokenizerCard, unlike: str) -> TokenizerCard:
    """Of a row that is measured otherwise than by default: its title says how, and the paper's figures are not its."""
    return replace(card, title=f"{card.title} ({unlike})", paper_row=None)


def _wide_card(
    card: TokenizerCard,
    config: ATokenConfig,
    options: VideoOptions,
    assets: AssetOptions,
    gaussians: dict[str, str],
) -> TokenizerCard:
    """That of images, of a model that takes videos and assets too; `gaussians` as of `gaussian_weights`."""
    space = options.space
    unlike = ", ".join(filter(None, (options.unlike(config), assets.unlike(config))))
    return replace(
        _departing(card, unlike) if unlike else card,
        modalities=("image", "video", "asset"),
        frames=(config.patch[0], 0),
        # The encoder's tiles are always the config's. Where the decoder's windows do not end with them there is no one
        # place for seams in time.
        tile=(
            options.stride_frames if config.tile_frames % options.stride_frames == 0 else None,
            *((None, None) if space is None else (space.height, space.width)),
        ),
        weights_sha256=card.weights_sha256 | gaussians,
        settings=card.settings | options.settings() | {"assets": asdict(assets)},
    )


def image_card(name: str, config: ATokenConfig) -> TokenizerCard:
    """Of a model on images.

    Args:
        name: as the user named its checkpoint.
    """
    weights = checkpoint.locate(name).weights
    sha256 = checkpoint.sha256_file(weights)
    if name in checkpoint.packaged_models():
        label, title = name, name
        source = f"shipped with this package; its model card lies in atoken/models/{name}"
        if name in SEEN:
            source += f"; trained on {SEEN[name]}"
    else:
        # A file's own name says little (model.safetensors); the hash keeps two checkpoints apart.
        label, title = f"atoken-{config.name}-{sha256[:8]}", f"AToken {config.name} ({sha256[:8]})"
        source = f"the user's checkpoint {weights.name}"
    published = published_as(config)
    if published is not None:
        title = published.title
        source += "; the official weights are Apple's, under Apple's model licence"
    quantizer = config.quantizer
    settings: dict[str, Any] = {"config": config.to_dict(), "padding": "reflect"}
    return TokenizerCard(
        name=slug(label),
        title=title,
        token_type="VAE" if quantizer is None else "FSQ",
        compression=config.patch if published is None else published.compression,
        latent_size=config.latent_channels,
        codebook_size=None if quantizer is None else quantizer.codebook_size,
        latent_modes=("mean", "sample") if quantizer is None else ("mean",),
        paper_row=None if published is None else published.row,
        weights_sha256={weights.name: sha256},
        source=source,
        settings=settings,
    )
