"""3D assets: rendered from the protocol's cameras before and after, view by view for all metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atoken.assets.cameras import Camera, four_views, thirty_views
from atoken.errors import InputError
from harness import gallery
from harness.asset_gallery import SIDE, turntable, write_asset
from harness.asset_views import Timed, drawn_by, view_cache
from harness.console import Advance
from harness.data.base import AssetSource, Model, Sample, SampleError
from harness.errors import BenchError
from harness.metrics.asset_base import AssetMetric, AssetTotals, ViewPair, premultiplied
from harness.plan import Plan, sample_seed
from harness.shards import Row
from harness.tokenizers.asset import AssetTokenizer, EncodedAsset, InputViews, Rendered
from harness.workload import Failed, Measured, Noted, Workload

VIEWS = {"four": four_views, "thirty": thirty_views}


@dataclass(frozen=True, slots=True)
class Opened:
    """An asset, read and encoded; `seconds` without the time in which its views were drawn."""

    sample: Sample
    model: Model
    encoded: EncodedAsset
    seconds: float


class AssetWork(Workload):
    """A plan on 3D assets.

    Raises:
        BenchError: the tokenizer is none of assets, or the protocol does not say from where they are seen.
    """

    unit = "assets"

    def __init__(self, plan: Plan) -> None:
        tokenizer, dataset, protocol = plan.tokenizer, plan.dataset, plan.protocol
        if not isinstance(tokenizer, AssetTokenizer) or not isinstance(dataset, AssetSource):
            kinds = ", ".join(tokenizer.card.modalities)
            raise BenchError(f"{tokenizer.card.name}: a tokenizer of {kinds}, not of assets")
        if protocol.asset is None:
            raise BenchError(f"protocol {protocol.name}: does not say from where assets are seen; give it an `asset`")
        self._plan = plan
        self._tokenizer = tokenizer
        self._dataset = dataset
        self._metrics = [metric for metric in plan.metrics if isinstance(metric, AssetMetric)]
        self._device = torch.device(plan.settings.device)
        rules = protocol.asset
        self._draw = Timed(drawn_by(protocol.prepare, protocol.name, view_cache()))
        self._inputs = InputViews(rules.input_views, rules.input_size, self._draw)
        self._cameras: Sequence[Camera] = VIEWS[rules.views]()
        self._side = rules.size

    def look(self) -> None:
        raise BenchError(f"{self._tokenizer.card.name}: has needs_prepare, and nothing is fitted to a set of assets")

    def measure(self, shards: Sequence[Sequence[int]], advance: Advance) -> Iterator[Measured]:
        for shard in shards:
            parts = []
            for index in shard:
                parts.append(self._measure(index, advance))
                advance(1)
            yield Measured.of(parts)

    @torch.inference_mode()
    def _measure(self, index: int, advance: Advance) -> Measured:
        """Reconstruct and measure one asset.

        Raises:
            BenchError: the tokenizer breaks its contract, or the device's memory is full.
        """
        sample = self._dataset.samples[index]
        advance.detail(sample.id)
        meters = [metric.start() for metric in self._metrics]
        rendered, decoding, seen = None, 0.0, 0
        try:
            opened = self._opened(index)
            if any(metric.looks for metric in self._metrics):
                start = self._now()
                rendered = self._decoded(opened)
                decoding = self._now() - start
                for pair in self._pairs(opened, rendered):
                    seen += 1
                    for meter in meters:
                        meter.update(pair)
        except SampleError as error:
            return Measured(rows=[], failed=[Failed(sample.id, error.reason)], columns={}, features={})
        except torch.OutOfMemoryError as error:
            raise BenchError(f"{self._tokenizer.card.name}: out of device memory on {sample.id}") from error
        results = [meter.finish(_totals(opened.encoded, rendered)) for meter in meters]
        side = self._side
        row = Row(
            id=sample.id,
            label=sample.label,
            sha256=opened.model.sha256,
            height=side,
            width=side,
            height_in=side,
            width_in=side,
            frames=seen,
            encode_ms=1000 * opened.seconds,
            decode_ms=1000 * decoding,
            tokens=opened.encoded.tokens,
        )
        return Measured(
            rows=[row],
            failed=[],
            columns={name: np.array([value]) for result in results for name, value in result.columns.items()},
            features={},
            frames={name: array for result in results for name, array in result.views.items()},
            noted=[Noted(sample.id, note) for note in opened.model.mesh.notes],
        )

    @torch.inference_mode()
    def show(self, folder: Path, rows: Sequence[Row], columns: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        ranked = gallery.ranked([metric for metric in self._metrics if metric.looks], columns)
        if ranked is None:
            return []
        places = {sample.id: place for place, sample in enumerate(self._dataset.samples)}
        entries = []
        for chosen in ranked.entries:
            row, stem = rows[chosen.index], f"{chosen.index:06d}"
            try:
                opened = self._opened(places[row.id])
                rendered = self._decoded(opened)
                shown = write_asset(
                    folder / gallery.FOLDER,
                    stem,
                    self._turn(opened, rendered),
                    tokens=opened.encoded.tokens,
                    voxels=opened.encoded.voxels,
                    splat=rendered.gaussians,
                )
            except SampleError as error:
                raise BenchError(
                    f"{row.id}: could be measured and cannot be read for the gallery: {error.reason}"
                ) from None
            entries.append({**ranked.entry(chosen, row.id), **shown})
        gallery.remove_stale(folder, entries)
        return entries

    def _turn(self, opened: Opened, rendered: Rendered) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The gallery's turntable before and after: float32 RGBA ``[SIDE, SIDE, 4]``, premultiplied."""
        yield from (
            (original.cpu().numpy(), picture.cpu().numpy())
            for original, picture in self._both(opened, rendered, turntable(), SIDE)
        )

    def _opened(self, index: int) -> Opened:
        sample = self._dataset.samples[index]
        try:
            model = self._dataset.open(index)
        except SampleError:
            raise
        except Exception as error:
            # Other people's files meet many readers here. One of 3,229 must not end the run, and it is not silent:
            # the record names the sample with this line.
            raise SampleError(sample.id, f"{type(error).__name__}: {error}") from error
        # A tokenizer without a posterior has no sample to give: its only latent is what `mean` asks for.
        protocol, card = self._plan.protocol, self._tokenizer.card
        latent = protocol.latent if protocol.latent in card.latent_modes else "mean"
        seed = sample_seed(protocol.seed, sample.id)
        start, drawing = self._now(), self._draw.seconds
        try:
            encoded = self._tokenizer.encode_asset(model.mesh, self._inputs, latent=latent, seed=seed)
        except InputError as error:
            raise SampleError(sample.id, str(error)) from error
        return Opened(sample, model, encoded, self._now() - start - (self._draw.seconds - drawing))

    def _decoded(self, opened: Opened) -> Rendered:
        try:
            return self._tokenizer.decode_asset(opened.encoded)
        except InputError as error:
            raise SampleError(opened.sample.id, str(error)) from error

    def _pairs(self, opened: Opened, rendered: Rendered) -> Iterator[ViewPair]:
        """The protocol's views before and after, one by one."""
        for reference, picture in self._both(opened, rendered, self._cameras, self._side):
            yield ViewPair(reference, picture, self._plan.protocol.eight_bit)

    def _both(
        self, opened: Opened, rendered: Rendered, cameras: Sequence[Camera], side: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Original and reconstruction from each camera: float32 RGBA ``[side, side, 4]``, premultiplied.

        Raises:
            SampleError: one of them cannot be drawn.
        """
        try:
            views = self._draw(opened.model.mesh, cameras, side)
            pictures = rendered.pictures(cameras, side)
            for colours in views.colours:
                picture = next(pictures, None)
                if picture is None:
                    name = self._tokenizer.card.name
                    raise BenchError(f"{name}: gives fewer pictures than there are cameras; the adapter is wrong")
                yield premultiplied(colours, self._device), self._checked(opened, picture, side)
        except InputError as error:
            raise SampleError(opened.sample.id, str(error)) from error

    def _checked(self, opened: Opened, picture: torch.Tensor, side: int) -> torch.Tensor:
        name, id_ = self._tokenizer.card.name, opened.sample.id
        if tuple(picture.shape) != (side, side, 4) or picture.dtype != torch.float32:
            raise BenchError(
                f"{name}: a view of {id_} comes as {picture.dtype} {tuple(picture.shape)}, not float32 "
                f"({side}, {side}, 4); the adapter is wrong"
            )
        if not bool(torch.isfinite(picture).all()):
            raise BenchError(
                f"{name}: a view of {id_} holds NaN or infinite values; check the weights (and --dtype: float16 may "
                "overflow)"
            )
        return picture.to(self._device)

    def _now(self) -> float:
        if self._tokenizer.device.type == "cuda":
            torch.cuda.synchronize(self._tokenizer.device)
        return time.perf_counter()


def _totals(encoded: EncodedAsset, rendered: Rendered | None) -> AssetTotals:
    gaussians = None if rendered is None or rendered.gaussians is None else len(rendered.gaussians)
    return AssetTotals(tokens=encoded.tokens, voxels=encoded.voxels, gaussians=gaussians)
