"""Builds what a request names: datasets, protocols, tokenizers, metrics; says all that is wrong at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from atoken.errors import ATokenError
from harness import protocol as protocols
from harness import provenance, registry
from harness.asset_views import drawing_software
from harness.console import reasons
from harness.data.base import Dataset
from harness.data.catalog import open_dataset
from harness.data.subsets import subset
from harness.devices import resolve
from harness.errors import BenchError
from harness.experiment import Experiment, Modality, Subject
from harness.metrics.base import Aggregated, Cell
from harness.metrics.registry import build_asset_metrics, build_clip_metrics, build_metrics
from harness.plan import Plan, Settings
from harness.protocol import Protocol
from harness.request import DTYPES, SHARD_SIZES, Request, default_threads
from harness.tokenizers.asset import AssetTokenizer
from harness.tokenizers.base import Evaluated, Tokenizer, TokenizerCard
from harness.tokenizers.frames import FrameByFrame
from harness.tokenizers.video import VideoTokenizer
from harness.understanding.measures import build_embedding_metrics
from harness.understanding.separability import build_structure_metrics
from harness.understanding.texts import textless, texts_software
from harness.weights import WeightStore

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A tokenizer or embedder as the user asked for it; see `harness.registry.create_tokenizer`."""

    spec: str
    ckpt: str | None = None
    preset: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def full(self) -> str:
        """The spec with its checkpoint."""
        return self.spec if self.ckpt is None else f"{self.spec}:{self.ckpt}"


@dataclass(frozen=True, slots=True)
class Row:
    """A tokenizer or an embedder to run."""

    asked: Asked
    tokenizer: Evaluated


class Measures:
    """The metrics of every protocol, built once for all tokenizers: their networks are large."""

    def __init__(self, modality: Modality, store: WeightStore, device: str) -> None:
        self._modality = modality
        self._store = store
        self._device = torch.device(device)
        self._built: dict[tuple[str, int | str | None], tuple[Sequence[Aggregated], list[Cell]]] = {}

    def of(self, protocol: Protocol, tokenizer: Evaluated) -> tuple[Sequence[Aggregated], list[Cell]]:
        """Metrics that can be measured here, and the cells that cannot."""
        if protocol.structure is not None:
            return build_structure_metrics(protocol)
        if protocol.embed is not None:
            return build_embedding_metrics(protocol)
        if self._modality == "asset":
            unrendered = tokenizer.unrendered if isinstance(tokenizer, AssetTokenizer) else None
            if (protocol.sha256, unrendered) not in self._built:
                measured = build_asset_metrics(protocol, self._store, self._device, unrendered=unrendered)
                self._built[protocol.sha256, unrendered] = measured
            return self._built[protocol.sha256, unrendered]
        card = tokenizer.card
        size = card.codebook_size if isinstance(card, TokenizerCard) else None
        key = (protocol.sha256, size)
        if key not in self._built:
            build = build_clip_metrics if self._modality == "video" else build_metrics
            self._built[key] = build(protocol, self._store, self._device, codebook_size=size)
        return self._built[key]

    def absent(self) -> dict[str, list[str]]:
        """Reasons for cells that are missed, each with the cells' names."""
        return reasons(asdict(cell) for _, absent in self._built.values() for cell in absent)


def settings_of(request: Request, modality: Modality) -> Settings:
    """The request's settings with the machine's and the modality's defaults.

    Raises:
        BenchError: an unknown dtype, or a device that is not here.
    """
    if request.dtype not in DTYPES:
        raise BenchError(f"--dtype {request.dtype}: not one of {', '.join(DTYPES)}")
    return Settings(
        device=resolve(request.device),
        dtype=request.dtype,
        threads=request.threads or default_threads(),
        token_budget=request.token_budget,
        shard_size=request.shard_size or SHARD_SIZES[modality],
        limit=request.limit,
    )


def dataset_of(modality: Modality, text: str, only: Path | None) -> Dataset:
    """The dataset ``NAME`` or ``NAME=PATH``, or those of its samples whose ids are in a file.

    Raises:
        BenchError: it cannot be opened, or the file names what it has not.
    """
    name, _, location = text.partition("=")
    dataset = open_dataset(modality, name, location or None)
    return dataset if only is None else subset(dataset, only)


def _options(texts: Sequence[str], problems: list[str]) -> dict[str, str]:
    options = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key.isidentifier():
            problems.append(f"--option {text}: write KEY=VALUE")
            continue
        options[key] = value
    return options


