"""What one ablation is asked for: its recipes, data, options and folder; says all that is wrong at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from atoken.config import preset
from atoken.errors import ATokenError
from atoken.training.recipe import Recipe
from atoken.training.recipe_files import load_recipe
from harness import registry
from harness.ablation import KINDS, Ablation, Variant
from harness.ablation_record import RECIPE, sha256_of
from harness.errors import BenchError, MissingWeights
from harness.experiment import Experiment
from harness.plan import slug
from harness.request import Request
from harness.weights import VGG16, WeightStore
from harness.weights import sha256_of as sha256_of_file

__all__ = ["AblationPlan", "Asked", "kinds_of", "plan_ablation"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One variant as it is to be trained.

    Attributes:
        absent: why it cannot be; its recipe stands all the same.
        vgg: the trunk that it needs.
    """

    variant: Variant
    recipe: Recipe
    absent: str | None = None
    vgg: Path | None = None

    @property
    def vgg_sha256(self) -> str | None:
        """Hash of its trunk."""
        return None if self.vgg is None else sha256_of_file(self.vgg)

    @property
    def folder(self) -> str:
        """Name of its folder: another trunk is another training."""
        trunk = "" if self.vgg_sha256 is None else f"--vgg-{self.vgg_sha256[:8]}"
        return slug(self.variant.name) + trunk


@dataclass(frozen=True, kw_only=True, slots=True)
class AblationPlan:
    """An ablation with everything that its trainings depend on.

    Attributes:
        given: paths to train on, by kind.
        measured: by experiment, ``NAME`` or ``NAME=PATH`` of the user's dataset; where none, the samples are measured.
        run: folder of a finished training that stands for the one variant.
    """

    ablation: Ablation
    variants: tuple[Asked, ...]
    given: dict[str, list[str]] = field(default_factory=dict)
    measured: dict[str, str] = field(default_factory=dict)
    run: Path | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the recipes train on."""
        return tuple(kind for kind in KINDS if any(kind in kinds_of(asked.recipe) for asked in self.variants))

    def folder(self, runs: Path) -> Path:
        """Equal requests share it, so that a new start finds what the last one left."""
        recipes = {asked.variant.name: asked.recipe.to_dict() for asked in self.variants}
        key = sha256_of([recipes, self.given, None if self.run is None else str(self.run.resolve())])
        steps = "-".join(dict.fromkeys(str(stage.steps) for stage in self.variants[0].recipe.stages))
        return runs / self.ablation.name / f"steps-{steps}--{key[:8]}"


def kinds_of(recipe: Recipe) -> set[str]:
    """What a recipe's tasks train on."""
    return {f"{task.partition('_')[0]}s" for stage in recipe.stages for task in stage.tasks}


def plan_ablation(ablation: Ablation, request: Request) -> AblationPlan:
    """Read a request.

    Raises:
        BenchError: options of other experiments, unknown ones, recipes that do not load, data of unknown names.
    """
    reading = _Reading(ablation, request)
    plan = reading.plan()
    if reading.problems:
        raise BenchError("\n".join(dict.fromkeys(reading.problems)))
    return plan


class _Reading:
    """A request as it is read; what is wrong is collected."""

    def __init__(self, ablation: Ablation, request: Request) -> None:
        self.ablation, self.request = ablation, request
        self.problems = self._foreign()
        self.options = self._options()
        self.run = Path(self.options["run"]) if "run" in self.options else None

    def plan(self) -> AblationPlan:
        """What was read; only of use where there are no problems."""
        given, measured = self._data()
        trunk = (None, None) if self.run else self._trunk()
        variants = [asked for variant in self.ablation.variants if (asked := self._asked(variant, trunk))]
        return AblationPlan(
            ablation=self.ablation, variants=tuple(variants), given=given, measured=measured, run=self.run
        )

    def _foreign(self) -> list[str]:
        """Options of `run` that say nothing about trainings."""
        request, name = self.request, self.ablation.name
        values = {
            "--tokenizer": request.tokenizers,
            "--ckpt": request.ckpt,
            "--preset": request.preset,
            "--list": request.only,
            "--protocol": request.protocol,
        }
        problems = [f"{option}: {name} trains what it measures; leave it out" for option, v in values.items() if v]
        if request.share.count > 1 or not request.share.merges:
            problems.append(f"{name} trains on one process; leave out --shard and torchrun")
        return problems

    def _options(self) -> dict[str, str]:
        options = {}
        for text in self.request.options:
            key, _, value = text.partition("=")
            if key not in self.ablation.options or not value:
                self.problems.append(f"--option {text}: write KEY=VALUE with KEY {', '.join(self.ablation.options)}")
            elif key == "steps" and not (value.isdecimal() and int(value) > 0):
                self.problems.append(f"--option steps={value}: give the optimiser steps of a stage, 1 or more")
            else:
                options[key] = value
        if "run" in options and len(options) > 1:
            others = ", ".join(f"{key}=" for key in options if key != "run")
            self.problems.append(f"--option run={options['run']}: is trained already; leave out {others}")
        return options

    def _data(self) -> tuple[dict[str, list[str]], dict[str, str]]:
        given: dict[str, list[str]] = {}
        measured: dict[str, str] = {}
        takers: list[Experiment] = [registry.experiment(measure.experiment) for measure in self.ablation.measures]
        for text in self.request.data:
            name, _, path = text.partition("=")
            taker = next((one.name for one in takers if name in one.datasets), None)
            if name in KINDS and path:
                given.setdefault(name, []).append(path)
            elif taker is not None and taker not in measured:
                measured[taker] = text
            else:
                known = dict.fromkeys(dataset for one in takers for dataset in one.datasets)
                self.problems.append(
                    f"--data {text}: write {', '.join(f'{kind}=PATH' for kind in KINDS)} for what is trained on, or "
                    f"one dataset of each experiment that measures: {', '.join(known)}"
                )
        return given, measured

    def _trunk(self) -> tuple[Path | None, str | None]:
        """The VGG16 file, or why there is none; only where a variant needs it."""
        if not any(variant.vgg for variant in self.ablation.variants):
            return None, None
        name = self.options.get("vgg")
        if name is not None:
            if not Path(name).is_file():
                self.problems.append(f"--option vgg={name}: no such file; give torchvision's {VGG16.name}")
            return Path(name), None
        try:
            return WeightStore(self.request.weights).find(VGG16).path, None
        except MissingWeights as missing:
            return None, f"{missing}, or give it with --option vgg=FILE"

    def _asked(self, variant: Variant, trunk: tuple[Path | None, str | None]) -> Asked | None:
        try:
            if self.run is not None:
                return Asked(variant=variant, recipe=load_recipe(_recipe_of(self.run)))
            name = self.options.get("recipe", self.ablation.recipe)
            recipe = load_recipe(name, overrides=variant.changes)
            if "steps" in self.options:
                steps = [f"stages.{stage.name}.steps={self.options['steps']}" for stage in recipe.stages]
                recipe = load_recipe(name, overrides=[*variant.changes, *steps])
            preset(recipe.model)
        except ATokenError as error:
            self.problems.append(str(error))
            return None
        path, reason = trunk if variant.vgg else (None, None)
        return Asked(variant=variant, recipe=recipe, absent=reason, vgg=path)


def _recipe_of(run: Path) -> Path:
    path = run / RECIPE
    if not path.is_file():
        raise BenchError(f"--option run={run}: no {RECIPE} in it; give a folder that atoken train wrote")
    return path
