"""What an ablation is to the registry: tokenizers that are trained alike but for one thing, then measured alike.

An experiment whose rows do not exist before it runs. Imports nothing heavy: `list` must be quick.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.experiment import Experiment

__all__ = ["KINDS", "Ablation", "Measure", "Variant"]

KINDS = ("images", "videos", "assets")
"""What is trained on, as ``atoken train --data`` calls it; of other names of datasets is measured."""

_RUNNER = "harness.ablation_run:run"


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One tokenizer of an ablation.

    Attributes:
        name: of its folder.
        title: what sets it apart, as its curve is called.
        changes: to the ablation's recipe, ``key=value`` each, as ``atoken train --set`` takes them.
        vgg: whether it needs a VGG16 trunk of the user's; without one it is absent with this reason.
    """

    name: str
    title: str
    changes: tuple[str, ...] = ()
    vgg: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """An experiment that measures the trained models.

    Attributes:
        experiment: its name; its modality says which stages' models it takes: those that have trained on it.
        protocol: on the samples that ship; another dataset of the user's is measured by the experiment's default.
    """

    experiment: str
    protocol: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Ablation(Experiment):
    """An experiment that trains its rows.

    Attributes:
        figure: what it redoes, ``Figure 7``.
        asks: the question, one line.
        recipe: name of the recipe that the variants change; ``--option recipe=`` names another.
        variants: in the order of the curves.
        measures: what every variant's models are measured by.
        takes_run: whether ``--option run=DIR`` may stand for training: a folder that ``atoken train`` wrote.
    """

    figure: str
    asks: str
    recipe: str
    variants: tuple[Variant, ...]
    measures: tuple[Measure, ...]
    takes_run: bool = False
    runner: str | None = _RUNNER

    @property
    def options(self) -> tuple[str, ...]:
        """Keys that ``--option`` takes."""
        vgg = ("vgg",) if any(variant.vgg for variant in self.variants) else ()
        return ("steps", "recipe", *vgg, *(("run",) if self.takes_run else ()))
