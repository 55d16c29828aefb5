"""Runs an experiment: every tokenizer on every dataset under every protocol that was asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from atoken.errors import ATokenError
from harness.building import (
    Asked,
    Measures,
    attempt,
    dataset_of,
    plan_of,
    protocols_of,
    row_of,
    rows_of,
    settings_of,
)
from harness.console import Console, missing, print_reasons, print_record
from harness.data.base import Dataset
from harness.devices import resolve, use_numerics
from harness.errors import BenchError
from harness.execution import execute, merge_only
from harness.experiment import Experiment, Modality
from harness.plan import Plan, Settings
from harness.protocol import Protocol
from harness.records import REQUEST
from harness.request import Request, default_workers
from harness.storage import make_folder
from harness.understanding.texts import texts_of
from harness.weights import WeightStore


def run(experiment: Experiment, request: Request) -> None:
    """Carry out an experiment and print each record's table.

    Raises:
        BenchError: something is missing (all of it is said at once), a run fails, or with `strict` a cell
            is absent.
    """
    settings = settings_of(request, experiment.modality)
    problems: list[str] = []
    texts = request.data or experiment.datasets[:1]
    opened = [attempt(problems, dataset_of, experiment.modality, text, request.only) for text in texts]
    # Of a dataset that does not open, its protocol may still be one that the user can mend.
    asked = [protocols_of(experiment, text.partition("=")[0], request.protocol, problems) for text in texts]
    rows = rows_of(experiment, request, settings, problems)
    attempt(problems, make_folder, request.runs)
    problems += [f"--weights {folder}: no such folder" for folder in request.weights if not folder.is_dir()]
    use_numerics(settings)
    measures = Measures(experiment.modality, WeightStore(request.weights), settings.device)
    for protocol in chain.from_iterable(asked):
        for row in rows:
            attempt(problems, measures.of, protocol, row.tokenizer)
    _ask_texts(zip(opened, asked, strict=True), problems)
    if problems:
        raise BenchError("\n".join(dict.fromkeys(problems)))
    datasets = [dataset for dataset in opened if dataset is not None]
    sets = [
        (text, dataset, protocol)
        for text, dataset, protocols in zip(texts, datasets, asked, strict=True)
        for protocol in protocols
    ]
    console = Console(speaks=request.share.index == 0)
    for dataset in datasets:
        for note in dataset.notes:
            console.note(f"{dataset.name}: {note}")
    said = measures.absent()
    for reason, names in said.items():
        console.note(f"absent {', '.join(names)}: {reason}")

    done: list[dict[str, Any]] = []
    failed: list[str] = []
    total = len(rows) * len(sets)
    while rows:
        row = rows.pop(0)  # its memory is free once its runs are done
        for text, dataset, protocol in sets:
            try:
                plan = plan_of(
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
                console.say(f"{row.asked.spec} failed: {error}")
                failed.append(f"{row.asked.spec} on {dataset.name} ({protocol.name})")
    print_reasons(done, said)
    if failed:
        raise BenchError(f"{len(failed)} of {total} runs failed: {', '.join(failed)}; the reasons stand above")
    if request.strict:
        _all_there(done)


def _ask_texts(asked: Iterable[tuple[Dataset | None, Sequence[Protocol]]], problems: list[str]) -> None:
    """Whether every dataset has what an experiment on embeddings compares it with."""
    for dataset, protocols in asked:
        for protocol in protocols:
            if dataset is not None and protocol.embed is not None:
                attempt(problems, texts_of, dataset, protocol)


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
    record = merge_only(planned(folder), folder, Console())
    print_record(record)
    print_reasons([record], {})
    if strict:
        _all_there([record])


def planned(folder: Path) -> Plan:
    """The plan of a run that has begun, from what it was asked for; sets torch's numerics as the run did.

    Raises:
        BenchError: no run there, or its tokenizer, its dataset or its device is not what it was.
    """
    try:
        request = json.loads((folder / REQUEST).read_bytes())["request"]
    except FileNotFoundError:
        raise BenchError(f"{folder}: no run in this folder ({REQUEST} is missing)") from None
    except (OSError, ValueError, KeyError) as error:
        raise BenchError(f"{folder / REQUEST}: not readable ({error}); run the same command again") from error
    settings = Settings(**{**request["settings"], "device": resolve(request["settings"]["device"])})
    use_numerics(settings)
    modality: Modality = request["modality"]
    asked = Asked(**request["tokenizer"])
    # A run that began before there were embedders does not say what it is of.
    tokenizer = row_of(request.get("subject", "tokenizer"), modality, asked, settings)
    protocol = Protocol.from_content(request["protocol"], str(folder / REQUEST))
    store = WeightStore([Path(path) for path in request["weights"]])
    metrics, absent = Measures(modality, store, settings.device).of(protocol, tokenizer)
    plan = Plan(
        experiment=request["experiment"],
        spec=asked.full,
        tokenizer=tokenizer,
        dataset=dataset_of(modality, request["data"], request["list"] and Path(request["list"])),
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
    return plan
