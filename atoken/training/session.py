"""A run from its inputs to its models: what `atoken train` does, callable from Python."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import yaml

from atoken.config import preset
from atoken.files import replacing
from atoken.training.alignment import Alignment
from atoken.training.data import PATCH, Batches, open_sources
from atoken.training.distributed import World, joined
from atoken.training.errors import TrainingError
from atoken.training.logs import Log, Tracker
from atoken.training.perceptual import Perceptual, load_perceptual
from atoken.training.recipe import Recipe
from atoken.training.samples import comparison, save_picture
from atoken.training.stages import MODEL, Stages, averaged_model, located, stage_folder
from atoken.training.tasks import IMAGE_TEXT, ImageTask
from atoken.training.trainer import Run, Trainer
from atoken.training.validation import Validation, load_validation

if TYPE_CHECKING:
    from atoken.text import TextHead

__all__ = ["FIGURES", "RECIPE", "Inputs", "run_session"]

FIGURES = "figures.json"
RECIPE = "recipe.yaml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What a run is given beside its recipe; see the options of `atoken train`.

    Attributes:
        data, val: paths by kind.
        out: the run's folder.
        cache: for what is made of the data once.
        workers: processes that read data on each rank; the CPUs less one, shared by the ranks, if None.
    """

    data: Mapping[str, Sequence[str]]
    val: Mapping[str, Sequence[str]]
    out: Path
    cache: Path
    workers: int | None = None
    pretrained: Path | None = None
    text: Path | None = None
    vgg: Path | None = None
    clip: str | None = None
    trackers: tuple[str, ...] = ()


def run_session(
    recipe: Recipe,
    stages: range,
    inputs: Inputs,
    *,
    device: str | None = None,
    seconds: float = math.inf,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
) -> bool:
    """Train the stages that are not done yet.

    Args:
        seconds, stop: as `Trainer.run`.
        say: is told, on the main process, what a person wants to know.

    Returns:
        Whether all of them are done.

    Raises:
        TrainingError: data, weights or a folder that the run cannot do with; see `Stages.train`.
    """
    with joined(device) as world:
        told = say if world.is_main else lambda _: None
        for name in inputs.trackers:
            if name not in get_args(Tracker):
                raise TrainingError(f"--tracker {name}: give {' or '.join(get_args(Tracker))}")
        session = _Session(recipe, stages, inputs, world, told)
        return session.train(seconds, stop)


