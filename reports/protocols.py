"""How far the choice of protocol alone moves each figure of a tokenizer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from harness.experiment import Experiment
from reports.model import Metric
from reports.records import Record
from reports.tables import metric_of, newest


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadRow:
    """One tokenizer: a value for each protocol (None: not measured or absent) and how far apart they are.

    ``spread`` is largest - smallest over the finite values; None where fewer than two are finite or
    they stand for different numbers of samples (then the difference is not the protocol's alone).
    """

    name: str
    records: tuple[Record | None, ...]
    values: tuple[float | None, ...]
    spread: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One metric of one dataset: rows of tokenizers, columns of protocols."""

    metric: Metric
    protocols: tuple[str, ...]
    rows: tuple[SpreadRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolPanel:
    """Every metric that a dataset was measured with under several protocols.

    Attributes:
        definitions: each protocol's name and what tells it apart from the others.
    """

    title: str
    n: tuple[int, ...]
    definitions: tuple[tuple[str, str], ...]
    spreads: tuple[Spread, ...]


def spreads(experiment: Experiment, records: Iterable[Record]) -> list[ProtocolPanel]:
    """A panel for each dataset on which some tokenizer was measured under two protocols or more."""
    sets: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record.experiment == experiment.name:
            sets.setdefault((str(record.dataset["title"]), str(record.dataset["ids_sha256"])), []).append(record)
    panels = []
    for (title, _), here in sorted(sets.items()):
        tokenizers: dict[tuple[str, ...], dict[str, Record]] = {}
        for record in sorted(newest(here), key=lambda record: (record.used, record.finished)):
            tokenizers.setdefault(record.tokenizer_key, {})[_protocol(record, here)] = record
        several = {key: runs for key, runs in tokenizers.items() if len(runs) > 1}
        if several:
            panels.append(_panel(experiment, title, list(several.values())))
    return panels


def _protocol(record: Record, among: Iterable[Record]) -> str:
    """The protocol's name, with its hash where two versions of one name are there."""
    name = str(record.protocol["name"])
    hashes = {other.protocol["sha256"] for other in among if other.protocol["name"] == name}
    return name if len(hashes) == 1 else f"{name} {str(record.protocol['sha256'])[:8]}"


def _panel(experiment: Experiment, title: str, tokenizers: list[dict[str, Record]]) -> ProtocolPanel:
    records = [record for runs in tokenizers for record in runs.values()]
    known = [name for name in experiment.protocols if any(name in runs for runs in tokenizers)]
    protocols = tuple(dict.fromkeys([*known, *sorted(name for runs in tokenizers for name in runs)]))
    result = []
    for name in dict.fromkeys(cell.name for record in records for cell in record.cells):
        rows = [_row(name, protocols, runs) for runs in tokenizers]
        rows = [row for row in rows if sum(value is not None for value in row.values) > 1]
        if rows:
            result.append(Spread(metric=metric_of(records, name), protocols=protocols, rows=tuple(rows)))
    by_name = {name: record for runs in tokenizers for name, record in runs.items()}
    return ProtocolPanel(
        title=title,
        n=tuple(sorted({record.used for record in records})),
        definitions=tuple((name, _definition(by_name[name])) for name in protocols),
        spreads=tuple(result),
    )


def _definition(record: Record) -> str:
    content = record.protocol["content"]
    if embed := content.get("embed"):
        # Nothing is reconstructed: latent and 8-bit rule play no part.
        templates = embed.get("templates")
        parts = [content.get("prepare"), f"templates {templates}" if templates else "captions as they are"]
    else:
        parts = [content.get("prepare"), f"latent {content.get('latent')}", f"8 bit {content.get('eight_bit')}"]
    if clip := content.get("clip"):
        limits = ((clip.get("first_frames"), "frames"), (clip.get("first_seconds"), "s"))
        longest = [f"{limit:g} {unit}" for limit, unit in limits if limit]
        more = " (whichever is more)" if len(longest) > 1 else ""
        parts.append(f"frames {clip.get('frames')}" + (f", the first {' or '.join(longest)}{more}" if longest else ""))
    if asset := content.get("asset"):
        parts.append(f"made of {asset.get('input_views')} views of {asset.get('input_size')} pixels a side")
        parts.append(f"measured in {asset.get('views')} views of {asset.get('size')}")
        grounds = [f"{m.get('name')} on {m['background']}" for m in content.get("metrics", ()) if "background" in m]
        parts += grounds[:1]
    return ", ".join(str(part) for part in parts)


def _row(name: str, protocols: tuple[str, ...], runs: dict[str, Record]) -> SpreadRow:
    records = tuple(runs.get(protocol) for protocol in protocols)
    cells = [None if record is None else record.cell(name) for record in records]
    values = tuple(None if cell is None else cell.value for cell in cells)
    finite = [value for value in values if value is not None and math.isfinite(value)]
    same_n = len({cell.n for cell in cells if cell is not None and cell.value is not None}) == 1
    first = next(record for record in records if record is not None)
    return SpreadRow(
        name=first.title,
        records=records,
        values=values,
        spread=max(finite) - min(finite) if len(finite) > 1 and same_n else None,
    )
