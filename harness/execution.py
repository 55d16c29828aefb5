"""Carries out one plan: measures this process's shards, skips those that stand, merges when all are done."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from harness import provenance, records, shards
from harness.console import Console
from harness.errors import BenchError
from harness.merge import merge
from harness.plan import Plan, Share
from harness.storage import FolderLock, make_folder, write_atomically
from harness.understanding.vectors import FOLDER as EMBEDDINGS
from harness.workload import Measured, workload


def execute(plan: Plan, runs: Path, *, share: Share, workers: int, console: Console) -> dict[str, Any] | None:
    """Measure this process's share of a run and, where it is the last to finish, write the record.

    Args:
        runs: folder below which the run's own folder lies.
        workers: processes that decode images.

    Returns:
        The record, or None where other processes still have shards to do or the merge is another's.

    Raises:
        BenchError: nothing to measure, a folder that cannot be written, another run that writes there.
    """
    if not plan.selected:
        raise BenchError(f"dataset {plan.dataset.name}: no samples; check its path and --limit")
    folder = plan.folder(runs)
    make_folder(folder / "shards")
    before = _written(folder)
    with FolderLock(folder) as lock:
        mine = share.of(plan.shards)
        lock.claim_shards(mine)
        execution = _Execution(plan, folder, workers, console, runs / EMBEDDINGS)
        execution.find_settings(lock)
        execution.sweep(mine)
        execution.measure(mine)
        if not share.merges:
            return None
        lock.wait_for(FolderLock.MERGE)
        if missing := execution.missing():
            console.say(f"{folder}: {len(missing)} shards are with other processes; the last one writes the record")
            return None
        if share.count > 1 and _written(folder) != before:
            return None  # another process was the last, and has written it while this one waited
        return merge(plan, folder, execution.found, execution.work)


def merge_only(plan: Plan, folder: Path, console: Console) -> dict[str, Any]:
    """Write the record of shards that plain processes measured (``--shard i/n``).

    Raises:
        BenchError: shards are missing or still being written; says which and how to get them.
    """
    with FolderLock(folder) as lock:
        lock.claim_shards(range(plan.shards))
        execution = _Execution(plan, folder, 0, console)
        execution.restore_settings()
        for shard in range(plan.shards):
            execution.stands(shard)
        if missing := execution.missing():
            raise BenchError(
                f"{folder}: {len(missing)} of {plan.shards} shards are missing (first: {missing[0]}); start those "
                "shares again, then merge"
            )
        return merge(plan, folder, execution.found, execution.work)


def _written(folder: Path) -> int | None:
    try:
        return (folder / records.NAME).stat().st_mtime_ns
    except FileNotFoundError:
        return None


class _Execution:
    """A plan in its folder.

    Attributes:
        found: settings that the tokenizer found on this set, as JSON has them (so that a shard's hash is
            the same in this start and the next); None for tokenizers that look for none.
    """

    def __init__(self, plan: Plan, folder: Path, workers: int, console: Console, cache: Path | None = None) -> None:
        self.plan = plan
        self.folder = folder
        self.console = console
        self.work = workload(plan, workers, cache)
        self.found: dict[str, Any] | None = None

    def find_settings(self, lock: FolderLock) -> None:
        """Let a tokenizer that is fitted to the set look at it, once for all processes and later starts."""
        lock.wait_for(FolderLock.PREPARE)
        try:
            tokenizer = self.plan.tokenizer
            if tokenizer.needs_prepare and not self._restored():
                self.console.say(
                    f"{tokenizer.card.name}: looks at {self.plan.selected} {self.work.unit} for its settings"
                )
                self.work.look()
                self.found = dict(json.loads(json.dumps(tokenizer.card.settings)))
            content = {
                "schema": 1,
                "request": self.plan.request,
                "identity": self.plan.identity(),
                "found": None if self.found is None else {"basis": self.plan.basis, "settings": self.found},
            }
            write_atomically(self.folder / records.REQUEST, json.dumps(content, indent=1).encode())
        finally:
            lock.release(FolderLock.PREPARE)

    def restore_settings(self) -> None:
        """Take the settings that the measuring processes found.

        Raises:
            BenchError: there are none yet.
        """
        if self.plan.tokenizer.needs_prepare and not self._restored():
            raise BenchError(f"{self.folder}: no process has found the tokenizer's settings on this set yet; run it")

    def _restored(self) -> bool:
        path = self.folder / records.REQUEST
        try:
            stored = json.loads(path.read_bytes())["found"]
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchError(f"{path}: not readable ({error}); delete the file and run again") from error
        if not stored or stored["basis"] != self.plan.basis:
            return False  # found on other samples, or by other code
        self.found = dict(stored["settings"])
        self.plan.tokenizer.restore(self.found)
        return True

    def path(self, shard: int) -> Path:
        return self.folder / "shards" / self.plan.shard_name(shard, self.found)

    def sweep(self, mine: range) -> None:
        """Remove what a killed process left half-written of the shards that are ours now."""
        for shard in mine:
            for aside in (self.folder / "shards").glob(f".{shard:05d}-of-*.tmp"):
                aside.unlink(missing_ok=True)

    def stands(self, shard: int) -> bool:
        """Whether a shard is finished and whole; a damaged one is removed and said."""
        path = self.path(shard)
        if not path.exists():
            return False
        try:
            shards.read(path)
        except shards.DamagedShard as error:
            self.console.say(f"{path}: {error}; it has to be measured again")
            path.unlink()
            return False
        return True

    def missing(self) -> list[int]:
        """Shards that nobody has finished."""
        there = {path.name for path in (self.folder / "shards").iterdir()}
        return [shard for shard in range(self.plan.shards) if self.path(shard).name not in there]

    def measure(self, mine: range) -> None:
        """Measure those of our shards that do not stand."""
        plan = self.plan
        todo = [shard for shard in mine if not self.stands(shard)]
        if len(todo) < len(mine):
            self.console.say(f"{self.folder}: {len(mine) - len(todo)} finished shards stand")
        title = f"{plan.tokenizer.card.name} on {plan.dataset.name} ({plan.protocol.name})"
        groups = [plan.indices(shard) for shard in todo]
        with _explained(), self.console.progress(title, sum(map(len, groups))) as advance:
            parts = self.work.measure(groups, advance)
            for index in todo:
                started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
                measured = next(parts)
                shard = self._shard(index, measured, started, time.perf_counter() - clock)
                for failure in shard.failed:
                    self.console.say(f"{failure['id']}: {failure['reason']}; left out")
                for noted in measured.noted:
                    self.console.say(f"{noted.id}: {noted.note}")
                shards.write(self.path(index), shard)

    def _shard(self, index: int, measured: Measured, started: str, seconds: float) -> shards.Shard:
        plan = self.plan
        place = {plan.dataset.samples[i].id: i for i in plan.indices(index)}
        device = plan.settings.device
        return shards.Shard(
            index=index,
            rows=measured.rows,
            failed=[asdict(failure) for failure in sorted(measured.failed, key=lambda failure: place[failure.id])],
            columns=measured.columns,
            features=measured.features,
            frames=measured.frames,
            work={
                "started": started,
                "wall_s": seconds,
                "device_name": provenance.device_name(device),
                "threads": torch.get_num_threads(),
                "noted": [asdict(noted) for noted in measured.noted],
                "peak_rss_bytes": provenance.peak_rss_bytes(),
                "peak_device_bytes": torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else None,
            },
        )


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # Raised wherever this process happens to be when the system ends a worker, in writing a shard too.
        if "DataLoader worker" not in str(error):
            raise
        raise BenchError(
            "a process that decodes images was killed, most likely for want of memory; finished shards are kept: "
            "run the same command again with a smaller --workers"
        ) from error