class _Session:
    def __init__(self, recipe: Recipe, stages: range, inputs: Inputs, world: World, say: Callable[[str], None]) -> None:
        self.recipe, self.stages, self.inputs, self.world, self.say = recipe, stages, inputs, world, say
        self.sources = open_sources(inputs.data, cache=inputs.cache, gathering=recipe.gathering)
        self._check_data()
        self.validation = self._load_validation() if inputs.val else Validation()
        self.head = self._head()
        self.figures: dict[str, dict[str, float]] = {}
        self.replaced: Counter[str] = Counter()

    def train(self, seconds: float, stop: Callable[[], bool]) -> bool:
        self._note_recipe()
        trackers = cast(tuple[Tracker, ...], self.inputs.trackers)
        log = Log(self.inputs.out, active=self.world.is_main, trackers=trackers, report=self._told)
        run = Run(
            recipe=self.recipe,
            world=self.world,
            log=log,
            perceptual=self._perceptual(),
            alignment=self._alignment(),
            workers=self._workers(),
            validate=self._validate,
        )
        job = Stages(
            run=run, sources=self.sources, out=self.inputs.out, head=self.head, pretrained=self.inputs.pretrained
        )
        try:
            done = job.train(self.stages, seconds=seconds, stop=stop, begun=self._begun)
        finally:
            log.close()
            self._summary()
        self.say(
            f"{self.inputs.out}: all stages are done"
            if done
            else "stopped before the end; the same command goes on from there"
        )
        return done

    def _begun(self, trainer: Trainer) -> None:
        weights = sum(p.numel() for p in trainer.trainee.parameters() if p.requires_grad)
        self.say(
            f"stage {trainer.index + 1}, {trainer.stage.name}: step {trainer.step} of {trainer.stage.steps}, "
            f"{weights / 1e6:.1f} M weights on {self.world.size} x {self.world.device.type}"
        )

    def _told(self, line: dict[str, Any]) -> None:
        if "replaced" in line and isinstance(line["replaced"], str):
            self.replaced[line["replaced"]] += 1
            return
        self.say("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in line.items()))

    def _summary(self) -> None:
        if self.replaced:
            self.say(f"{len(self.replaced)} samples could not be used and were replaced by others:")
            for reason, times in self.replaced.most_common(20):
                self.say(f"  {reason} ({times} times)")
            if len(self.replaced) > 20:
                self.say(f"  and {len(self.replaced) - 20} more, in {self.inputs.out / 'log.jsonl'}")

    def _validate(self, trainer: Trainer) -> dict[str, float]:
        """Of the averaged model, on the main process; the others wait."""
        state = trainer.averaged()
        figures: dict[str, float] = {}
        if self.world.is_main:
            model = averaged_model(trainer, state).to(self.world.device)
            figures = self.validation.measure(model, self.head)
            if self.validation.images:
                picture = comparison(model, self.validation.images[:4])
                folder = stage_folder(self.inputs.out, trainer.index) / "samples"
                save_picture(picture, folder / f"step-{trainer.step:08d}.png")
                trainer.run_.log.picture("images", trainer.index + 1, trainer.step, picture)
            if figures and trainer.step == trainer.stage.steps:
                self._note_figures(trainer, figures)
        self.world.barrier()
        return figures

    def _note_figures(self, trainer: Trainer, figures: dict[str, float]) -> None:
        path = self.inputs.out / FIGURES
        known = json.loads(path.read_text()) if path.is_file() else {}
        known[f"stage-{trainer.index + 1}"] = {"step": trainer.step, **figures}
        with replacing(path) as aside:
            aside.write_text(json.dumps(known, indent=2) + "\n")

    def _check_data(self) -> None:
        """Whether every stage that is to be trained has the data that it asks for, before the first begins."""
        for index in self.stages:
            stage = self.recipe.stages[index]
            Batches(
                self.sources,
                stage,
                stage_index=index,
                seed=self.recipe.seed,
                rank=self.world.rank,
                world=self.world.size,
                patch=(stage.frames, PATCH, PATCH),
                pack_tokens=self.recipe.pack_tokens,
            )

    def _note_recipe(self) -> None:
        if self.world.is_main:
            with replacing(self.inputs.out / RECIPE) as aside:
                aside.write_text(yaml.safe_dump(self.recipe.to_dict(), sort_keys=False))

    def _load_validation(self) -> Validation:
        aligned = [stage.tasks[IMAGE_TEXT] for stage in self.recipe.stages if IMAGE_TEXT in stage.tasks]
        sides = [task.resolution[1] for task in aligned if isinstance(task, ImageTask)]
        return load_validation(
            self.inputs.val, self.say, labelled_side=max(sides, default=PATCH), gathering=self.recipe.gathering
        )

    def _head(self) -> TextHead | None:
        from atoken.text import TextHead, load_tower

        recipe = self.recipe
        aligned = any(task.endswith("_text") for stage in recipe.stages for task in stage.tasks)
        own = self._known_head()
        if not aligned:
            return own
        tower = load_tower(recipe.text, self.inputs.text, cache=self.inputs.cache)
        if own is not None:
            return own.with_tower(tower)
        return TextHead.fitted(tower, self.sources.captions(), preset(recipe.model).encoder.width)

    def _known_head(self) -> TextHead | None:
        """That of the models to go on from: they have learnt its vectors, whatever captions there are now."""
        from atoken.text import TextHead
        from atoken.text.head import CONFIG_NAME

        folders = [stage_folder(self.inputs.out, index) / MODEL for index in range(len(self.recipe.stages))]
        if self.recipe.start == "atoken" and self.inputs.pretrained is not None:
            folders.append(located(self.inputs.pretrained).weights.parent)
        known = next((folder for folder in folders if (folder / CONFIG_NAME).is_file()), None)
        return None if known is None else TextHead.from_pretrained(known)

    def _alignment(self) -> Alignment | None:
        if self.head is None:
            return None
        if not self.recipe.losses.distillation:
            return Alignment(texts=self.head)
        from atoken.training.start.siglip2 import Teacher

        if self.inputs.pretrained is None:
            raise TrainingError(
                f"recipe {self.recipe.name} distils SigLIP2 (losses.distillation): give its weights with "
                "--pretrained PATH, or --set losses.distillation=false for the sigmoid loss"
            )
        teacher = Teacher.from_pretrained(self.inputs.pretrained, device=self.world.device)
        return Alignment(texts=self.head, teacher=teacher, teacher_scale=teacher.scale)

    def _perceptual(self) -> Perceptual | None:
        return load_perceptual(self.recipe.losses, vgg=self.inputs.vgg, clip=self.inputs.clip, device=self.world.device)

    def _workers(self) -> int:
        if self.inputs.workers is not None:
            return self.inputs.workers
        ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return max(0, (len(os.sched_getaffinity(0)) - 1) // ranks)
