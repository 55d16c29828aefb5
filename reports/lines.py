"""One row of a table: which figures it shows, what its name must say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.experiment import Experiment
from harness.weights import UNOFFICIAL
from reports import numbers, paper
from reports.model import Figure, Line, Metric
from reports.records import Record, RecordCell

SECTIONS = {
    "continuous": "Continuous tokenizers",
    "discrete": "Discrete tokenizers",
    "encoder": "Encoders",
    "reference": "Reference rows",
}
UNPRINTED = "Measured here, not in the paper: "

TIMES = (
    Metric(name="encode", higher_is_better=None, unit="ms", decimals=2),
    Metric(name="decode", higher_is_better=None, unit="ms", decimals=2),
    Metric(name="tokens/s", higher_is_better=None, unit="", decimals=0),
    Metric(name="peak memory", higher_is_better=None, unit="MB", decimals=0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What all rows of a panel share: its columns, the paper's table if it prints them, and the records in it."""

    experiment: Experiment
    table: paper.Table | None
    metrics: Sequence[Metric]
    further: Sequence[Metric]
    records: Sequence[Record]


def line(frame: Frame, row: paper.Row | None, record: Record | None) -> Line:
    """The row of a record, of a row of the paper, or of both where the record measures that row."""
    if row is not None and frame.table is not None:
        info = {column.header: value for column, value in zip(frame.table.columns, row.values, strict=True)}
        compression, token_type = info.get("Comp. Ratio", "-"), info.get("Token Type", "-")
        latent, name = info.get("Latent Size", info.get("Latent Channels", "-")), row.key
        section = row.group or "In the paper"
    elif record is not None:
        ratio, size = record.card.get("compression"), record.card.get("latent_size")
        compression = "-" if ratio is None else f"({', '.join(str(part) for part in ratio)})"
        latent, token_type = "-" if size is None else str(size), str(record.card.get("token_type", "-"))
        name = record.title
        section = (UNPRINTED if frame.table is not None else "") + SECTIONS[record.kind]
    else:
        raise ValueError("a line needs a row of the paper or a record")
    return Line(
        name=name,
        badges=() if record is None else badges(frame.experiment, record, frame.records),
        section=section,
        compression=compression,
        latent=latent,
        token_type=token_type,
        n="" if record is None else numbers.used_of(record.used, expected(record)),
        figures=tuple(_figure(frame, metric, row, record) for metric in frame.metrics),
        further=tuple(_figure(frame, metric, row, record) for metric in frame.further),
        record=record,
        row=row,
    )


def _figure(frame: Frame, metric: Metric, row: paper.Row | None, record: Record | None) -> Figure:
    printed, printed_best = None, False
    if frame.table is not None and row is not None and metric.column is not None:
        printed = frame.table.printed(row, metric.column)
        best = frame.table.best(metric.column, frame.table.block(row))
        printed_best = printed is not None and printed.value == best
    if record is None:
        return Figure(printed=printed, printed_best=printed_best)
    cell = told(record, metric.name) if metric in TIMES else _cell(record, metric.name)
    return Figure(printed=printed, printed_best=printed_best, cell=cell, used=record.used, expected=expected(record))


def _cell(record: Record, name: str) -> RecordCell | None:
    """The record's cell; where it was measured with unofficial weights alone, an absent one that says so."""
    cell = record.cell(name)
    if cell is None and (other := record.cell(name + UNOFFICIAL)) is not None:
        reason = f"measured with other weights than the published ones: see {other.name}"
        return replace(other, name=name, value=None, interval=None, absent=other.absent or reason)
    return cell


def told(record: Record, name: str) -> RecordCell | None:
    """What a record tells beside its cells, as a cell without interval."""
    time, memory = record.raw.get("time", {}), record.raw.get("memory", {})
    values = {
        "encode": time.get("encode_ms"),
        "decode": time.get("decode_ms"),
        "tokens/s": time.get("tokens_per_s"),
        "peak memory": None if not memory.get("peak_rss_bytes") else memory["peak_rss_bytes"] / 1e6,
    }
    value = values.get(name)
    absent = None if value is not None else "the record does not hold it"
    return RecordCell(
        name=name,
        value=None if value is None else float(value),
        interval=None,
        level=0.95,
        n=record.used,
        higher_is_better=False,
        unit="",
        absent=absent,
        parameters={},
    )


def expected(record: Record) -> int | None:
    """Samples that a figure of this record should stand for: the protocol's number, else the dataset's."""
    count = record.dataset.get("count")
    return record.expected if record.expected is not None else (None if count is None else int(count))


def default_protocol(experiment: Experiment, dataset: str) -> str:
    """The protocol that a run takes where the user names none; empty where the experiment has none."""
    first = experiment.protocols[0] if experiment.protocols else ""
    return experiment.defaults.get(dataset, first)


def badges(experiment: Experiment, record: Record, kept: Sequence[Record]) -> tuple[str, ...]:
    """What a row's name must say: another protocol than the default, too few samples, another precision."""
    said = []
    name, sha = str(record.protocol["name"]), str(record.protocol["sha256"])
    hashes = {str(other.protocol["sha256"]) for other in kept if other.protocol["name"] == name}
    if len(hashes) > 1:
        said.append(f"protocol {name} {sha[:8]}")
    elif name != default_protocol(experiment, str(record.dataset["name"])):
        said.append(f"protocol {name}")
    wanted = expected(record)
    if wanted is not None and record.used != wanted:
        said.append(f"n = {numbers.of_expected(record.used, wanted)}")
    if (dtype := str(record.settings.get("dtype", "float32")).removeprefix("torch.")) != "float32":
        said.append(dtype)
    twins = [other for other in kept if other.title == record.title and other.spec == record.spec]
    weights = record.card.get("weights_sha256") or {}
    if any(other.card.get("weights_sha256") != weights for other in twins) and weights:
        said.append("weights " + ", ".join(str(sha)[:8] for sha in weights.values()))
    settings = record.card.get("settings") or {}
    for key, value in settings.items():
        if any((other.card.get("settings") or {}).get(key) != value for other in twins):
            said.append(f"{key} {str(value)[:12]}")
    return tuple(said)
