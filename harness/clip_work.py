"""Videos: streamed one after another; each frame is decoded and reconstructed once for all metrics."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness import gallery
from harness.clip_gallery import write_clip
from harness.clip_reconstruction import ClipReconstruction, named_blocks
from harness.console import Advance
from harness.data.base import Clip, ClipShape, ClipSource, SampleError
from harness.errors import BenchError
from harness.metrics.clip_base import ClipMetric
from harness.plan import Plan
from harness.shards import Row
from harness.tokenizers.video import Frames, VideoTokenizer
from harness.workload import Failed, Measured, Workload

# What the metrics look at together: their temporaries grow with it, their speed beyond it does not.
_METER_PIXELS = 1 << 21


class ClipWork(Workload):
    """A plan on videos.

    Raises:
        BenchError: the tokenizer is none of videos, or the protocol does not say which frames count.
    """

    unit = "clips"

    def __init__(self, plan: Plan) -> None:
        tokenizer, dataset = plan.tokenizer, plan.dataset
        if not isinstance(tokenizer, VideoTokenizer) or not isinstance(dataset, ClipSource):
            kinds = ", ".join(tokenizer.card.modalities)
            raise BenchError(f"{tokenizer.card.name}: a tokenizer of {kinds}, not of videos")
        if plan.protocol.clip is None:
            raise BenchError(f"protocol {plan.protocol.name}: does not say which frames count; give it a `clip`")
        self._plan = plan
        self._tokenizer = tokenizer
        self._dataset = dataset
        self._metrics = [metric for metric in plan.metrics if isinstance(metric, ClipMetric)]
        self._device = torch.device(plan.settings.device)

    def look(self) -> None:
        clips: list[tuple[ClipShape, Frames]] = []
        for index in range(self._plan.selected):
            try:
                clip = self._open(index)
                frames = partial(named_blocks, clip, self._dataset.samples[index], self._plan.protocol)
                with closing(frames(size=1)) as blocks:
                    height, width = next(blocks).shape[1:3]
            except (SampleError, StopIteration):
                continue  # named when its turn comes
            clips.append((ClipShape(height=height, width=width, rate=clip.shape.rate), frames))
        self._tokenizer.prepare_clips(clips)

    def measure(self, shards: Sequence[Sequence[int]], advance: Advance) -> Iterator[Measured]:
        for shard in shards:
            parts = []
            for index in shard:
                parts.append(self._measure(index, advance))
                advance(1)
            yield Measured.of(parts)

    @torch.inference_mode()
    def _measure(self, index: int, advance: Advance) -> Measured:
        """Reconstruct and measure one clip.

        Raises:
            BenchError: the tokenizer breaks its contract or the device's memory is full.
        """
        sample = self._dataset.samples[index]
        try:
            work = self._reconstruction(index)
            meters = [metric.start(work.shape) for metric in self._metrics]
            step = max(1, _METER_PIXELS // (work.shape.height * work.shape.width))
            with closing(work.pairs()) as pairs:
                for pair in pairs:
                    parts = torch.split(pair.reference, step), torch.split(pair.reconstruction, step)
                    for both in zip(*parts, strict=True):
                        # Once for all metrics: a colour's plane lies together for the filters.
                        reference, reconstruction = (x.permute(0, 3, 1, 2).contiguous() for x in both)
                        for meter in meters:
                            meter.update(reference, reconstruction)
                    advance.detail(f"{sample.id}, frame {work.frames}")
        except SampleError as error:
            return Measured(rows=[], failed=[Failed(sample.id, error.reason)], columns={}, features={})
        except torch.OutOfMemoryError as error:
            raise BenchError(
                f"{self._tokenizer.card.name}: out of device memory on {sample.id}; cut space into tiles "
                "(of atoken: --option space_tiles=512x512+64)"
            ) from error
        results = [meter.finish(work.totals) for meter in meters]
        return Measured(
            rows=[work.row],
            failed=[],
            columns={name: np.array([value]) for result in results for name, value in result.columns.items()},
            features={name: array[None] for result in results for name, array in result.features.items()},
            frames={name: array for result in results for name, array in result.frames.items()},
        )

    def _reconstruction(self, index: int) -> ClipReconstruction:
        sample = self._dataset.samples[index]
        return ClipReconstruction(self._open(index), sample, self._tokenizer, self._plan.protocol, self._device)

    def _open(self, index: int) -> Clip:
        try:
            return self._dataset.open(index)
        except SampleError:
            raise
        except Exception as error:
            # As for the frames: one file that a decoder stumbles over is named and does not end the run.
            raise SampleError(self._dataset.samples[index].id, f"{type(error).__name__}: {error}") from error

    @torch.inference_mode()
    def show(self, folder: Path, rows: Sequence[Row], columns: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        ranked = gallery.ranked(self._metrics, columns)
        if ranked is None:
            return []
        places = {sample.id: place for place, sample in enumerate(self._dataset.samples)}
        entries = []
        for chosen in ranked.entries:
            row, stem = rows[chosen.index], f"{chosen.index:06d}"
            try:
                work = self._reconstruction(places[row.id])
                # Lazy all the way: of a long clip no more is reconstructed than is shown.
                with closing(_pictures(work)) as pictures:
                    shown = write_clip(folder / gallery.FOLDER, stem, pictures, rate=work.shape.rate)
            except SampleError as error:
                raise BenchError(
                    f"{row.id}: could be measured and cannot be read for the gallery: {error.reason}"
                ) from None
            entries.append({**ranked.entry(chosen, row.id), **shown, "tile": list(self._tokenizer.card.tile)})
        gallery.remove_stale(folder, entries)
        return entries


def _pictures(work: ClipReconstruction) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Frames before and after, one by one: uint8 ``[H, W, 3]``."""
    with closing(work.pairs()) as pairs:
        for pair in pairs:
            yield from zip(pair.reference.cpu().numpy(), pair.reconstruction.cpu().numpy(), strict=True)
