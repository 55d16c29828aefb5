"""What a step trains on, as data: the paper's six tasks, and how a value that does not fit is refused.

No torch, so that --help stays quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from atoken.training.errors import TrainingError

__all__ = ["IMAGE_TEXT", "TASKS", "AssetTask", "ImageTask", "Task", "VideoTask", "demand", "demand_choice"]

View = Literal["whole", "crop", "resized-crop"]

IMAGE_TEXT = "image_text"
"""The task of every step."""


def demand(holds: bool, name: str, value: object, wanted: str) -> None:
    """Raise a TrainingError that names the key, unless `holds`."""
    if not holds:
        raise TrainingError(f"recipe: {name} must be {wanted}, got {value!r}")


def demand_choice(name: str, value: object, choices: Any) -> None:
    """The same of a value that must be one of a Literal's."""
    known = get_args(choices)
    demand(value in known, name, value, f"one of {', '.join(known)}")


def _range(name: str, value: Any, lowest: int, multiple: int = 1) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, list | tuple) else ()
    whole = len(pair) == 2 and all(isinstance(n, int) and n % multiple == 0 for n in pair)
    of = f" of multiples of {multiple}" if multiple > 1 else ""
    demand(whole and lowest <= pair[0] <= pair[1], name, value, f"[low, high]{of}, low at least {lowest}")
    return pair[0], pair[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What every task has.

    Attributes:
        samples: of a global batch, over all ranks.
        share: of the steps, relative to the other tasks' shares; 0 for image-text, which every step has.
    """

    samples: int
    share: float = 0.0

    def check(self, name: str) -> None:
        """Raise a TrainingError where a value is out of range; `name` is the task's."""
        demand(isinstance(self.samples, int) and self.samples >= 1, f"{name}.samples", self.samples, "1 or more")
        if name == IMAGE_TEXT:
            demand(self.share == 0, f"{name}.share", self.share, "left out: every step has this task")
        else:
            demand(self.share > 0, f"{name}.share", self.share, "positive")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTask(Task):
    """Image reconstruction, or image-text alignment.

    Attributes:
        resolution: lowest and highest side in pixels, multiples of 16 (Table 2).
        view: "whole": the whole image at its own aspect, its sides' geometric mean drawn from `resolution` and never
            enlarged beyond what the lowest asks. "crop": a square of the image's own pixels, mirrored half the time;
            the side is drawn for a step, so that its items have one length, and smaller images are passed over.
            "resized-crop": a random part of the image, at least `smallest_part` of its area, stretched to such a
            square.
        smallest_part: see there.
        side_step: a side that is drawn for a step is the lowest, or that and a multiple of this.
    """

    resolution: tuple[int, int]
    view: View = "whole"
    smallest_part: float = 0.35
    side_step: int = 16

    def __post_init__(self) -> None:
        object.__setattr__(self, "resolution", _range("resolution", self.resolution, 16, 16))

    def check(self, name: str) -> None:
        """As `Task.check`."""
        Task.check(self, name)
        demand_choice(f"{name}.view", self.view, View)
        demand(0 < self.smallest_part <= 1, f"{name}.smallest_part", self.smallest_part, "in (0, 1]")
        step = self.side_step
        demand(step > 0 and step % 16 == 0, f"{name}.side_step", step, "a positive multiple of 16")


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoTask(ImageTask):
    """Video reconstruction, or video-text alignment.

    Attributes:
        frames: fewest and most frames of a sample, multiples of 4.
        strides: ranges of frame strides; one of them is drawn, then a stride of it (paper 3.4: 1-3 or 4-12).
            A clip that is too short for it is sampled at a smaller one. Empty where `fps` rules.
        fps: frames a second instead, as many of them as there are, up to the most (understanding: 1, up to 64).
    """

    frames: tuple[int, int]
    strides: tuple[tuple[int, int], ...] = ()
    fps: float | None = None

    def __post_init__(self) -> None:
        ImageTask.__post_init__(self)
        object.__setattr__(self, "frames", _range("frames", self.frames, 4, 4))
        object.__setattr__(self, "strides", tuple(_range("strides", pair, 1) for pair in self.strides))

    def check(self, name: str) -> None:
        """As `Task.check`."""
        ImageTask.check(self, name)
        one = bool(self.strides) != (self.fps is not None)
        demand(one, f"{name}.strides", self.strides, "given, or fps, not both")
        demand(self.fps is None or self.fps > 0, f"{name}.fps", self.fps, "positive")


@dataclass(frozen=True, kw_only=True, slots=True)
class AssetTask(Task):
    """Reconstruction of 3D assets by the pictures of their Gaussians, or asset-text alignment.

    Attributes:
        renders: views of a sample that are drawn and compared; reconstruction only.
        render_size: pixels along the side of such a view.
        shrink: assets are brought to one part in so many of their size, see `atoken.training.data.shrink`.
    """

    renders: int = 0
    render_size: int = 0
    shrink: int = 1

    def check(self, name: str) -> None:
        """As `Task.check`."""
        Task.check(self, name)
        demand(isinstance(self.shrink, int) and 1 <= self.shrink <= 8, f"{name}.shrink", self.shrink, "1 to 8")
        if name == "asset_recon":
            demand(self.renders >= 1, f"{name}.renders", self.renders, "1 or more")
            demand(self.render_size >= 16, f"{name}.render_size", self.render_size, "16 or more")
        else:
            demand(self.renders == self.render_size == 0, f"{name}.renders", self.renders, "left out")


TASKS: dict[str, type[ImageTask | VideoTask | AssetTask]] = {
    IMAGE_TEXT: ImageTask,
    "image_recon": ImageTask,
    "video_text": VideoTask,
    "video_recon": VideoTask,
    "asset_text": AssetTask,
    "asset_recon": AssetTask,
}
"""The paper's I^u, I^r, V^u, V^r, 3D^u, 3D^r, in the order in which a turn of the round robin goes."""
