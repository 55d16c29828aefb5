"""What a run must remember to go on: one file, replaced whole."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from atoken.files import replacing
from atoken.training.errors import TrainingError

__all__ = ["CHECKPOINT", "load_state", "save_state"]

CHECKPOINT = "checkpoint.pt"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; a kill leaves the old file or the new one.

    Raises:
        WriteError: the system refused to write.
    """
    with replacing(folder / CHECKPOINT) as aside:
        torch.save(state, aside)


def load_state(folder: Path) -> dict[str, Any] | None:
    """The state of an earlier run in this folder, or None if there is none.

    Raises:
        TrainingError: the file is not such a state.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or "optimizer" not in state:
            raise KeyError("no optimizer in it")
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(f"{path}: not a state of this trainer ({reason}); remove it to start anew") from None
    return state
