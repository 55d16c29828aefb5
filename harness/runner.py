"""Runs an image experiment: every tokenizer on every dataset under every protocol that was asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from atoken.errors import ATokenError
from harness import protocol as protocols
from harness import provenance, registry
from harness.console import Console, missing, print_reasons, print_record, reasons
from harness.data.base import ImageSource
from harness.data.catalog import open_images
from harness.devices import resolve, use_numerics
from harness.errors import BenchError
from harness.execution import execute, merge_only
from harness.experiment import Experiment
from harness.metrics.base import Cell, Metric
from harness.metrics.registry import build_metrics
from harness.plan import Plan, Settings
from harness.protocol import Protocol
from harness.records import REQUEST
from harness.request import DTYPES, Request, default_threads, default_workers
from harness.storage import make_folder
from harness.tokenizers.base import Tokenizer
from harness.weights import WeightStore

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Row:
    """A tokenizer to run: as it was asked for, and built."""

    spec: str
    ckpt: str | None
    preset: str | None
    tokenizer: Tokenizer


def run(experiment: Experiment, request: Request) -> None:
    """Carry out an image experiment and print each record's table.

    Raises:
        BenchError: something is missing (all of it is said at once), a run fails, or with `strict` a cell
            is absent.
    """
    settings = _settings(request)
    problems: list[str] = []
    texts = request.data or experiment.datasets[:1]
    datasets = [d for text in texts if (d := _try(problems, _dataset, text)) is not None]
    asked = _protocols(experiment, request.protocol, problems)
    rows = _tokenizers(experiment, request, settings, problems)
    _try(problems, make_folder, request.runs)
    problems += [f"--weights {folder}: no such folder" for folder in request.weights if not folder.is_dir()]
    use_numerics(settings)
    measures = _Measures(WeightStore(request.weights), settings.device)
    for protocol in asked:
        for row in rows:
            _try(problems, measures.of, protocol, row.tokenizer)
    if problems:
        raise BenchError("\n".join(problems))
    console = Console(speaks=request.share.index == 0)
    said = measures.absent()
    for reason, names in said.items():
        console.note(f"absent {', '.join(names)}: {reason}")

    done: list[dict[str, Any]] = []
    failed: list[str] = []
    total = len(rows) * len(datasets) * len(asked)
    while rows:
        row = rows.pop(0)  # its memory is free once its runs are done
        for text, dataset in zip(texts, datasets, strict=True):
            for protocol in asked:
                try:
                    plan = _plan(
                        experiment,
                        request,
                        row,
                        settings=settings,
                        data=text,
                        dataset=dataset,
                        protocol=protocol,
                        measures=measures,
                    )
                    done += _carry_out(plan, request, console)
                except ATokenError as error:
                    if total == 1:
                        raise
                    # The other rows of a night's work need not wait for somebody to mend this one.
                    console.say(f"{row.spec} failed: {error}")
                    failed.append(f"{row.spec} on {dataset.name} ({protocol.name})")
    print_reasons(done, said)
    if failed:
        raise BenchError(f"{len(failed)} of {total} runs failed: {', '.join(failed)}; the reasons stand above")
    if request.strict:
        _all_there(done)


class _Measures:
    """The metrics of every protocol, built once for all tokenizers: their networks are large."""

    def __init__(self, store: WeightStore, device: str) -> None:
        self._store = store
        self._device = torch.device(device)
        self._built: dict[tuple[str, int | None], tuple[list[Metric], list[Cell]]] = {}

    def of(self, protocol: Protocol, tokenizer: Tokenizer) -> tuple[list[Metric], list[Cell]]:
        """Metrics that can be measured here, and the cells that cannot."""
        size = tokenizer.card.codebook_size
        key = (protocol.sha256, size)
        if key not in self._built:
            self._built[key] = build_metrics(protocol, self._store, self._device, codebook_size=size)
        return self._built[key]

    def absent(self) -> dict[str, list[str]]:
        """Reasons for cells that are missed, each with the cells' names."""
        return reasons(asdict(cell) for _, absent in self._built.values() for cell in absent)


def _all_there(done: Sequence[dict[str, Any]]) -> None:
    absent = [f"{cell['name']} of {r['tokenizer']['spec']}" for r in done for cell in missing(r)]
    if absent:
        raise BenchError(f"--strict: {len(absent)} cells are absent: {', '.join(absent)}; the reasons stand above")


def _carry_out(plan: Plan, request: Request, console: Console) -> list[dict[str, Any]]:
    """One run; its record, if this process was the one to write it."""
    workers = default_workers() if request.workers is None else request.workers
    record = execute(plan, request.runs, share=request.share, workers=workers, console=console)
    if record is not None:
        print_record(record)
        return [record]
    if not request.share.merges:
        folder = plan.folder(request.runs)
        console.say(f"{folder}: this share is done; when all are, atoken-bench merge {folder}")
    return []