def protocols_of(experiment: Experiment, dataset: str, name: str | None, problems: list[str]) -> list[Protocol]:
    """The protocols that were asked for: by name, all, or the dataset's default. A renderer that one of them wants and
    that is not here is a problem."""
    if name == "all":
        names: Sequence[str] = experiment.protocols
    else:
        names = [name or experiment.defaults.get(dataset, experiment.protocols[0])]
    found = [p for n in names if (p := attempt(problems, protocols.load, experiment.name, n))]
    if experiment.modality == "asset":
        for protocol in found:
            attempt(problems, drawing_software, protocol.prepare, protocol.name)
    return found


def rows_of(experiment: Experiment, request: Request, settings: Settings, problems: list[str]) -> list[Row]:
    """The tokenizers that were asked for, or the experiment's own; those that cannot be built are problems."""
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
    options = _options(request.options, problems)
    if options and not takers:
        problems.append(f"--option {request.options[0]}: none of {', '.join(specs)} is known to take it")
        return []
    rows = []
    for spec in specs:
        asked = Asked(spec=spec, ckpt=ckpt)
        if spec in takers:
            asked = replace(asked, preset=preset, options=options)
        built = attempt(problems, row_of, experiment.subject, experiment.modality, asked, settings)
        if built is not None:
            rows.append(Row(asked, built))
    return rows


def row_of(subject: Subject, modality: Modality, asked: Asked, settings: Settings) -> Evaluated:
    """Build a tokenizer or an embedder for samples of a modality.

    Raises:
        BenchError: see `harness.registry.create_tokenizer`; an embedder whose vectors no text can be compared with.
    """
    if subject != "tokenizer":
        embedder = registry.create_embedder(
            asked.spec,
            ckpt=asked.ckpt,
            preset=asked.preset,
            options=asked.options,
            device=settings.device,
            dtype=settings.dtype,
        )
        if embedder.card.text is None and subject == "embedder":
            raise textless(embedder)
        return embedder
    tokenizer = registry.create_tokenizer(
        asked.spec,
        ckpt=asked.ckpt,
        preset=asked.preset,
        options=asked.options,
        device=settings.device,
        dtype=settings.dtype,
    )
    # An image tokenizer has a row among videos too: each frame on its own, as its title then says.
    if modality == "video" and isinstance(tokenizer, Tokenizer) and not isinstance(tokenizer, VideoTokenizer):
        return FrameByFrame(tokenizer)
    return tokenizer


def plan_of(
    experiment: Experiment,
    request: Request,
    row: Row,
    *,
    settings: Settings,
    data: str,
    dataset: Dataset,
    protocol: Protocol,
    measures: Measures,
) -> Plan:
    """One run of one row."""
    tokenizer = row.tokenizer
    if tokenizer.needs_prepare:
        # What it finds on one set must not be what it starts from on the next.
        tokenizer = row_of(experiment.subject, experiment.modality, row.asked, settings)
    metrics, absent = measures.of(protocol, tokenizer)
    name, *location = data.split("=", 1)
    asked = row.asked
    software = {**provenance.software(), "tokenizer_source": registry.source_sha256(asked.spec)}
    if experiment.modality == "asset":
        software |= drawing_software(protocol.prepare, protocol.name)
    if protocol.embed is not None:
        software |= texts_software(dataset, protocol)
    if protocol.structure is not None:
        software |= {"structure": provenance.packages(("scikit-learn", "transformers", "open_clip_torch", "timm"))}
    return Plan(
        experiment=experiment.name,
        spec=asked.full,
        tokenizer=tokenizer,
        dataset=dataset,
        protocol=protocol,
        metrics=metrics,
        absent=absent,
        settings=settings,
        software=software,
        request={
            "experiment": experiment.name,
            "subject": experiment.subject,
            "modality": experiment.modality,
            "tokenizer": {**asdict(asked), "ckpt": None if asked.ckpt is None else _absolute(asked.ckpt)},
            "data": "=".join([name, *map(_absolute, location)]),
            "list": None if request.only is None else str(request.only.resolve()),
            "protocol": protocol.content(),
            "settings": settings.identity() | {"threads": settings.threads},
            "weights": [str(folder.resolve()) for folder in request.weights],
            "software": software,
        },
    )


def _absolute(path: str) -> str:
    """For `merge`, which may be called from another folder; a name that is no path stays as it is."""
    return str(Path(path).expanduser().resolve()) if Path(path).expanduser().exists() else path


def attempt(problems: list[str], function: Callable[..., T], *arguments: Any) -> T | None:
    """Call it; a problem that the user can mend joins the list, so that all are said at once."""
    try:
        return function(*arguments)
    except ATokenError as error:
        problems.append(str(error))
        return None
