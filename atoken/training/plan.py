"""What a recipe costs before it is paid for: tokens, FLOPs, memory and hours of each stage.

All is computed from the recipe and the model's shapes (`loads`, `flops`, `memory`), nothing is looked up; no weights
are made and torch is not imported. What the recipe does not say is in `Assumptions`. `plan_tables` prints it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from atoken.config import ATokenConfig
from atoken.training.errors import TrainingError
from atoken.training.flops import Flops, Load, align_flops, gaussian_flops, reconstruct_flops
from atoken.training.loads import ASSUMED, Assumptions, Drawn, expected
from atoken.training.memory import Memory, activations, gaussian_activations, parameters, states
from atoken.training.recipe import Recipe, Stage
from atoken.training.round_robin import shares
from atoken.training.tasks import IMAGE_TEXT

__all__ = ["H100", "PAPER_GPU_HOURS", "Plan", "StagePlan", "TaskPlan", "plan", "show_plan"]

H100 = 989.4
"""TFLOP/s in dense bfloat16 (NVIDIA's data sheet, SXM)."""

GPUS = 256
PAPER_GPU_HOURS = 138_000
"""H100s, and hours of all four stages on them (paper 3.5)."""

MFU = 0.4
"""What well-tuned training of transformers of this size reaches; a guess, for want of a measurement of one's own."""

VGG16 = (
    (224, 3, 64), (224, 64, 64), (112, 64, 128), (112, 128, 128), (56, 128, 256), (56, 256, 256), (56, 256, 256),
    (28, 256, 512), (28, 512, 512), (28, 512, 512), (14, 512, 512), (14, 512, 512), (14, 512, 512),
)  # fmt: skip
"""Side, channels in and out of the 3x3 convolutions that LPIPS and Gram loss share."""


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """One task of a stage.

    Attributes:
        share: of the steps that have it.
        samples: of a global batch.
        drawn: the average sample and the largest.
        flops: of its part of a step, over all GPUs.
        frozen: FLOPs of frozen networks in it.
        packs: forward and backward passes of it on a GPU, if packs come out full.
        activations: bytes of its worst pack.
    """

    name: str
    share: float
    samples: int
    drawn: Drawn
    flops: Flops
    frozen: float
    packs: int
    activations: float

    @property
    def tokens(self) -> float:
        """Of its global batch."""
        return self.samples * self.drawn.mean.tokens


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage.

    Attributes:
        number: 1 for the first.
        flops: of an average step, over all GPUs, frozen networks included.
        memory: of a GPU.
        hours: of the whole stage.
    """

    number: int
    stage: Stage
    parameters: int
    tasks: tuple[TaskPlan, ...]
    flops: float
    memory: Memory
    hours: float

    @property
    def tokens(self) -> float:
        """Of an average step."""
        return sum(task.share * task.tokens for task in self.tasks)


@dataclass(frozen=True, slots=True)
class Plan:
    """Some stages of a recipe on some GPUs; see `plan`."""

    recipe: Recipe
    gpus: int
    mfu: float
    peak: float
    assumed: Assumptions
    stages: tuple[StagePlan, ...]

    @property
    def gpu_hours(self) -> float:
        """Of all its stages."""
        return self.gpus * sum(stage.hours for stage in self.stages)


def plan(
    recipe: Recipe,
    *,
    stages: Sequence[int] | None = None,
    gpus: int = GPUS,
    mfu: float = MFU,
    peak: float = H100,
    assumed: Assumptions = ASSUMED,
) -> Plan:
    """What stages cost.

    Args:
        stages: indices, 0 for the first; all if not given.
        mfu: share of the peak that the matrix FLOPs reach, those of recomputation and of frozen networks among them.
        peak: of a GPU, in TFLOP/s.

    Raises:
        TrainingError: `gpus`, `mfu` or `peak` out of range.
    """
    if gpus < 1 or not 0 < mfu <= 1 or peak <= 0:
        raise TrainingError(f"a plan needs 1 GPU or more, an MFU in (0, 1] and a peak, got {gpus}, {mfu} and {peak}")
    indices = range(len(recipe.stages)) if stages is None else stages
    planned = tuple(_stage(recipe, index, gpus, mfu * peak * 1e12, assumed) for index in indices)
    return Plan(recipe, gpus, mfu, peak, assumed, planned)


def show_plan(
    recipe: Recipe, *, stages: Sequence[int] | None = None, gpus: int | None = None, mfu: float | None = None
) -> None:
    """Print `plan` as tables; by default for the paper's GPUs at 40 % of their peak.

    Raises:
        TrainingError: as `plan`.
    """
    from atoken.training.plan_tables import render

    print(render(plan(recipe, stages=stages, gpus=gpus or GPUS, mfu=MFU if mfu is None else mfu)), end="")


def _stage(recipe: Recipe, index: int, gpus: int, rate: float, assumed: Assumptions) -> StagePlan:
    stage = recipe.stages[index]
    config = recipe.shape(index)
    of_steps = {IMAGE_TEXT: 1.0} if IMAGE_TEXT in stage.tasks else {}
    of_steps |= {name: float(share) for name, share in shares(stage).items()}
    tasks = tuple(
        _task(recipe, config, stage, name, share=share, gpus=gpus, assumed=assumed) for name, share in of_steps.items()
    )
    flops = sum(task.share * (task.flops.total + task.frozen) for task in tasks)
    gaussian = recipe.gaussian_decoder if "asset_recon" in stage.tasks else None
    counted = parameters(config, gaussian, _channels(config))
    worst = max(task.activations for task in tasks)
    memory = states(counted, gpus, half=recipe.precision == "bfloat16", activations=worst)
    hours = stage.steps * flops / (gpus * rate) / 3600
    return StagePlan(index + 1, stage, counted.total, tasks, flops, memory, hours)


def _task(
    recipe: Recipe,
    config: ATokenConfig,
    stage: Stage,
    name: str,
    *,
    share: float,
    gpus: int,
    assumed: Assumptions,
) -> TaskPlan:
    task = stage.tasks[name]
    drawn = expected(task, config, assumed)
    decoded = name.endswith("_recon")
    again, half = recipe.recompute, recipe.precision == "bfloat16"
    batch = drawn.mean * task.samples
    cost = (reconstruct_flops if decoded else align_flops)(config, batch, recompute=again)
    own = math.ceil(task.samples / gpus)
    # The worst pack: as many of the largest samples as fit, or one that does not.
    fitting = min(own, max(1.0, recipe.pack_tokens / drawn.largest.tokens))
    kept = activations(config, drawn.largest * fitting, decoded=decoded, half=half, recompute=again)
    if stage.trained == "gaussian-decoder":
        cost, kept = Flops(cost.forward, 0), 0.0
    if name == "asset_recon" and drawn.voxels is not None:
        shape, channels = recipe.gaussian_decoder, _channels(config)
        cost += gaussian_flops(shape, channels, drawn.voxels * task.samples, recompute=again)
        pack = drawn.voxels * fitting
        kept += gaussian_activations(shape, shape.heads, channels, pack, half=half, recompute=again)
    packs = min(own, math.ceil(own * drawn.mean.tokens / recipe.pack_tokens))
    return TaskPlan(name, share, task.samples, drawn, cost, _frozen(recipe, name, config, batch), packs, kept)


def _frozen(recipe: Recipe, name: str, config: ATokenConfig, batch: Load) -> float:
    """Forward passes of the teacher; of VGG16 over picture and copy, and back to the copy."""
    losses = recipe.losses
    if name == IMAGE_TEXT and losses.distillation:
        return align_flops(config, batch, recompute=False).forward
    if name == "image_recon" and (losses.lpips or losses.gram):
        return 3 * batch.items * sum(2 * side**2 * 9 * inputs * outputs for side, inputs, outputs in VGG16)
    return 0.0


def _channels(config: ATokenConfig) -> int:
    """Of a voxel: one frame of a patch."""
    return config.token_channels // config.patch[0]
