"""Read the records that runs left behind: strictly, and without anything heavy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import BenchError
from harness.records import NAME, REQUEST, load
from reports.entries import AssetPicture, ClipPicture, Guess, Picture, read_asset, read_clip, read_guess, read_picture

SAMPLES = "samples.parquet"
FRAMES = "frames.parquet"

# Rows that are there to be compared with: no tokenizer, so they are never ranked among tokenizers.
REFERENCE_TYPES = ("none", "codec", "transform")
DISCRETE_TYPES = ("VQ", "RQ", "MCQ", "FSQ")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordCell:
    """One figure of a record, or the reason why there is none (see `harness.metrics.base.Cell`)."""

    name: str
    value: float | None
    interval: tuple[float, float] | None
    level: float
    n: int
    higher_is_better: bool
    unit: str
    absent: str | None
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A run's ``record.json``.

    Attributes:
        folder: the run's folder, where the evidence lies.
        gallery, clips, assets: what it shows of its images, of its videos or of its assets that were reconstructed.
        guesses: what it shows of samples that were put into classes.
        raw: the record as it was read, for whoever wants a field that has no name here.
    """

    folder: Path
    experiment: str
    spec: str
    card: Mapping[str, Any]
    protocol: Mapping[str, Any]
    dataset: Mapping[str, Any]
    samples: Mapping[str, Any]
    settings: Mapping[str, Any]
    cells: tuple[RecordCell, ...]
    gallery: tuple[Picture, ...]
    clips: tuple[ClipPicture, ...]
    assets: tuple[AssetPicture, ...]
    guesses: tuple[Guess, ...]
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def title(self) -> str:
        """The tokenizer as a reader sees it."""
        return str(self.card.get("title") or self.card.get("name") or self.spec)

    @property
    def modality(self) -> str:
        """``image``, ``video`` or ``asset``."""
        return str(self.raw.get("modality", "image"))

    @property
    def kind(self) -> str:
        """``continuous``, ``discrete``, ``encoder`` (samples are embedded) or ``reference`` (no tokenizer at all)."""
        return kind_of(self.card)

    @property
    def tokenizer_key(self) -> tuple[str, ...]:
        """Two records with the same key measured the same tokenizer: spec, name, weights and precision.

        Not its card's settings: those may be found for each protocol (the quality of ``jpeg@BPP``).
        """
        weights = json.dumps(self.card.get("weights_sha256", {}), sort_keys=True)
        return (self.spec, str(self.card.get("name")), weights, str(self.settings.get("dtype")))

    @property
    def understanding(self) -> bool:
        """Whether samples were embedded, and not reconstructed."""
        return self.kind == "encoder"

    @property
    def side(self) -> int | None:
        """Of the square images that were embedded, the paper's column "Res."; None where the protocol has none."""
        side = (self.protocol["content"].get("embed") or {}).get("side")
        return None if side is None else int(side)

    @property
    def used(self) -> int:
        """Samples that went into the figures."""
        return int(self.samples["used"])

    @property
    def expected(self) -> int | None:
        """Samples that the protocol wants; None where it fixes no number."""
        value = self.samples.get("expected")
        return None if value is None else int(value)

    @property
    def finished(self) -> str:
        """ISO time at which the run ended; sorts as text."""
        return str(self.raw.get("time", {}).get("finished", ""))

    def cell(self, name: str) -> RecordCell | None:
        """The cell of that name, None where the protocol does not measure it."""
        return next((cell for cell in self.cells if cell.name == name), None)


def kind_of(card: Mapping[str, Any]) -> str:
    """`Record.kind` by a card."""
    if "width" in card:  # of its vectors
        return "encoder"
    token_type = card.get("token_type")
    if token_type in REFERENCE_TYPES:
        return "reference"
    return "discrete" if token_type in DISCRETE_TYPES else "continuous"


def read_all(runs: Path) -> list[Record]:
    """Every record below ``runs``, in the order of their folders' names.

    Raises:
        BenchError: the folder is missing, or a record in it cannot be read; names the file and the mend.
    """
    if not runs.is_dir():
        raise BenchError(f"{runs}: no such folder of runs; `atoken-bench run image-recon` makes one")
    return [read(path) for path in sorted(runs.rglob(NAME))]


def unfinished(runs: Path) -> list[Path]:
    """Folders of runs that began and have no record yet, sorted."""
    return sorted(path.parent for path in runs.rglob(REQUEST) if not (path.parent / NAME).exists())


def read(path: Path) -> Record:
    """Read one ``record.json``.

    Raises:
        BenchError: not JSON, of a newer schema, or a field that the report needs is missing.
    """
    raw = load(path)
    try:
        return _record(path.parent, raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"missing {error}" if isinstance(error, KeyError) else str(error)
        raise BenchError(f"{path}: damaged record ({what}); run it again or remove the folder") from None


_OTHERS = {"video", "views", "predicted"}
"""Keys that entries of a gallery have which are no reconstructed image."""


def _record(folder: Path, raw: dict[str, Any]) -> Record:
    return Record(
        folder=folder,
        experiment=raw["experiment"],
        spec=raw["tokenizer"]["spec"],
        card=dict(raw["tokenizer"]["card"]),
        protocol=_with(raw["protocol"], "name", "sha256", "content"),
        dataset=_with(raw["dataset"], "name", "title", "ids_sha256", "content_sha256"),
        samples=_with(raw["samples"], "used", "failed"),
        settings=dict(raw["settings"]),
        cells=tuple(_cell(cell) for cell in raw["cells"]),
        gallery=tuple(read_picture(folder, entry) for entry in raw["gallery"] if not _OTHERS & entry.keys()),
        clips=tuple(read_clip(folder, entry) for entry in raw["gallery"] if _OTHERS & entry.keys() == {"video"}),
        assets=tuple(read_asset(folder, entry) for entry in raw["gallery"] if "views" in entry),
        guesses=tuple(read_guess(folder, entry) for entry in raw["gallery"] if "predicted" in entry),
        raw=raw,
    )


def _with(mapping: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    for key in keys:
        mapping[key]  # the KeyError names the field
    return dict(mapping)


def _cell(cell: Mapping[str, Any]) -> RecordCell:
    value = None if cell["value"] is None else float(cell["value"])
    if value is None and not cell["absent"]:
        raise ValueError(f"cell {cell['name']} has neither a value nor a reason")
    if value is not None and math.isnan(value):
        raise ValueError(f"cell {cell['name']} is not a number")
    interval = None if cell["interval"] is None else (float(cell["interval"][0]), float(cell["interval"][1]))
    return RecordCell(
        name=str(cell["name"]),
        value=value,
        interval=interval,
        level=float(cell["level"]),
        n=int(cell["n"]),
        higher_is_better=bool(cell["higher_is_better"]),
        unit=str(cell["unit"]),
        absent=cell["absent"],
        parameters=dict(cell["parameters"]),
    )
