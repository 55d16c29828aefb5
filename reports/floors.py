"""Says of a tokenizer that it loses to a plain linear transform with as many numbers a patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reports.model import Line, Metric


def with_floors(lines: Sequence[Line], metrics: Sequence[Metric]) -> tuple[Line, ...]:
    """Add a badge to each measured tokenizer that a comparable transform beats, naming the metrics.

    Comparable: the same protocol, samples and n, the same patch, the same number of latent channels. A
    learned code that is worse than the first principal components has learned nothing in that metric.
    """
    return tuple(_judged(line, lines, metrics) for line in lines)


def _judged(line: Line, lines: Sequence[Line], metrics: Sequence[Metric]) -> Line:
    if line.record is None or line.record.kind == "reference":
        return line
    badges = []
    for other in lines:
        if other.record is not None and other.record.card.get("token_type") == "transform" and _same(line, other):
            lost = [
                metric.name
                for metric, mine, theirs in zip(metrics, line.figures, other.figures, strict=True)
                if mine.value is not None
                and theirs.value is not None
                and (mine.value < theirs.value if metric.higher_is_better else mine.value > theirs.value)
            ]
            if lost:
                badges.append(f"loses to {other.name} in {', '.join(lost)}")
    return replace(line, badges=(*line.badges, *badges))


def _same(line: Line, other: Line) -> bool:
    mine, theirs = line.record, other.record
    if mine is None or theirs is None:
        return False
    # Of an image, the frames that a token of a video would span say nothing.
    first = 0 if mine.modality == "video" else 1
    patches = [tuple(record.card.get("compression") or ())[first:] for record in (mine, theirs)]
    return (
        bool(patches[0])
        and patches[0] == patches[1]
        and mine.card.get("latent_size") == theirs.card.get("latent_size")
        and mine.protocol["sha256"] == theirs.protocol["sha256"]
        and mine.dataset["content_sha256"] == theirs.dataset["content_sha256"]
        and mine.used == theirs.used
    )
