"""Reads a state dict as data, strictly: nothing in the file runs, and every key and shape is the expected one."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from harness.errors import BenchError


def load_state(
    path: Path, shapes: Mapping[str, Sequence[int]], *, optional: Mapping[str, Sequence[int]] = MappingProxyType({})
) -> dict[str, Tensor]:
    """The tensors of a ``.pth`` file, on the CPU.

    Args:
        shapes: of every tensor that the file must hold, by key.
        optional: likewise, of those that it may hold; there may be no other.

    Raises:
        BenchError: the file cannot be read without running code in it, or holds something else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BenchError(f"{path}: not a weights file that can be read safely: {first}") from None
    if not isinstance(state, dict):
        raise BenchError(f"{path}: holds a {type(state).__name__}, not a state dict")
    wrong = [f"missing {key}" for key in shapes.keys() - state.keys()]
    known = {**shapes, **optional}
    wrong += [f"unexpected {key}" for key in state.keys() - known.keys()]
    for key in known.keys() & state.keys():
        shape = tuple(state[key].shape) if isinstance(state[key], Tensor) else type(state[key]).__name__
        if shape != tuple(known[key]):
            wrong.append(f"{key} is {shape}, not {tuple(known[key])}")
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise BenchError(f"{path}: not the weights it is called after: {', '.join(sorted(wrong)[:5])}{more}")
    return state
