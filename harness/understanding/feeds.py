"""The samples of an understanding run, modality by modality: read, prepared as the protocol says, ready to embed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from atoken.errors import InputError
from harness.asset_views import drawn_by, view_cache
from harness.data.base import AssetSource, ClipSource, ImageSource, Sample, SampleError
from harness.data.frame_choice import FrameChoice, chosen_frames
from harness.data.prepare import Pipeline, eight_bit
from harness.embedders.base import Embedder, SeenAsset
from harness.errors import BenchError
from harness.loading import Prepared, eight_bit_pixels, prepared
from harness.plan import Plan
from harness.tokenizers.asset import InputViews
from harness.workload import Failed

SHOWN = 512
"""Side of the picture that a gallery shows of an asset."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A sample that is ready to embed.

    Attributes:
        payload: what `Feed.embed` takes.
        size: ``(H, W)`` as the embedder gets it.
        size_in: ``(H, W)`` as it was read.
        frames: how many it gets.
        tokens: what it counts in the token budget.
    """

    sample: Sample
    sha256: str
    payload: Any
    size: tuple[int, int]
    size_in: tuple[int, int]
    frames: int
    tokens: int


class Feed(ABC):
    """Samples of one modality.

    Attributes:
        unit: what a sample is, in the plural.
    """

    unit: str

    @abstractmethod
    def items(self, indices: Sequence[int], workers: int) -> Iterator[Item | Failed]:
        """Read the samples at `indices`, in that order."""

    @abstractmethod
    def embed(self, items: Sequence[Item]) -> np.ndarray:
        """Vectors ``[n, D]``; raises as `Embedder`."""

    @abstractmethod
    def picture(self, item: Item) -> np.ndarray:
        """What a gallery shows of a sample: uint8 ``[H, W, 3]``."""


def feed_of(plan: Plan, embedder: Embedder) -> Feed:
    """What reads a plan's samples.

    Raises:
        BenchError: a dataset of a kind that nothing here reads, or a protocol that does not say what it needs.
    """
    if isinstance(plan.dataset, ImageSource):
        return ImageFeed(plan, embedder, plan.dataset)
    if isinstance(plan.dataset, ClipSource):
        return ClipFeed(plan, embedder, plan.dataset)
    if isinstance(plan.dataset, AssetSource):
        return AssetFeed(plan, embedder, plan.dataset)
    raise BenchError(f"{plan.experiment}: nothing here embeds samples of the kind {plan.dataset.modality}")


class ImageFeed(Feed):
    """Images, decoded by worker processes."""

    unit = "images"

    def __init__(self, plan: Plan, embedder: Embedder, dataset: ImageSource) -> None:
        self._embedder = embedder
        self._dataset = dataset
        self._pipeline = Pipeline.parse(plan.protocol.prepare)
        self._rule = plan.protocol.eight_bit

    def items(self, indices: Sequence[int], workers: int) -> Iterator[Item | Failed]:
        for item in prepared(self._dataset, self._pipeline, indices, workers=workers):
            yield item if isinstance(item, Failed) else self._item(item)

    def _item(self, item: Prepared) -> Item:
        height, width = item.pixels.shape[:2]
        return Item(
            sample=Sample(item.id, item.label),
            sha256=item.sha256,
            payload=item.pixels,
            size=(height, width),
            size_in=item.size_in,
            frames=1,
            tokens=self._embedder.token_count(height, width),
        )

    def embed(self, items: Sequence[Item]) -> np.ndarray:
        return self._embedder.embed_images([item.payload for item in items])

    def picture(self, item: Item) -> np.ndarray:
        return eight_bit_pixels(item.payload, lambda x: eight_bit(x, self._rule))


class ClipFeed(Feed):
    """Videos: the frames that the protocol's rule chooses.

    Raises:
        BenchError: the protocol has no such rule, or leaves 8 bit.
    """

    unit = "videos"

    def __init__(self, plan: Plan, embedder: Embedder, dataset: ClipSource) -> None:
        rules = plan.protocol.embed
        if rules is None or rules.frames is None:
            raise BenchError(
                f"protocol {plan.protocol.name}: does not say which frames of a video count (embed.frames)"
            )
        self._embedder = embedder
        self._dataset = dataset
        self._pipeline = Pipeline.parse(plan.protocol.prepare)
        self._choice = FrameChoice(rules.frames)
        self._name = plan.protocol.name

    def items(self, indices: Sequence[int], workers: int) -> Iterator[Item | Failed]:  # noqa: ARG002 - ffmpeg threads
        for index in indices:
            sample = self._dataset.samples[index]
            try:
                clip = self._dataset.open(index)
                frames = chosen_frames(clip, self._choice, self._pipeline.colour)
                made = np.stack([self._pipeline(frame) for frame in frames])
            except SampleError as error:
                yield Failed(sample.id, error.reason)
                continue
            except ValueError as error:
                yield Failed(sample.id, str(error))
                continue
            if made.dtype != np.uint8:
                raise BenchError(f"protocol {self._name}: prepare leaves 8 bit, and embedders take videos as uint8")
            count, height, width = made.shape[:3]
            yield Item(
                sample=sample,
                sha256=clip.sha256,
                payload=made,
                size=(height, width),
                size_in=(clip.shape.height, clip.shape.width),
                frames=count,
                tokens=count * self._embedder.token_count(height, width),
            )

    def embed(self, items: Sequence[Item]) -> np.ndarray:
        return self._embedder.embed_clips([item.payload for item in items])

    def picture(self, item: Item) -> np.ndarray:
        middle: np.ndarray = item.payload[item.frames // 2]
        return middle


class AssetFeed(Feed):
    """3D assets with the views that the protocol lets an embedder look at.

    Raises:
        BenchError: the protocol does not say from where they are seen.
    """

    unit = "assets"

    def __init__(self, plan: Plan, embedder: Embedder, dataset: AssetSource) -> None:
        rules, name = plan.protocol.asset, plan.protocol.name
        if rules is None:
            raise BenchError(f"protocol {name}: does not say from where assets are seen; give it an `asset`")
        self._embedder = embedder
        self._dataset = dataset
        self._side = rules.input_size
        self._draw = drawn_by(plan.protocol.prepare, name, view_cache())
        self._views = InputViews(rules.input_views, rules.input_size, self._draw)

    def items(self, indices: Sequence[int], workers: int) -> Iterator[Item | Failed]:  # noqa: ARG002 - one at a time
        for index in indices:
            sample = self._dataset.samples[index]
            try:
                model = self._dataset.open(index)
            except SampleError as error:
                yield Failed(sample.id, error.reason)
                continue
            side = (self._side, self._side)
            yield Item(
                sample=sample,
                sha256=model.sha256,
                payload=SeenAsset(model.mesh, self._views),
                size=side,
                size_in=side,
                frames=self._views.count,
                tokens=self._views.count * self._embedder.token_count(*side),
            )

    def embed(self, items: Sequence[Item]) -> np.ndarray:
        return self._embedder.embed_assets([item.payload for item in items])

    def picture(self, item: Item) -> np.ndarray:
        from atoken.assets.cameras import four_views

        try:
            views = self._draw(item.payload.mesh, four_views()[:1], SHOWN)
        except InputError as error:
            raise BenchError(f"{item.sample.id}: could be embedded and cannot be drawn: {error}") from None
        picture: np.ndarray = views.on(1.0)[0]
        return picture
