"""What a run must remember to go on: sharded files of torch.distributed.checkpoint, written while training goes on.

A folder `step-00000500` is whole when it holds `complete.json`, which is written last; others are remains of a killed
process and are removed. Each rank writes its own part, and another number of ranks can read it.
"""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from atoken.files import refusals, replacing
from atoken.training.adversary import Adversary
from atoken.training.distributed import World
from atoken.training.errors import TrainingError
from atoken.training.optimizer import Average

__all__ = ["Checkpoints"]

# One process alone is meant, not a mistake.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")

_State = dict[str, dict[str, Any]]
_UNREADABLE = (CheckpointException, RuntimeError, ValueError, KeyError, OSError, EOFError, pickle.UnpicklingError)

COMPLETE = "complete.json"
KEPT = 2
"""Newest checkpoints of a stage that stay on disk."""


class Checkpoints:
    """The checkpoints of one stage."""

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.world = folder, world
        self._pending: tuple[Future[Any], Path, dict[str, Any]] | None = None

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: Average,
        notes: dict[str, Any],
        adversary: Adversary | None = None,
    ) -> None:
        """Begin to write the state after `notes["step"]` steps; training may go on at once.

        The one before is finished first.

        Raises:
            WriteError: the system refused.
        """
        self.finish()
        path = self.folder / f"step-{notes['step']:08d}"
        if (path / COMPLETE).is_file():
            return
        if self.world.is_main:
            with refusals(path):
                shutil.rmtree(path, ignore_errors=True)
                path.mkdir(parents=True)
        self.world.barrier()
        with refusals(path):
            state = _state(model, optimizer, average, adversary)
            future = async_save(state, checkpoint_id=path, process_group=self.world.files, no_dist=self.world.size == 1)
        assert isinstance(future, Future)
        self._pending = (future, path, notes)

    def finish(self) -> None:
        """Wait until what was begun is on disk, and remove what is older than the last few.

        Raises:
            WriteError: the system refused; earlier checkpoints stand.
        """
        if self._pending is None:
            return
        future, path, notes = self._pending
        self._pending = None
        with refusals(path):
            try:
                future.result()
            except CheckpointException as error:
                raise _cause(error) from None
        self.world.barrier()  # complete only when every rank's part is
        if self.world.is_main:
            with replacing(path / COMPLETE) as aside:
                aside.write_text(json.dumps(notes) + "\n")
            for old in self._whole()[:-KEPT]:
                shutil.rmtree(old, ignore_errors=True)
        self.world.barrier()

    def newest(self) -> dict[str, Any] | None:
        """The notes of the newest whole checkpoint, or None; remains of killed processes are removed.

        Raises:
            TrainingError: notes that are not this trainer's.
        """
        whole = self._whole()
        if self.world.is_main and self.folder.is_dir():
            for path in self.folder.glob("step-*"):
                if path not in whole:
                    shutil.rmtree(path, ignore_errors=True)
        if not whole:
            return None
        path = whole[-1] / COMPLETE
        try:
            notes = json.loads(path.read_text())
            if not isinstance(notes, dict) or not isinstance(notes.get("step"), int):
                raise ValueError("no step in it")
        except ValueError as error:
            raise TrainingError(
                f"{path}: not of this trainer ({error}); remove its folder to go on from older"
            ) from None
        return notes

    def load(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: Average,
        adversary: Adversary | None = None,
    ) -> None:
        """Put the newest whole checkpoint into what is there, however many ranks wrote it.

        Raises:
            TrainingError: its files are broken or of another model.
        """
        path = self._whole()[-1]
        state = _state(model, optimizer, average, adversary)
        try:
            load(state, checkpoint_id=path, process_group=self.world.files, no_dist=self.world.size == 1)
        except _UNREADABLE as error:
            reason = " ".join(str(_cause(error)).split())[:200]
            raise TrainingError(
                f"{path}: cannot be read ({reason}); remove this folder to go on from the one before"
            ) from None
        model.load_state_dict(state["model"])
        set_optimizer_state_dict(model, optimizer, optim_state_dict=state["optimizer"])
        average.load(state["average"])
        if adversary is not None:
            adversary.load_state_dict(state["adversary"])

    def _whole(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step-*") if (path / COMPLETE).is_file())


def _state(model: nn.Module, optimizer: torch.optim.Optimizer, average: Average, adversary: Adversary | None) -> _State:
    state: _State = {
        "model": model.state_dict(),
        "optimizer": dict(get_optimizer_state_dict(model, optimizer)),
        "average": dict(average.values),
    }
    return state if adversary is None else state | {"adversary": adversary.state_dict()}


def _cause(error: BaseException) -> BaseException:
    """What a rank met, out of what torch wraps it in."""
    failures = getattr(error, "failures", None)
    if not failures:
        return error
    inner = next(iter(failures.values()))
    inner = inner[0] if isinstance(inner, tuple) else inner
    assert isinstance(inner, BaseException)
    return inner