def merge_folder(folder: Path, *, strict: bool) -> None:
    """Write the record of a run whose shards plain processes have measured, and print its table.

    Raises:
        BenchError: no run there, shards are missing, or with `strict` a cell is absent.
    """
    try:
        request = json.loads((folder / REQUEST).read_bytes())["request"]
    except FileNotFoundError:
        raise BenchError(f"{folder}: no run in this folder ({REQUEST} is missing)") from None
    except (OSError, ValueError, KeyError) as error:
        raise BenchError(f"{folder / REQUEST}: not readable ({error}); run the same command again") from error
    settings = Settings(**{**request["settings"], "device": resolve(request["settings"]["device"])})
    use_numerics(settings)
    tokenizer = _create(request["tokenizer"], request["ckpt"], request["preset"], settings)
    protocol = Protocol.from_content(request["protocol"], str(folder / REQUEST))
    store = WeightStore([Path(path) for path in request["weights"]])
    metrics, absent = _Measures(store, settings.device).of(protocol, tokenizer)
    plan = Plan(
        experiment=request["experiment"],
        spec=_spec(request["tokenizer"], request["ckpt"]),
        tokenizer=tokenizer,
        dataset=_dataset(request["data"]),
        protocol=protocol,
        metrics=metrics,
        absent=absent,
        settings=settings,
        software=request["software"],  # what measured the shards, whatever merges them
        request=request,
    )
    now = plan.folder(Path()).name
    if now != folder.resolve().name:
        raise BenchError(f"{folder}: its tokenizer or dataset has changed (the run would be {now}); run it again")
    record = merge_only(plan, folder, Console())
    print_record(record)
    print_reasons([record], {})
    if strict:
        _all_there([record])


def _settings(request: Request) -> Settings:
    if request.dtype not in DTYPES:
        raise BenchError(f"--dtype {request.dtype}: not one of {', '.join(DTYPES)}")
    return Settings(
        device=resolve(request.device),
        dtype=request.dtype,
        threads=request.threads or default_threads(),
        token_budget=request.token_budget,
        shard_size=request.shard_size,
        limit=request.limit,
    )


def _dataset(text: str) -> ImageSource:
    name, _, location = text.partition("=")
    return open_images(name, location or None)


def _protocols(experiment: Experiment, name: str | None, problems: list[str]) -> list[Protocol]:
    if name == "all":
        names: Sequence[str] = experiment.protocols
    else:
        names = [name] if name else experiment.protocols[:1]
    return [p for n in names if (p := _try(problems, protocols.load, experiment.name, n))]


def _tokenizers(experiment: Experiment, request: Request, settings: Settings, problems: list[str]) -> list[_Row]:
    specs = request.tokenizers
    ckpt, preset = request.ckpt, request.preset
    if not specs:
        specs = ("atoken",) if ckpt else experiment.tokenizers
    if ckpt and len(specs) > 1:
        problems.append(f"--ckpt {ckpt}: which of {len(specs)} tokenizers is it for? Write --tokenizer NAME:CKPT")
        return []
    takers = [spec for spec in specs if spec.partition(":")[0] == "atoken" or len(specs) == 1]
    if preset and not takers:
        problems.append(f"--preset {preset}: none of {', '.join(specs)} is known to take it")
        return []
    rows = []
    for spec in specs:
        takes_preset = preset if spec in takers else None
        built = _try(problems, _create, spec, ckpt, takes_preset, settings)
        if built is not None:
            rows.append(_Row(spec, ckpt, takes_preset, built))
    return rows


def _create(spec: str, ckpt: str | None, preset: str | None, settings: Settings) -> Tokenizer:
    return registry.create_tokenizer(spec, ckpt=ckpt, preset=preset, device=settings.device, dtype=settings.dtype)


def _plan(
    experiment: Experiment,
    request: Request,
    row: _Row,
    *,
    settings: Settings,
    data: str,
    dataset: ImageSource,
    protocol: Protocol,
    measures: _Measures,
) -> Plan:
    tokenizer = row.tokenizer
    if tokenizer.needs_prepare:
        # What it finds on one set must not be what it starts from on the next.
        tokenizer = _create(row.spec, row.ckpt, row.preset, settings)
    metrics, absent = measures.of(protocol, tokenizer)
    name, *location = data.split("=", 1)
    software = {**provenance.software(), "tokenizer_source": registry.source_sha256(row.spec)}
    return Plan(
        experiment=experiment.name,
        spec=_spec(row.spec, row.ckpt),
        tokenizer=tokenizer,
        dataset=dataset,
        protocol=protocol,
        metrics=metrics,
        absent=absent,
        settings=settings,
        software=software,
        request={
            "experiment": experiment.name,
            "tokenizer": row.spec,
            "ckpt": None if row.ckpt is None else _absolute(row.ckpt),
            "preset": row.preset,
            "data": "=".join([name, *map(_absolute, location)]),
            "protocol": protocol.content(),
            "settings": settings.identity() | {"threads": settings.threads},
            "weights": [str(folder.resolve()) for folder in request.weights],
            "software": software,
        },
    )


def _absolute(path: str) -> str:
    """For `merge`, which may be called from another folder; a name that is no path stays as it is."""
    return str(Path(path).expanduser().resolve()) if Path(path).expanduser().exists() else path


def _spec(spec: str, ckpt: str | None) -> str:
    return spec if ckpt is None else f"{spec}:{ckpt}"


def _try(problems: list[str], function: Callable[..., T], *arguments: Any) -> T | None:
    """Call it; a problem that the user can mend joins the list, so that all are said at once."""
    try:
        return function(*arguments)
    except ATokenError as error:
        problems.append(str(error))
        return None
