"""What a run tells: a line of JSON for every logged step, and the same in TensorBoard or wandb where asked for."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from atoken.files import refusals
from atoken.training.errors import TrainingError

__all__ = ["LOG", "Log", "Report", "Tracker"]

LOG = "log.jsonl"
"""In the run's folder: what `reports` plots."""

Report = Callable[[dict[str, Any]], None]
"""Is given every line of the log."""

Tracker = Literal["tensorboard", "wandb"]


class Log:
    """The log of a run, all its stages in one file; only the main process writes."""

    def __init__(
        self, out: Path, *, active: bool, trackers: tuple[Tracker, ...] = (), report: Report | None = None
    ) -> None:
        """Open, or go on.

        Args:
            out: the run's folder.
            active: whether this process writes.
            trackers: besides the file.
            report: called with every line.

        Raises:
            TrainingError: a tracker whose package is not installed.
        """
        self.path, self._active, self._report = out / LOG, active, report
        self._trackers = [_TRACKERS[name](out) for name in trackers] if active else []

    def trim(self, stage: int, step: int) -> None:
        """Drop lines of steps that a killed run logged and did not save: they come again."""
        if not self._active or not self.path.is_file():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            try:
                values = json.loads(line)
            except ValueError:  # cut off by the kill
                continue
            if (values["stage"], values["step"]) <= (stage, step):
                kept.append(line + "\n")
        self.path.write_text("".join(kept))

    def write(self, line: dict[str, Any]) -> None:
        """One line; floats that are not finite become strings, since JSON has none."""
        if not self._active:
            return
        with refusals(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps({key: _finite(value) for key, value in line.items()}) + "\n")
        for tracker in self._trackers:
            tracker.numbers(line)
        if self._report is not None:
            self._report(line)

    def picture(self, name: str, stage: int, step: int, pixels: np.ndarray) -> None:
        """A picture uint8 [H, W, 3] for the trackers."""
        for tracker in self._trackers:
            tracker.picture(name, stage, step, pixels)

    def close(self) -> None:
        """Let the trackers write what they hold."""
        for tracker in self._trackers:
            tracker.close()


def _finite(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def _package(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise TrainingError(f"logging to {name} needs its package ({error}): pip install {name}") from None


class _TensorBoard:
    def __init__(self, out: Path) -> None:
        self._writer = _package("torch.utils.tensorboard", "tensorboard").SummaryWriter(out / "tensorboard")

    def numbers(self, line: dict[str, Any]) -> None:
        for key, value in line.items():
            if isinstance(value, float):
                self._writer.add_scalar(f"stage-{line['stage']}/{key}", value, line["step"])

    def picture(self, name: str, stage: int, step: int, pixels: np.ndarray) -> None:
        self._writer.add_image(f"stage-{stage}/{name}", pixels, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, out: Path) -> None:
        self._wandb = _package("wandb", "wandb")
        self._run = self._wandb.init(project="atoken", name=out.name, dir=str(out), resume="allow", id=out.name)

    def numbers(self, line: dict[str, Any]) -> None:
        self._run.log({f"stage-{line['stage']}/{key}": value for key, value in line.items()})

    def picture(self, name: str, stage: int, step: int, pixels: np.ndarray) -> None:
        self._run.log({f"stage-{stage}/{name}": self._wandb.Image(pixels), "step": step})

    def close(self) -> None:
        self._run.finish()


_TRACKERS: dict[Tracker, Callable[[Path], _TensorBoard | _Wandb]] = {"tensorboard": _TensorBoard, "wandb": _Wandb}
