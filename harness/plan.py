"""What one run is: everything its figures depend on, the key of its folder and the hash of its shards."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.fingerprint import ids_sha256
from harness.errors import BenchError
from harness.protocol import Protocol

if TYPE_CHECKING:
    from harness.data.base import Dataset
    from harness.metrics.base import Aggregated, Cell
    from harness.tokenizers.base import Evaluated


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How a run is carried out, as far as it may move a bit.

    Attributes:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: what the tokenizer computes in.
        threads: of torch on the CPU. Part of a CPU run's identity, since sums are split by it.
        token_budget: most tokens in one pack.
        shard_size: samples in a shard.
        limit: the first so many samples of the dataset, None for all.
    """

    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 1
    token_budget: int = 4096
    shard_size: int = 64
    limit: int | None = None

    def identity(self) -> dict[str, Any]:
        kind = self.device.partition(":")[0]
        return {**asdict(self), "device": kind, "threads": self.threads if kind == "cpu" else None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Which shards a process measures: every `count`-th, from `index` on.

    Attributes:
        merges: whether the process that finds all shards done writes the record.
    """

    index: int = 0
    count: int = 1
    merges: bool = True

    def of(self, shards: int) -> range:
        return range(self.index, shards, self.count)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One experiment on one tokenizer or embedder, one dataset and one protocol.

    Attributes:
        spec: the tokenizer as the user wrote it.
        tokenizer: it, or the embedder.
        request: what another process needs to build the same plan (``merge``); plain data.
        metrics: those that can be measured here.
        absent: cells that cannot, with their reasons.
        software: code and packages that compute the numbers (see `harness.provenance.software`).
    """

    experiment: str
    spec: str
    tokenizer: Evaluated
    dataset: Dataset
    protocol: Protocol
    metrics: Sequence[Aggregated]
    settings: Settings
    absent: Sequence[Cell] = ()
    software: dict[str, Any] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Taken before `Tokenizer.prepare` changes the card: the folder must be known before the search.
        object.__setattr__(self, "_card", asdict(self.tokenizer.card))

    _card: dict[str, Any] = field(init=False, repr=False)

    @cached_property
    def selected(self) -> int:
        limit = self.settings.limit
        return len(self.dataset) if limit is None else min(limit, len(self.dataset))

    @cached_property
    def ids_sha256(self) -> str:
        return ids_sha256(sample.id for sample in self.dataset.samples[: self.selected])

    @cached_property
    def key(self) -> str:
        """Hash of `identity`."""
        return digest(self.identity())

    @property
    def expected(self) -> int | None:
        """How many samples the paper's figure stands for: the protocol's word, else the dataset's own count."""
        return self.protocol.expected.get(self.dataset.name, self.dataset.expected)

    @property
    def shards(self) -> int:
        return -(-self.selected // self.settings.shard_size)

    def indices(self, shard: int) -> range:
        """Positions in the dataset's order that a shard holds."""
        size = self.settings.shard_size
        return range(shard * size, min((shard + 1) * size, self.selected))

    def identity(self) -> dict[str, Any]:
        """What was asked for. Equal requests share a folder, so that a new start finds what the last one left."""
        return {
            "experiment": self.experiment,
            "protocol": self.protocol.sha256,
            "tokenizer": self._card,
            "dataset": [self.dataset.name, self.ids_sha256],
            "settings": self.settings.identity(),
        }

    def folder(self, runs: Path) -> Path:
        names = (self.tokenizer.card.name, self.dataset.name, self.protocol.name, self.key[:8])
        return runs / self.experiment / "--".join(slug(name) for name in names)

    @cached_property
    def basis(self) -> str:
        """Hash of what the samples' results depend on: what was asked, and what it is computed with.

        A finished shard stands only while this is the same; the folder does not move with it, so that
        weights that turn up later or an update replace the record rather than set another beside it.
        """
        return digest(
            {
                **self.identity(),
                "stamps": digest([self.dataset.stamp(index) for index in range(self.selected)]),
                "metrics": [[type(m).__qualname__, list(m.columns), dict(m.weights)] for m in self.metrics],
                "software": self.software,
            }
        )

    def weights(self) -> dict[str, str]:
        """SHA-256 of every weights file that a metric measures with."""
        return {name: sha256 for metric in self.metrics for name, sha256 in metric.weights.items()}

    def shard_name(self, shard: int, settings_found: dict[str, Any] | None) -> str:
        """File name of a shard; `settings_found` is what `Tokenizer.prepare` found on this set."""
        sha256 = digest([self.basis, settings_found, shard])
        return f"{shard:05d}-of-{self.shards:05d}.{sha256[:12]}.safetensors"


def digest(data: Any) -> str:
    """SHA-256 of plain data as canonical JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sample_seed(seed: int, sample_id: str) -> int:
    """The seed of one sample's latent, below 2**63: from the protocol's seed and the id, not from any order."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{sample_id}".encode()).digest()[:8], "big") >> 1


def slug(name: str) -> str:
    """A folder name from any text: no separator of paths, none of our own ``--``, no hidden file."""
    clean = re.sub(r"-{2,}", "-", re.sub(r"[^A-Za-z0-9_.@+-]+", "-", name)).strip("-.")
    if not clean:
        raise BenchError(f"{name!r} cannot name a folder; use letters and digits")
    return clean[:80]
