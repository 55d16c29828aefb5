"""Small stand-ins for videos: clips in memory, a tokenizer that is simple, metrics that are exact."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.data.base import Clip, ClipShape, ClipSource, Sample, SampleError
from harness.metrics.base import Cell
from harness.metrics.clip_base import ClipMeasured, ClipMeter, ClipMetric, ClipTotals
from harness.plan import Plan
from harness.protocol import ClipRules
from harness.tokenizers.base import LatentMode, TokenizerCard
from harness.tokenizers.video import EncodedPart, VideoTokenizer
from tests.harness import fakes


@dataclass(frozen=True)
class Shape:
    """A clip of `frames` random frames; it breaks before frame `breaks`, if given."""

    frames: int
    height: int = 16
    width: int = 16
    breaks: int | None = None


class NoiseClips(ClipSource):
    """Random clips, the same for everyone; counts the frames that were asked for."""

    name, title, credits = "noise-clips", "Noise clips", "random"

    def __init__(self, *shapes: Shape, expected: int | None = None) -> None:
        self.expected = expected
        self._shapes = shapes
        self._samples = [Sample(f"clip/{index:03d}.mp4") for index in range(len(shapes))]
        self.read = 0
        self.closed = 0

    @property
    def samples(self) -> Sequence[Sample]:
        return self._samples

    def frames(self, index: int) -> np.ndarray:
        """All frames of a clip, those after the break too."""
        shape = self._shapes[index]
        rng = np.random.default_rng(index)
        return rng.integers(0, 256, (shape.frames, shape.height, shape.width, 3), np.uint8)

    def open(self, index: int) -> Clip:
        shape = self._shapes[index]
        if shape.breaks == 0:
            raise SampleError(self._samples[index].id, "the file is empty")
        sha256 = hashlib.sha256(self.frames(index).tobytes()).hexdigest()
        size = ClipShape(height=shape.height, width=shape.width, rate=Fraction(24))
        return Clip(shape=size, sha256=sha256, blocks=lambda count: self._blocks(index, count))

    def _blocks(self, index: int, count: int) -> Iterator[np.ndarray]:
        frames, breaks = self.frames(index), self._shapes[index].breaks
        try:
            for start in range(0, len(frames), count):
                if breaks is not None and start + count > breaks:
                    raise SampleError(self._samples[index].id, f"truncated after {breaks} frames")
                self.read += len(frames[start : start + count])
                yield frames[start : start + count]
        finally:
            self.closed += 1


class Groups(VideoTokenizer):
    """Rounds grey levels to multiples of `step`, in groups of `size` frames, each a token; a sample adds noise."""

    def __init__(self, size: int = 4, *, step: int = 16, multiple: int = 1, rest: int = 0) -> None:
        self.card = TokenizerCard(
            name=f"groups-{size}",
            title="groups",
            modalities=("video",),
            token_type="transform",
            compression=(size, 1, 1),
            multiple=(multiple, multiple),
            frames=(size, rest),
            tile=(size, None, None),
            latent_modes=("mean", "sample"),
        )
        self.size, self.step = size, step
        self.shapes: list[tuple[int, int]] = []

    def encode_clip(
        self, frames: Iterator[Tensor], shape: ClipShape, *, latent: LatentMode, seed: int
    ) -> Iterator[EncodedPart]:
        self.shapes.append((shape.height, shape.width))
        generator = torch.Generator().manual_seed(seed)
        held: list[Tensor] = []
        for block in frames:
            assert block.shape[1:] == (shape.height, shape.width, 3)
            held += list(block)
            while len(held) >= self.size:
                yield self._part(held[: self.size], latent, generator)
                del held[: self.size]
        if held:
            yield self._part(held, latent, generator)

    def _part(self, frames: list[Tensor], latent: LatentMode, generator: torch.Generator) -> EncodedPart:
        levels = torch.stack(frames).float() / self.step
        if latent == "sample":
            levels = levels + torch.randn(levels.shape, generator=generator)
        return EncodedPart(payload=levels.round(), tokens=1, bits=8.0)

    def decode_clip(self, parts: Iterator[EncodedPart], shape: ClipShape) -> Iterator[Tensor]:
        for part in parts:
            yield part.payload * self.step / 127.5 - 1


class MeanError(ClipMetric):
    """Mean absolute error: of the clip, of each frame; keeps the mean colour as a feature."""

    columns = ("error", "error tokens")
    frame_columns = ("error",)
    higher_is_better = False

    def start(self, shape: ClipShape) -> ClipMeter:
        return _MeanError()

    def cells(self, table: Mapping[str, np.ndarray], features: Mapping[str, np.ndarray], *, seed: int) -> list[Cell]:
        values = table["error"]
        colour = float(features["colour"].mean())
        mean = Cell(name="error", value=float(values.mean()), n=len(values), higher_is_better=False)
        return [mean, Cell(name="colour", value=colour, n=len(values), higher_is_better=False)]


class _MeanError(ClipMeter):
    def __init__(self) -> None:
        self.errors: list[float] = []
        self.colour = torch.zeros(3, dtype=torch.float64)

    def update(self, reference: Tensor, reconstruction: Tensor) -> None:
        assert reference.dtype == reconstruction.dtype == torch.uint8
        assert reference.shape == reconstruction.shape
        self.errors += (reference.double() - reconstruction.double()).abs().mean((1, 2, 3)).tolist()
        self.colour += reconstruction.double().mean((2, 3)).sum(0)

    def finish(self, totals: ClipTotals) -> ClipMeasured:
        assert len(self.errors) == totals.frames
        return ClipMeasured(
            columns={"error": float(np.mean(self.errors)), "error tokens": float(totals.tokens)},
            frames={"error": np.array(self.errors)},
            features={"colour": (self.colour / totals.frames).numpy()},
        )


RULES = ClipRules(first_frames=None, first_seconds=None, frames="all")


def clip_plan(**changes: Any) -> Plan:
    """A plan of the stand-ins."""
    rules = changes.pop("clip", RULES)
    protocol = {"experiment": "video-recon", "clip": rules, **changes.pop("protocol", {})}
    parts: dict[str, Any] = {
        "experiment": "video-recon",
        "tokenizer": Groups(),
        "dataset": NoiseClips(Shape(9), Shape(4, 12, 20), Shape(33)),
        "metrics": [MeanError()],
        "protocol": fakes.protocol(**protocol),
    }
    return fakes.plan(**{**parts, **changes, "settings": {"shard_size": 1, **changes.get("settings", {})}})


class Stuck(Groups):
    """Stops in its third clip where the test says so in the environment, so that it is met at work."""

    def encode_clip(
        self, frames: Iterator[Tensor], shape: ClipShape, *, latent: LatentMode, seed: int
    ) -> Iterator[EncodedPart]:
        if len(self.shapes) == 2 and "STUCK" in os.environ:
            next(frames)
            time.sleep(300)
        return super().encode_clip(frames, shape, latent=latent, seed=seed)


def create_stuck(argument: str | None, *, device: str, dtype: str) -> Stuck:
    return Stuck()
