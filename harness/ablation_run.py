"""Runs an ablation: trains every variant, measures its models, writes the record that holds them together."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from atoken.checkpoint import sha256_file
from atoken.errors import ATokenError
from harness import ablation_record, provenance
from harness.ablation import Ablation
from harness.ablation_measure import Found, Measurer, trained_on
from harness.ablation_plan import AblationPlan, Asked, plan_ablation
from harness.ablation_record import LOG, RECIPE
from harness.ablation_samples import Material, material
from harness.building import settings_of
from harness.console import Console
from harness.devices import resolve, use_numerics
from harness.errors import BenchError
from harness.request import Request
from harness.storage import FolderLock, make_folder
from harness.weights import VGG16

__all__ = ["run"]

SAMPLES = "ablation-samples"
"""Below the folder of runs: the samples that are trained on where the user gives nothing."""


def run(ablation: Ablation, request: Request) -> None:
    """Train and measure. Started again, it goes on where it stopped: a trained variant stands, a cut-off one goes on.

    Raises:
        BenchError: the request is wrong, a training failed, or with `strict` something is absent.
    """
    settings = settings_of(request, ablation.modality)
    use_numerics(settings)
    console = Console()
    plan = plan_ablation(ablation, request)
    make_folder(request.runs)
    ground = material(plan.given, plan.kinds, request.runs.resolve() / SAMPLES, console.say)
    if plan.run is not None:
        # What that training has seen is not known here: nothing is held out for it.
        ground = replace(ground, only={}, notes={"run": f"trained elsewhere, in {plan.run}"})
    folder = plan.folder(request.runs)
    make_folder(folder)
    with FolderLock(folder) as lock:
        lock.claim_shards([0])
        _Running(plan, request, folder, ground, console).run()


class _Running:
    """A plan in its folder."""

    def __init__(self, plan: AblationPlan, request: Request, folder: Path, ground: Material, console: Console) -> None:
        self.plan, self.request, self.folder = plan, request, folder
        self.ground, self.console = ground, console
        self.measurer = Measurer(plan.ablation, request, measured=plan.measured, only=ground.only, console=console)

    def run(self) -> None:
        entries, failed = [], []
        for asked in self.plan.variants:
            name, absent, stages = asked.variant.name, asked.absent, []
            if absent is not None:
                self.console.say(f"{name} is absent: {absent}")
            else:
                try:
                    self._train(asked)
                    stages = [self._stage(asked, number) for number in range(len(asked.recipe.stages))]
                except ATokenError as error:
                    # A training that breaks down is a result too: its curve up to there stays.
                    self.console.say(f"{name} failed: {error}")
                    failed.append(name)
                    absent = f"failed: {error}"
            entries.append(self._entry(asked, stages, absent))
        ablation_record.save(self.folder, self._record(entries))
        self.console.say(f"{self.folder / ablation_record.NAME}: written; atoken-bench report shows it")
        if failed:
            raise BenchError(f"{', '.join(failed)} failed; the reasons stand above, the same command tries again")
        if self.request.strict:
            self._all_there(entries)

    def _place(self, asked: Asked) -> Path:
        return self.folder / asked.folder

    def _models(self, asked: Asked) -> Path:
        return self._place(asked) if self.plan.run is None else self.plan.run

    def _model(self, asked: Asked, number: int) -> Path:
        return self._models(asked) / f"stage-{number + 1}" / "model"

    def _train(self, asked: Asked) -> None:
        place = self._place(asked)
        if self.plan.run is not None:
            _copy_log(self.plan.run, place)
            return
        stages = range(len(asked.recipe.stages))
        if all((self._model(asked, number) / "config.json").is_file() for number in stages):
            self.console.say(f"{place}: trained; its models stand")
            return
        from atoken.training.session import Inputs, run_session

        inputs = Inputs(
            data=self.ground.data,
            val=self.ground.val,
            out=place,
            cache=self.request.runs / SAMPLES / "cache",
            workers=self.request.workers,
            vgg=asked.vgg,
        )
        self.console.say(f"{asked.variant.name}: trains in {place}")
        device = resolve(self.request.device)
        run_session(asked.recipe, stages, inputs, device=device, say=self.console.say)

    def _stage(self, asked: Asked, number: int) -> dict[str, Any]:
        stage, model = asked.recipe.stages[number], self._model(asked, number)
        entry = {"number": number + 1, "name": stage.name, "steps": stage.steps, "discrete": stage.discrete}
        if not (model / "config.json").is_file():
            return {**entry, "model_sha256": None, "measured": [], "absent": f"{model}: not trained yet"}
        found = self.measurer.measure(model, trained_on(asked.recipe, number))
        weights = sha256_file(model / "model.safetensors")
        return {**entry, "model_sha256": weights, "measured": [self._measured(one) for one in found], "absent": None}

    def _measured(self, one: Found) -> dict[str, Any]:
        record = None if one.record is None else os.path.relpath(one.record, self.folder)
        return {"experiment": one.experiment, "record": record, "absent": one.absent}

    def _entry(self, asked: Asked, stages: list[dict[str, Any]], absent: str | None) -> dict[str, Any]:
        recipe, log, sha256 = asked.recipe.to_dict(), self._place(asked) / LOG, asked.vgg_sha256
        return {
            "name": asked.variant.name,
            "title": asked.variant.title,
            "changes": list(asked.variant.changes),
            "absent": absent,
            "folder": asked.folder,
            "recipe": recipe,
            "recipe_sha256": ablation_record.sha256_of(recipe),
            "vgg": None if sha256 is None else {"sha256": sha256, "official": sha256 == VGG16.sha256},
            "log_sha256": sha256_file(log) if log.is_file() else None,
            "stages": stages,
        }

    def _record(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        ablation, device = self.plan.ablation, resolve(self.request.device)
        return {
            "ablation": ablation.name,
            "title": ablation.title,
            "figure": ablation.figure,
            "asks": ablation.asks,
            "data": self.ground.data if self.plan.run is None else {},
            "notes": dict(self.ground.notes),
            "settings": {"device": device, "limit": self.request.limit},
            "variants": entries,
            "environment": provenance.environment([provenance.device_name(device)]),
            "code": provenance.code(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _all_there(self, entries: list[dict[str, Any]]) -> None:
        absent = [entry["name"] for entry in entries if entry["absent"]]
        absent += [
            f"{found['experiment']} of {entry['name']}, stage {stage['number']}"
            for entry in entries
            for stage in entry["stages"]
            for found in stage["measured"]
            if found["absent"]
        ]
        if absent:
            raise BenchError(f"--strict: absent are {', '.join(absent)}; the reasons stand above")


def _copy_log(run: Path, place: Path) -> None:
    """Keep the log of a training elsewhere with the record that tells of it.

    Raises:
        BenchError: the folder has none.
    """
    make_folder(place)
    for name in (LOG, RECIPE):
        try:
            shutil.copyfile(run / name, place / name)
        except OSError as error:
            raise BenchError(f"{run / name}: {error.strerror}; give a folder that atoken train wrote") from None
