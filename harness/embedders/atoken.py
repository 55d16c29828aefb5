"""AToken as an embedder: ``atoken``, ``atoken:NAME``, ``atoken:PATH``; its pooled vectors beside those of its texts.

--option text=siglip2:FOLDER --option clips=native

A model that was trained with texts has a text head beside its weights (`atoken.text.TextHead`), which says its tower.
The released checkpoints were trained with SigLIP2's frozen tower, whose weights the user gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from atoken import checkpoint
from atoken.errors import InputError
from harness.embedders.base import Embedder, EmbedderCard, SeenAsset, TextReader, unit
from harness.errors import BenchError
from harness.tokenizers.atoken import DEFAULT, DTYPES, image_card, published_as
from harness.tokenizers.atoken_assets import AssetOptions

if TYPE_CHECKING:
    from atoken.text import TextTower
    from atoken.tokenizer import AToken

Clips = Literal["frames", "joint", "native"]
INPUT = "[-1, 1], whole patches by reflection"
_NATIVE = "4-frame patches, pooled over the whole clip"
_CLIPS: dict[Clips, str] = {
    "frames": "each frame an image, mean of their unit vectors",
    "joint": "each frame a patch of its own, filled up in time, pooled over the whole clip",
    "native": _NATIVE,
}


class ATokenEmbedder(Embedder):
    """Pooled encoder features (``image_feat``) at unit length.

    Args:
        clips: how a video becomes one vector; the readings of "frame embedding averaging with zero-padding" in
            PROTOCOLS 5.3. ``frames``: every frame is encoded as an image, which fills its patch up with zeros in time,
            and the unit vectors are averaged. ``joint``: every frame fills a patch of its own, but the frames of a
            temporal tile see each other and the head pools all of them. ``native``: as the tokenizer takes videos,
            four frames to a patch.
        tower: of texts; None where there is none.
    """

    def __init__(
        self, model: AToken, card: EmbedderCard, tower: TextTower | None, clips: Clips, assets: AssetOptions
    ) -> None:
        self._model = model
        self._tower = tower
        self._clips = clips
        self._assets = assets
        self.card = card

    @property
    def model(self) -> AToken:
        """For what looks at the vectors on the way to the pooled ones."""
        return self._model

    @property
    def device(self) -> torch.device:
        return self._model.device

    def token_count(self, height: int, width: int) -> int:
        _, h, w = self._model.config.patch
        return -(-height // h) * -(-width // w)

    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return _vectors(self._model.embed(images))

    def embed_clips(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        if "video" not in self.card.modalities:
            raise self._cannot("videos")
        if self._clips == "native":
            return _vectors(self._model.embed(clips))
        # One clip at a time: how many frames another has must not reach its sums.
        return np.concatenate([self._of_frames(clip) for clip in clips])

    def _of_frames(self, clip: np.ndarray) -> np.ndarray:
        if self._clips == "joint":
            return _vectors(self._joint(clip))
        return unit(self.embed_images(list(clip)).mean(axis=0, dtype=np.float64)[None])

    @torch.no_grad()
    def _joint(self, clip: np.ndarray) -> Tensor:
        from atoken.patches import pack_pixels
        from atoken.tokens import SparseTokens

        patch = self._model.config.patch
        frames = pack_pixels(list(clip), patch=patch, device=self.device)
        coords = frames.coords.clone()
        coords[:, 0] = torch.arange(len(clip), device=coords.device).repeat_interleave(frames.lengths[0])
        count = len(clip) * patch[0]
        item = replace(frames.items[0], kind="video", frames=count, out_frames=count)
        tokens = SparseTokens(frames.features, coords, (sum(frames.lengths),), (item,))
        features, _ = self._model.forward_encoder(tokens)
        return F.normalize(self._model.pool(features, tokens.lengths).float(), dim=-1)

    def embed_assets(self, assets: Sequence[SeenAsset]) -> np.ndarray:
        if "asset" not in self.card.modalities:
            raise self._cannot("3D assets")
        from atoken.assets.mesh_to_asset import voxelise

        items = [voxelise(a.mesh, self._assets.recipe(a.views), views=a.views.render(a.mesh)) for a in assets]
        return _vectors(self._model.embed(items))

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        if self._tower is None:
            raise self._cannot("texts")
        return np.asarray(self._tower.embed(texts).numpy(), np.float32)


def _vectors(vectors: Tensor) -> np.ndarray:
    return np.asarray(vectors.cpu().numpy(), np.float32)


def create(
    argument: str | None,
    *,
    device: str,
    dtype: str,
    preset: str | None = None,
    text: str | None = None,
    clips: str | None = None,
    occupancy: str | None = None,
    gathering: str | None = None,
) -> ATokenEmbedder:
    """Factory of ``atoken``.

    Args:
        argument: path of a checkpoint or name of a packaged model; the packaged default if None.
        dtype: of weights and arithmetic; vectors are float32.
        preset: architecture of a file whose shapes do not tell it.
        text: the text tower of a model without a text head: ``siglip2:FOLDER``, ``open_clip:FILE`` or
            ``open_clip:MODEL:FILE``; its vectors must be as wide as the model's.
        clips: how a video becomes one vector: ``frames`` (the default), ``joint`` or ``native``.
        occupancy, gathering: how 3D assets become voxels, see `AssetOptions`.

    Raises:
        CheckpointError: no such checkpoint, or a broken or undecidable one.
        MissingPackage: what the text tower needs is not installed.
        BenchError: an unknown dtype or option, a text tower of another width, or two of them.
    """
    from atoken.tokenizer import AToken

    if dtype not in DTYPES:
        raise BenchError(f"dtype {dtype!r} is none of {', '.join(DTYPES)}")
    way = _way(clips)
    name = argument or DEFAULT
    model = AToken.from_pretrained(name, preset=preset, device=device, dtype=DTYPES[dtype])
    assets = AssetOptions.read(model.config, occupancy=occupancy, gathering=gathering)
    width = model.config.encoder.width
    tower, reader = _tower(name, text, width, device)
    shared = image_card(name, model.config)
    published = published_as(model.config)
    images_only = published is not None and published.images_only
    unlike = ", ".join(
        filter(None, (f"clips {way}" if clips is not None and way != "frames" else "", assets.unlike(model.config)))
    )
    card = EmbedderCard(
        name=shared.name,
        title=f"{shared.title} ({unlike})" if unlike else shared.title,
        # What has seen images only still takes the frames of a video one by one.
        modalities=("image", "video") if images_only else ("image", "video", "asset"),
        paper_row=None if unlike else shared.paper_row,
        weights_sha256=shared.weights_sha256,
        source=shared.source,
        settings={
            "config": model.config.to_dict(),
            "clips": _CLIPS[way],
            "assets": {"occupancy": assets.occupancy, "gathering": assets.gathering},
        },
        width=width,
        text=reader,
        input=INPUT,
    )
    return ATokenEmbedder(model, card, tower, way, assets)


def _way(text: str | None) -> Clips:
    for way in get_args(Clips):
        if text in (None, way):
            found: Clips = way
            return found
    raise BenchError(f"--option clips={text}: not one of {', '.join(get_args(Clips))}")


def _tower(name: str, text: str | None, width: int, device: str) -> tuple[TextTower | None, TextReader | None]:
    """The text tower that a model's vectors are compared with, and what the card says of it."""
    from atoken.text import TextHead, load_tower
    from atoken.text.head import CONFIG_NAME

    folder = checkpoint.locate(name).weights.parent
    if (folder / CONFIG_NAME).is_file():
        if text is not None:
            raise BenchError(f"--option text={text}: {name} has a text head, which says its tower; leave it out")
        head = TextHead.from_pretrained(folder)
        if head.width != width:
            raise BenchError(f"{folder}: the text head is {head.width} wide and the model {width}; they do not belong")
        return head, TextReader(name=f"{head.tower_name} {head.version}".strip(), fingerprint=head.fingerprint)
    if text is None:
        return None, None
    kind, _, rest = text.partition(":")
    model, _, path = rest.rpartition(":") if kind == "open_clip" else ("", "", rest)
    if kind not in ("siglip2", "open_clip") or not path:
        raise BenchError(f"--option text={text}: write siglip2:FOLDER, open_clip:FILE or open_clip:MODEL:FILE")
    try:
        tower = load_tower(kind, path, model=model or None, device=device)
    except InputError as error:
        raise BenchError(f"--option text={text}: {error}") from None
    if tower.width != width:
        raise BenchError(f"--option text={text}: its vectors have {tower.width} numbers, those of {name} {width}")
    return tower, TextReader(name=f"{kind} {model}".strip(), fingerprint=tower.fingerprint)
