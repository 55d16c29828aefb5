"""What an experiment of the paper is to the registry. Imports nothing heavy: `list` must be quick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Modality = Literal["image", "video", "asset"]
Subject = Literal["tokenizer", "embedder", "encoder"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fills:
    """Cells of a paper table that an experiment fills.

    Attributes:
        table: ``table04``, the stem of `reports/paper/*.csv`.
        group: dataset name -> first level of the column header (``imagenet-val`` -> ``ImageNet``);
            an empty header level is ``""``.
        columns: the record's cell name -> last level of the column header (``PSNR`` -> ``PSNR↑``).
    """

    table: str
    group: dict[str, str]
    columns: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """One experiment of the paper.

    Attributes:
        name: as on the command line, e.g. ``image-recon``.
        modality: what its samples are.
        subject: what its rows are: tokenizers, which reconstruct, or embedders (`harness.embedders.base`), or
            encoders: embedders whose vectors are compared with no text, so that they need no text tower.
        status: ``planned`` experiments are listed and cannot be run yet.
        fills: the paper's cells that its records fill.
        datasets: registry names it can run on; the first is the default.
        protocols: names below ``benchmarks/protocols/<name>/``; the first is the default.
        defaults: dataset -> default protocol, where it is another one.
        tokenizers: rows that run when the user names none.
        runner: ``module:function`` that runs it (imported late).
        needs: what a user must bring to fill the paper's cells, one line.
    """

    name: str
    title: str
    modality: Modality = "image"
    subject: Subject = "tokenizer"
    status: Literal["built", "planned"] = "planned"
    fills: tuple[Fills, ...] = ()
    datasets: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    defaults: Mapping[str, str] = field(default_factory=dict)
    tokenizers: tuple[str, ...] = ()
    runner: str | None = None
    needs: str = ""
