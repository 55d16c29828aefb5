"""What a user asks `atoken-bench run` for, before anything heavy is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from harness.errors import BenchError
from harness.experiment import Modality
from harness.plan import Share

DTYPES = ("float32", "bfloat16", "float16")
SHARD_SIZES: Mapping[Modality, int] = MappingProxyType({"image": 64, "video": 1, "asset": 1})
"""Samples that a resume may have to measure again: a minute's work at most, so a clip is a shard of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """The options of `run`; see the command's help for each.

    Attributes:
        tokenizers: specs; empty for the experiment's default rows.
        options: ``KEY=VALUE`` for the tokenizers' factories.
        data: ``NAME`` or ``NAME=PATH``; empty for the experiment's default dataset.
        only: a file of sample ids, one a line: the others are left out.
        protocol: a name, ``all``, a ``.yaml`` path, or None for the default.
        threads, workers: None for the machine's default.
        shard_size: None for `SHARD_SIZES`.
    """

    tokenizers: tuple[str, ...] = ()
    ckpt: str | None = None
    preset: str | None = None
    options: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    only: Path | None = None
    protocol: str | None = None
    limit: int | None = None
    device: str = "auto"
    dtype: str = "float32"
    token_budget: int = 4096
    threads: int | None = None
    shard_size: int | None = None
    workers: int | None = None
    share: Share = field(default_factory=Share)
    runs: Path = Path("runs")
    weights: tuple[Path, ...] = ()
    strict: bool = False


def share_of(shard: str | None) -> Share:
    """The share of work from ``--shard i/n``, else from torchrun's environment, else all of it.

    Raises:
        BenchError: not ``i/n`` with 0 <= i < n, or given under torchrun.
    """
    rank, world = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    torchrun = rank is not None and world is not None
    if shard is None:
        return Share(index=int(rank or 0), count=int(world or 1)) if torchrun else Share()
    if torchrun and int(world or 1) > 1:
        raise BenchError("--shard is for plain processes; torchrun gives each of its processes a share already")
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise BenchError(f"--shard {shard}: write i/n with i from 0 to n-1, for example 0/2 and 1/2")
    return Share(index=int(index), count=int(count), merges=False)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_threads() -> int:
    """``$OMP_NUM_THREADS``, else every core.

    torchrun sets that variable to 1 by itself; there it is no user's wish, and one process and two must
    sum in the same order.
    """
    stated = os.environ.get("OMP_NUM_THREADS", "")
    if "TORCHELASTIC_RUN_ID" not in os.environ and stated.isdecimal() and int(stated) > 0:
        return int(stated)
    return cores()


def default_workers() -> int:
    """Decoding processes for each process of the run."""
    return max(1, min(8, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
