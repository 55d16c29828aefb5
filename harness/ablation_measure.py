"""Measures the models of an ablation with the ordinary experiments, so that their records stand as any other's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from atoken.errors import ATokenError
from atoken.training.recipe import Recipe
from harness import registry
from harness.ablation import Ablation
from harness.building import (
    Asked,
    Measures,
    Row,
    attempt,
    dataset_of,
    plan_of,
    protocols_of,
    row_of,
    settings_of,
)
from harness.console import Console, print_record
from harness.data.base import Dataset
from harness.devices import use_numerics
from harness.execution import execute
from harness.experiment import Experiment, Modality
from harness.plan import Share
from harness.protocol import Protocol
from harness.records import NAME
from harness.request import Request, default_workers
from harness.weights import WeightStore

__all__ = ["Found", "Measurer", "trained_on"]

SPEC = "atoken"


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What one experiment says of a model: where its record is, or why there is none."""

    experiment: str
    record: Path | None = None
    absent: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Set:
    """An experiment with the dataset that it measures on, or the reason why it cannot."""

    experiment: Experiment
    data: str
    dataset: Dataset | None
    protocol: Protocol | None
    reason: str | None


class Measurer:
    """The experiments of an ablation; datasets are opened and metrics' networks built once for all models."""

    def __init__(
        self,
        ablation: Ablation,
        request: Request,
        *,
        measured: Mapping[str, str],
        only: Mapping[Modality, Path],
        console: Console,
    ) -> None:
        """Open what is measured on.

        Args:
            measured: by experiment, the user's dataset.
            only: by modality, the file of the samples' ids that count, where not all do.
        """
        self._request, self._console = request, console
        self._sets = [
            _opened(registry.experiment(measure.experiment), measure.protocol, measured, only)
            for measure in ablation.measures
        ]
        self._measures: dict[Modality, Measures] = {}

    def measure(self, model: Path, modalities: Sequence[Modality]) -> list[Found]:
        """Every experiment of these modalities on one model's folder; an earlier start's shards stand."""
        return [self._found(one, model) for one in self._sets if one.experiment.modality in modalities]

    def _found(self, one: _Set, model: Path) -> Found:
        name = one.experiment.name
        if one.dataset is None or one.protocol is None:
            return Found(experiment=name, absent=one.reason)
        try:
            return Found(experiment=name, record=self._measured(one, one.dataset, one.protocol, model))
        except ATokenError as error:
            # The other measurements of a night's work need not wait for somebody to mend this one.
            self._console.say(f"{name} of {model} failed: {error}")
            return Found(experiment=name, absent=str(error))

    def _measured(self, one: _Set, dataset: Dataset, protocol: Protocol, model: Path) -> Path:
        modality = one.experiment.modality
        settings = settings_of(self._request, modality)
        use_numerics(settings)
        if modality not in self._measures:
            store = WeightStore(self._request.weights)
            self._measures[modality] = Measures(modality, store, settings.device)
        asked = Asked(spec=SPEC, ckpt=str(model))
        plan = plan_of(
            one.experiment,
            self._request,
            Row(asked, row_of("tokenizer", modality, asked, settings)),
            settings=settings,
            data=one.data,
            dataset=dataset,
            protocol=protocol,
            measures=self._measures[modality],
        )
        workers = default_workers() if self._request.workers is None else self._request.workers
        record = execute(plan, self._request.runs, share=Share(), workers=workers, console=self._console)
        assert record is not None  # one process, which has all shards and merges
        print_record(record)
        return plan.folder(self._request.runs) / NAME


def _opened(experiment: Experiment, protocol: str, measured: Mapping[str, str], only: Mapping[Modality, Path]) -> _Set:
    problems: list[str] = []
    text = measured.get(experiment.name, "samples")
    chosen = only.get(experiment.modality) if experiment.name not in measured else None
    dataset = attempt(problems, dataset_of, experiment.modality, text, chosen)
    name = None if experiment.name in measured else protocol
    protocols = protocols_of(experiment, text.partition("=")[0], name, problems)
    return _Set(
        experiment=experiment,
        data=text,
        dataset=dataset,
        protocol=protocols[0] if protocols else None,
        reason="; ".join(problems) or None,
    )


def trained_on(recipe: Recipe, stage: int) -> list[Modality]:
    """What a model has learned to rebuild by the end of a stage, 0 for the first."""
    tasks = {task for one in recipe.stages[: stage + 1] for task in one.tasks}
    modalities: Sequence[Modality] = ("image", "video", "asset")
    return [modality for modality in modalities if f"{modality}_recon" in tasks]
