"""Which samples a step trains on: a function of (seed, stage, task, step) and nothing else.

Sample i of a global batch has a random generator of its own, seeded by these and i; it draws the source (in proportion
to its size, paper 3.5), the sample, its part, its frames. Rank r takes the samples i with i % world = r. So a resumed
run goes on with the very next sample, one process and many see the same global batch, and no order of work matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from atoken.patches import Patch
from atoken.training.data.captions import HOW
from atoken.training.data.frames import draw_count, draw_frames
from atoken.training.data.pack import Batch, Sample, asset_sample, pack_samples, pixel_sample
from atoken.training.data.pictures import chosen_pictures
from atoken.training.data.shrink import shrunk
from atoken.training.data.source import (
    AssetSource,
    ClipRequest,
    ClipSource,
    ImageSource,
    Modality,
    PassedOverError,
    SampleError,
    Source,
    fingerprint_of,
)
from atoken.training.data.sources import Sources
from atoken.training.data.views import draw_cut, draw_side
from atoken.training.errors import TrainingError
from atoken.training.recipe import Stage
from atoken.training.tasks import TASKS, AssetTask, ImageTask, VideoTask

__all__ = ["Batches", "modality_of"]

REPLACEMENTS = 20
"""Samples in a row that may be unusable."""

PASSES = 1000
"""Draws for one sample, of which any may be sound but too small for the step."""

_MODALITIES: dict[str, Modality] = {"image": "images", "video": "videos", "asset": "assets"}
_ORDER = {name: number for number, name in enumerate(TASKS)}


class Batches:
    """The batches of one stage, for one rank."""

    def __init__(
        self,
        sources: Sources,
        stage: Stage,
        *,
        stage_index: int,
        seed: int,
        rank: int,
        world: int,
        patch: Patch,
        pack_tokens: int,
    ) -> None:
        """Check that the sources have what the stage asks for.

        Args:
            stage_index: 0 for the first.
            rank, world: of this process, and how many there are.
            patch: of the model.
            pack_tokens: most tokens of a pack.

        Raises:
            TrainingError: a task without samples or without captions, or one whose samples the ranks cannot share.
        """
        self._stage, self._index, self._seed = stage, stage_index, seed
        self._rank, self._world, self._limit = rank, world, pack_tokens
        if patch[1:] != (16, 16):
            raise TrainingError(f"patches of {patch[1]}x{patch[2]} pixels: this data is cut in 16x16")
        self._sources = {name: _sources_of(name, sources) for name in stage.tasks}
        for name, task in stage.tasks.items():
            if task.samples % world:
                lower, upper = task.samples // world * world, -(-task.samples // world) * world
                nearest = f"{lower} or {upper}" if lower else f"{upper}"
                raise TrainingError(
                    f"stage {stage.name}, {name}: {world} processes cannot share {task.samples} samples evenly; "
                    f"take {nearest} samples, or another number of processes"
                )
            if isinstance(task, AssetTask) and task.renders:
                for source in self._sources[name]:
                    assert isinstance(source, AssetSource)
                    source.check_pictures(task.renders, task.render_size)
        self.fingerprint = fingerprint_of(
            [(name, source.fingerprint) for name, found in self._sources.items() for source in found]
        )

    def batch(self, task_name: str, step: int) -> Batch:
        """This rank's samples of a step.

        Args:
            task_name: of the stage.
            step: of the stage, 0 for the first.

        Raises:
            TrainingError: 20 samples in a row could not be used, or 1,000 were too small.
        """
        task = self._stage.tasks[task_name]
        for_all = self._generator(task_name, step, 0)
        side = draw_side(task, for_all) if isinstance(task, ImageTask) else 0
        count = draw_count(task, for_all) if isinstance(task, VideoTask) else 1
        samples, skipped = [], []
        for number in range(self._rank, task.samples, self._world):
            drawing = _Drawing(self._sources[task_name], task_name, self._generator(task_name, step, number + 1))
            samples.append(drawing.sample(task, side, count))
            skipped += drawing.skipped
        return Batch(task_name, pack_samples(samples, self._limit), tuple(skipped))

    def _generator(self, task: str, step: int, number: int) -> np.random.Generator:
        key = (self._index, _ORDER[task], step, number)
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(self._seed, spawn_key=key)))


class _Drawing:
    """One sample in the making."""

    def __init__(self, sources: Sequence[Source], task: str, rng: np.random.Generator) -> None:
        self._sources, self._task, self._rng = sources, task, rng
        self._ends = np.cumsum([len(source) for source in sources])
        self._aligned = task.endswith("_text")
        self.skipped: list[str] = []

    def sample(self, task: ImageTask | AssetTask, side: int, count: int) -> Sample:
        for _ in range(PASSES):
            place = int(self._rng.integers(self._ends[-1]))
            number = int(np.searchsorted(self._ends, place, side="right"))
            source = self._sources[number]
            index = place - int(self._ends[number] - len(source))
            try:
                return self._read(source, index, task, side, count)
            except PassedOverError as error:
                reason = f"{source.sample_id(index)}: {error}"
            except SampleError as error:
                self.skipped.append(f"{source.sample_id(index)}: {error}")
                if len(self.skipped) == REPLACEMENTS:
                    raise TrainingError(
                        f"{self._task}: {REPLACEMENTS} samples in a row could not be used, the last "
                        f"{self.skipped[-1]}; mend or remove such files"
                    ) from None
        raise TrainingError(
            f"{self._task}: none of {PASSES} samples drawn is large enough, the last {reason}; "
            "lower the task's resolution"
        )

    def _read(self, source: Source, index: int, task: ImageTask | AssetTask, side: int, count: int) -> Sample:
        rng, name = self._rng, source.sample_id(index)
        text = source.caption(index, rng) if self._aligned else None
        if self._aligned and not text:
            raise SampleError("has no caption")
        if isinstance(source, AssetSource) and isinstance(task, AssetTask):
            asset = shrunk(source.asset(index), task.shrink, rng)
            if not task.renders:
                return asset_sample(asset.features, asset.coords, name, text)
            pictures, cameras = chosen_pictures(asset, task.renders, task.render_size, rng)
            return asset_sample(asset.features, asset.coords, name, text, pictures=pictures, cameras=cameras)
        assert isinstance(task, ImageTask)
        if isinstance(source, ImageSource):
            frames = source.image(index)[None]
        else:
            assert isinstance(source, ClipSource)
            assert isinstance(task, VideoTask)
            frames = source.clip(index, self._request(task, side, count))
        cut = draw_cut(frames.shape[1], frames.shape[2], task, side, rng)
        return pixel_sample(cut.of(frames), name, text, is_image=isinstance(source, ImageSource))

    def _request(self, task: VideoTask, side: int, count: int) -> ClipRequest:
        rng = self._rng
        if task.view == "whole":
            # Items differ in size anyway: frames are drawn for each, too. What makes its clips makes the largest.
            count, side = draw_count(task, rng), task.resolution[1]

        def frames(total: int, rate: Fraction) -> list[int]:
            return draw_frames(total, rate, task, count, rng)

        return ClipRequest(frames, side, rng)


def modality_of(task: str) -> Modality:
    """What a task of that name trains on."""
    return _MODALITIES[task.partition("_")[0]]


def _sources_of(task: str, sources: Sources) -> list[Source]:
    modality = modality_of(task)
    found: Sequence[Source] = getattr(sources, modality)
    if not found:
        raise TrainingError(f"{task} needs {modality}: give some, for example --data {modality}=PATH")
    if not task.endswith("_text"):
        return list(found)
    captioned = [source for source in found if source.captioned]
    if not captioned:
        names = ", ".join(source.name for source in found)
        raise TrainingError(f"{task} needs {modality} with captions, {names} have none; {HOW}")
    return captioned
