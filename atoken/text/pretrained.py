"""Models and tokenizers of transformers from a local folder: strictly, without running code from files, offline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from atoken.errors import CheckpointError
from atoken.text.clean import MissingPackage

__all__ = ["first_line", "load_model", "load_tokenizer"]

SHOWN = 8


def load_model(name: str, folder: Path, *, beside: tuple[str, ...] = ()) -> Any:
    """A model in float32, frozen, in evaluation mode.

    Args:
        name: of the class in transformers.
        beside: how keys begin that the file may hold and the model does not want.

    Raises:
        MissingPackage: transformers is not installed.
        CheckpointError: no such folder, a broken or foreign file, missing, unexpected or misshapen keys.
    """
    transformers = _transformers()
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; give one that transformers' save_pretrained wrote")
    try:
        with _quiet(transformers):
            model, found = getattr(transformers, name).from_pretrained(
                folder, local_files_only=True, output_loading_info=True, dtype=torch.float32, trust_remote_code=False
            )
    except Exception as error:  # Whatever a broken file or config makes transformers say.
        raise CheckpointError(f"{folder}: cannot be loaded as {name}: {first_line(error)}") from None
    # transformers fills what is missing with random numbers.
    unexpected = [key for key in found["unexpected_keys"] if not key.startswith(beside)]
    faults = [
        f"{len(keys)} {what}: {', '.join(map(str, sorted(keys)[:SHOWN]))}"
        for what, keys in (
            ("missing", found["missing_keys"]),
            ("unexpected", unexpected),
            ("misshapen", found["mismatched_keys"]),
        )
        if keys
    ]
    if faults:
        raise CheckpointError(f"{folder}: does not fit {name} ({'; '.join(faults)}); give another folder")
    return model.eval().requires_grad_(False)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in the folder.

    Raises:
        MissingPackage: transformers is not installed.
        CheckpointError: there is none, or a broken one.
    """
    transformers = _transformers()
    try:
        with _quiet(transformers):
            return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise CheckpointError(f"{folder}: holds no tokenizer that can be loaded: {first_line(error)}") from None


def _transformers() -> Any:
    try:
        return import_module("transformers")
    except ImportError:
        raise MissingPackage("this text tower needs transformers; install atoken[text]") from None


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No progress bar and no report of what was not loaded: that is told in a line of ours, or was expected."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def first_line(error: Exception) -> str:
    """What an error of another package says, short enough for a line of ours."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
