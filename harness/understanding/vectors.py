"""Embeddings that outlive a run: another protocol on the same pixels, or another experiment, embeds nothing again.

A file holds the vectors of one shard's samples, in the form of a shard file (`harness.shards`), and is called by the
hash of all that they depend on. What a sample is stands in it as its dataset's name, its id and its stamp, as for the
shards of a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from harness import shards
from harness.plan import Plan, digest
from harness.shards import DamagedShard, Shard
from harness.storage import make_folder
from harness.workload import Failed, Measured

FOLDER = "embeddings"
"""Beside the runs: delete it whenever the room is wanted."""
VECTORS = "embedding"
_SAID = ("text", "title", "paper_row", "source")  # of a card: moves no vector of a sample
_ONLY_TEXTS = ("embed", "metrics", "bootstrap", "seed", "expected", "name", "title", "source", "version", "experiment")


class VectorStore:
    """Vectors by what they depend on.

    Args:
        folder: where they lie; None: nothing is kept and nothing is found.
    """

    def __init__(self, plan: Plan, folder: Path | None) -> None:
        self._plan = plan
        self._folder = folder
        self._basis = basis(plan)

    def key(self, indices: Sequence[int]) -> str:
        """Hash of what the vectors of these samples depend on."""
        dataset = self._plan.dataset
        return digest([self._basis, [[dataset.samples[index].id, dataset.stamp(index)] for index in indices]])

    def has(self, indices: Sequence[int]) -> bool:
        """Whether vectors of these samples were kept; `find` may still see that they are damaged."""
        return self._folder is not None and self._path(indices).is_file()

    def find(self, indices: Sequence[int]) -> Measured | None:
        """The vectors of these samples, with their labels of today; None where they are not there whole."""
        if self._folder is None:
            return None
        path = self._path(indices)
        try:
            shard = shards.read(path)
        except DamagedShard:
            path.unlink(missing_ok=True)  # made anew by whoever asked
            return None
        labels = {self._plan.dataset.samples[index].id: self._plan.dataset.samples[index].label for index in indices}
        return Measured(
            rows=[replace(row, label=labels[row.id]) for row in shard.rows],
            failed=[Failed(entry["id"], entry["reason"]) for entry in shard.failed],
            columns={},
            features=dict(shard.features),
        )

    def keep(self, indices: Sequence[int], measured: Measured) -> None:
        """Write the vectors of these samples.

        Raises:
            BenchError: the disk is full or read-only.
        """
        if self._folder is None:
            return
        path = self._path(indices)
        make_folder(path.parent)
        failed = [asdict(failure) for failure in measured.failed]
        shards.write(path, Shard(index=0, rows=measured.rows, failed=failed, columns={}, features=measured.features))

    def _path(self, indices: Sequence[int]) -> Path:
        assert self._folder is not None
        key = self.key(indices)
        return self._folder / key[:2] / f"{key}.safetensors"


def basis(plan: Plan) -> str:
    """Hash of what all vectors of a run depend on: the model, how pixels are made, what computes. Not the texts."""
    card: dict[str, Any] = asdict(plan.tokenizer.card)
    settings = plan.settings.identity()
    protocol, rules = plan.protocol.content(), plan.protocol.embed
    return digest(
        {
            "model": {name: value for name, value in card.items() if name not in _SAID},
            "settings": {name: settings[name] for name in ("device", "dtype", "threads", "token_budget")},
            "prepared": {name: value for name, value in protocol.items() if name not in _ONLY_TEXTS},
            "frames": None if rules is None else rules.frames,
            "dataset": plan.dataset.name,
            "software": {name: value for name, value in plan.software.items() if name != "texts"},
        }
    )
