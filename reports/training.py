"""Reads what trainings left behind: their logs and recipes, and the records of ablations that hold them together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness import ablation_record
from harness.ablation_record import LOG, NAME, RECIPE
from harness.errors import BenchError
from harness.weights import UNOFFICIAL

__all__ = ["AblationRun", "Span", "Studies", "Training", "VariantRun", "read_studies"]

WHERE = ("stage", "step", "task", "replaced", "skipped")
"""Of a line of the log: what says which step it is of, and counts."""

Points = list[tuple[int, float]]
"""(step over all stages, value), in order; a value may be infinite or NaN, as it was logged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stage among the steps of a training.

    Attributes:
        number: 1 for the first.
        start: steps of all stages before it.
        steps: its own, by the recipe.
        done: those that the log has.
    """

    number: int
    name: str
    start: int
    steps: int
    done: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A training run's folder.

    Attributes:
        spans: its stages, in order.
        lines: of the log, as they were written.
    """

    folder: Path
    recipe: Mapping[str, Any]
    spans: tuple[Span, ...]
    lines: tuple[Mapping[str, Any], ...] = field(repr=False)

    @property
    def name(self) -> str:
        """Of its folder, which is what tells it from others of its recipe."""
        return self.folder.name

    def logged(self) -> list[str]:
        """What was logged as numbers, in the order of first appearance."""
        found: dict[str, None] = {}
        for line in self.lines:
            found |= {key: None for key in line if key not in WHERE and _number(line[key]) is not None}
        return list(found)

    def points(self, key: str) -> Points:
        """One quantity over all stages."""
        starts = {span.number: span.start for span in self.spans}
        return [
            (starts[line["stage"]] + line["step"], value)
            for line in self.lines
            if key in line and line["stage"] in starts and (value := _number(line[key])) is not None
        ]

    def counts(self, key: str) -> int:
        """The last value of a count that runs through each stage, summed over stages."""
        last: dict[int, int] = {}
        for line in self.lines:
            if isinstance(line.get(key), int):
                last[line["stage"]] = line[key]
        return sum(last.values())

    def pictures(self) -> list[tuple[Span, int, Path]]:
        """The last picture of samples of each stage, with its step."""
        found = []
        for span in self.spans:
            files = sorted((self.folder / f"stage-{span.number}" / "samples").glob("step-*.png"))
            if files:
                found.append((span, int(files[-1].stem.removeprefix("step-")), files[-1]))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantRun:
    """One variant of an ablation.

    Attributes:
        title: what sets it apart, and that its trunk is not the published one where that is so.
        raw: its entry of the record.
        training: None where it was not trained, with the reason in `absent`.
        measured: by stage and experiment, the path of a record, or the reason why there is none.
    """

    title: str
    absent: str | None
    raw: Mapping[str, Any] = field(repr=False)
    training: Training | None
    measured: Mapping[tuple[int, str], Path | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationRun:
    """An ablation's ``ablation.json``."""

    folder: Path
    name: str
    title: str
    figure: str
    asks: str
    notes: tuple[str, ...]
    variants: tuple[VariantRun, ...]
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def trained(self) -> tuple[VariantRun, ...]:
        """Those with a curve."""
        return tuple(variant for variant in self.variants if variant.training is not None)

    @property
    def finished(self) -> str:
        """ISO time; sorts as text."""
        return str(self.raw.get("finished", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Studies:
    """All trainings below a folder, and the ablations among them."""

    ablations: tuple[AblationRun, ...] = ()
    trainings: tuple[Training, ...] = ()


def read_studies(runs: Path) -> Studies:
    """Everything below ``runs``, in the order of the folders' names.

    Raises:
        BenchError: a log, a recipe or a record that cannot be read; names the file and the mend.
    """
    trainings = {path.parent: _training(path.parent) for path in sorted(runs.rglob(LOG))}
    ablations = [_ablation(path, trainings) for path in sorted(runs.rglob(NAME))]
    return Studies(ablations=tuple(ablations), trainings=tuple(trainings.values()))


def _training(folder: Path) -> Training:
    recipe = _recipe(folder / RECIPE)
    lines = _lines(folder / LOG)
    spans, start = [], 0
    for number, (name, stage) in enumerate(recipe["stages"].items(), start=1):
        done = max((line["step"] for line in lines if line["stage"] == number), default=0)
        steps = int(stage["steps"])
        spans.append(Span(number=number, name=str(name), start=start, steps=steps, done=done))
        start += steps
    return Training(folder=folder, recipe=recipe, spans=tuple(spans), lines=tuple(lines))


def _recipe(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_bytes())
        for stage in data["stages"].values():
            int(stage["steps"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise BenchError(f"{path}: not the recipe of a training ({reason}); remove the folder or train again") from None
    return dict(data)


def _lines(path: Path) -> list[dict[str, Any]]:
    found = []
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path}: cannot be read ({error}); remove the folder or train again") from None
    for place, text in enumerate(texts, start=1):
        try:
            line = json.loads(text)
            int(line["stage"]), int(line["step"])
        except (ValueError, KeyError, TypeError):
            if place == len(texts):  # of a training that is going on or was killed
                break
            raise BenchError(f"{path}: line {place} is no line of a training's log; remove it") from None
        found.append(line)
    return found


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):  # what is not finite is logged as a text
        return float(value) if value in ("nan", "inf", "-inf") else None
    return float(value) if isinstance(value, int | float) else None


def _ablation(path: Path, trainings: Mapping[Path, Training]) -> AblationRun:
    raw, folder = ablation_record.load(path), path.parent
    try:
        variants = tuple(_variant(folder, entry, trainings) for entry in raw["variants"])
        return AblationRun(
            folder=folder,
            name=str(raw["ablation"]),
            title=str(raw["title"]),
            figure=str(raw["figure"]),
            asks=str(raw["asks"]),
            notes=tuple(str(note) for note in raw["notes"].values()),
            variants=variants,
            raw=raw,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"missing {error}" if isinstance(error, KeyError) else str(error)
        raise BenchError(f"{path}: damaged record ({what}); run it again or remove the folder") from None


def _variant(folder: Path, entry: Mapping[str, Any], trainings: Mapping[Path, Training]) -> VariantRun:
    measured: dict[tuple[int, str], Path | str] = {}
    for stage in entry["stages"]:
        for one in stage["measured"]:
            where = folder / one["record"] if one["record"] is not None else str(one["absent"])
            measured[int(stage["number"]), str(one["experiment"])] = where
    place = folder / str(entry["folder"])
    if place.parent != folder:
        raise ValueError(f"{entry['folder']!r} is no folder beside it")
    unofficial = entry["vgg"] is not None and not entry["vgg"]["official"]
    return VariantRun(
        title=f"{entry['title']}{UNOFFICIAL if unofficial else ''}",
        absent=entry["absent"],
        raw=entry,
        training=trainings.get(place),
        measured=measured,
    )
