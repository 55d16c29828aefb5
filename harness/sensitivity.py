"""One tokenizer under every protocol of an experiment: what is measured already stands, the rest is measured now."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from atoken.errors import ATokenError
from harness import records
from harness.building import (
    Measures,
    attempt,
    dataset_of,
    plan_of,
    protocols_of,
    rows_of,
    settings_of,
)
from harness.console import Console
from harness.devices import use_numerics
from harness.errors import BenchError, NotBuiltYet
from harness.execution import execute
from harness.experiment import Experiment
from harness.plan import Plan
from harness.request import Request, default_workers
from harness.storage import make_folder
from harness.weights import WeightStore

__all__ = ["Outcome", "measure", "refuse", "stands"]

RUNNER = "harness.runner:run"
"""Of experiments whose runs are one tokenizer on one dataset, whatever the protocol."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one protocol.

    Attributes:
        protocol: its name.
        folder: of the run that has its record; None where there is none.
        new: whether samples were measured now; False where the record stood.
        reason: why there is no record, one line; None where there is one.
    """

    protocol: str
    folder: Path | None
    new: bool = False
    reason: str | None = None


def measure(experiment: Experiment, request: Request, console: Console) -> list[Outcome]:
    """Bring about a record of every protocol of an experiment, for one tokenizer on one dataset.

    A protocol that cannot be measured here (a renderer is missing, the run fails) holds the others up in nothing:
    its outcome has the reason.

    Args:
        request: names one tokenizer, and one dataset or none; its ``protocol`` plays no part.

    Returns:
        One outcome for each protocol, in the experiment's order.

    Raises:
        BenchError: what was asked for cannot be measured under any protocol; all that is wrong is said at once.
    """
    refuse(experiment, request)
    settings = settings_of(request, experiment.modality)
    text = request.data[0] if request.data else experiment.datasets[0]
    problems: list[str] = []
    dataset = attempt(problems, dataset_of, experiment.modality, text, request.only)
    rows = rows_of(experiment, request, settings, problems)
    attempt(problems, make_folder, request.runs)
    problems += [f"--weights {folder}: no such folder" for folder in request.weights if not folder.is_dir()]
    if problems or dataset is None:
        raise BenchError("\n".join(dict.fromkeys(problems)))
    use_numerics(settings)
    measures = Measures(experiment.modality, WeightStore(request.weights), settings.device)
    for note in dataset.notes:
        console.note(f"{dataset.name}: {note}")

    def under(name: str) -> Outcome:
        wrong: list[str] = []
        found = protocols_of(experiment, dataset.name, name, wrong)
        if wrong:
            return Outcome(protocol=name, folder=None, reason="; ".join(wrong))
        try:
            plan = plan_of(
                experiment,
                request,
                rows[0],
                settings=settings,
                data=text,
                dataset=dataset,
                protocol=found[0],
                measures=measures,
            )
            return _carry_out(plan, request, console)
        except ATokenError as error:
            console.say(f"{name}: {error}")
            return Outcome(protocol=name, folder=None, reason=str(error))

    outcomes = [under(name) for name in experiment.protocols]
    if not any(outcome.folder for outcome in outcomes):
        why = dict.fromkeys(chain.from_iterable((outcome.reason or "").splitlines() for outcome in outcomes))
        raise BenchError(f"no protocol of {experiment.name} could be measured: {'; '.join(why)}")
    return outcomes


def stands(plan: Plan, folder: Path) -> bool:
    """Whether the record in a run's folder is of exactly this plan: its shards are those that the plan would measure,
    with today's code, packages and weights, and all of them are there."""
    try:
        record = records.load(folder / records.NAME)
        found = json.loads((folder / records.REQUEST).read_bytes())["found"]
        measured = [shard["file"] for shard in record["shards"]]
    except (BenchError, OSError, ValueError, KeyError, TypeError):
        return False  # `execute` says what is wrong with it, if anything is
    if found and found["basis"] != plan.basis:
        return False
    if plan.tokenizer.needs_prepare and not found:
        return False
    settings = found["settings"] if found else None
    wanted = [f"shards/{plan.shard_name(shard, settings)}" for shard in range(plan.shards)]
    return measured == wanted and all((folder / name).is_file() for name in wanted)


def _carry_out(plan: Plan, request: Request, console: Console) -> Outcome:
    folder = plan.folder(request.runs)
    name = plan.protocol.name
    if plan.selected and stands(plan, folder):
        console.note(f"{name}: measured already, in {folder}")
        return Outcome(protocol=name, folder=folder)
    workers = default_workers() if request.workers is None else request.workers
    record = execute(plan, request.runs, share=request.share, workers=workers, console=console)
    if record is None:
        return Outcome(protocol=name, folder=None, reason=f"other processes are still measuring it in {folder}")
    return Outcome(protocol=name, folder=folder, new=True)


def refuse(experiment: Experiment, request: Request) -> None:
    """Refuse what has no answer, before anything is built for it.

    Raises:
        BenchError: an experiment with fewer than two protocols or a runner of its own; or not one tokenizer, one
            dataset and one process.
        NotBuiltYet: the experiment is planned.
    """
    name = experiment.name
    if experiment.status != "built" or experiment.runner is None:
        raise NotBuiltYet(f"{name} is planned and not built yet ({experiment.title})")
    if len(experiment.protocols) < 2:
        raise BenchError(f"{name} has {_count(experiment.protocols)}: nothing to compare; see `list protocols`")
    if experiment.runner != RUNNER:
        raise BenchError(
            f"{name} chooses its samples by the protocol, so that protocols cannot be compared; `run {name} --protocol "
            "all` measures each"
        )
    asked = [*request.tokenizers, *([request.ckpt] if request.ckpt and not request.tokenizers else [])]
    if len(asked) != 1:
        what = f"{', '.join(asked)} are {len(asked)}" if asked else "none is named"
        raise BenchError(f"sensitivity is of one tokenizer, {what}; write --tokenizer SPEC, see `list tokenizers`")
    if len(request.data) > 1:
        raise BenchError(f"sensitivity is on one dataset, --data names {len(request.data)}: {', '.join(request.data)}")
    if request.share.count > 1:
        raise BenchError("sensitivity runs in one process; measure with `run --protocol all` in several, then call it")


def _count(names: Sequence[str]) -> str:
    return f"one protocol ({names[0]})" if names else "no protocols"
