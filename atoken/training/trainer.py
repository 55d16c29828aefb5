"""The loop of one stage: plain PyTorch, resumable at any step, stoppable at any time, on one process or many."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from atoken.training.adversary import open_adversary
from atoken.training.alignment import Alignment
from atoken.training.checkpoints import Checkpoints
from atoken.training.data import Batch, Batches, load_ahead
from atoken.training.distributed import World, full_state, local, placed_like
from atoken.training.errors import TrainingError
from atoken.training.logs import Log
from atoken.training.meter import Meter
from atoken.training.optimizer import Average, build_optimizer, set_learning_rate
from atoken.training.passes import Passes
from atoken.training.perceptual import Perceptual
from atoken.training.recipe import Recipe
from atoken.training.resuming import refuse_another_run
from atoken.training.round_robin import task_of, tasks_of
from atoken.training.schedule import learning_rate
from atoken.training.start.clips import held
from atoken.training.trainee import Terms, Trainee

__all__ = ["Run", "Trainer"]

Validate = Callable[["Trainer"], dict[str, float]]
"""Measures the averaged model; called every `validate_every` steps and at the end."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Run:
    """What the stages of a run share.

    Attributes:
        perceptual: frozen networks of the perceptual terms, or None where none is weighed.
        alignment: text tower, and teacher where there is one; None where no stage has a text task.
        workers: processes that read data; 0 reads in this one.
        validate: see `Validate`; None measures nothing.
    """

    recipe: Recipe
    world: World
    log: Log
    perceptual: Perceptual | None = None
    alignment: Alignment | None = None
    workers: int = 0
    validate: Validate | None = None


class Trainer:
    """One stage of a run, in a folder of its own.

    Opening a folder that holds checkpoints goes on with them: on the same CPU and number of threads the losses are bit
    for bit those of a run that was never interrupted, because batches and noise come from (seed, stage, step) and
    everything else is in the checkpoint.
    """

    def __init__(self, run: Run, stage: int, trainee: Trainee, batches: Batches, checkpoints: Checkpoints) -> None:
        """Start the stage with the trainee as it is, or from the newest checkpoint.

        Args:
            stage: its index, 0 for the first.
            trainee: in the stage's shape, on the world's device; trained in place.

        Raises:
            TrainingError: the folder holds a run of another recipe or of other data.
        """
        self.run_ = run
        self.recipe, self.world = run.recipe, run.world
        self.index, self.stage = stage, run.recipe.stages[stage]
        self.trainee, self.batches, self.checkpoints = trainee, batches, checkpoints
        self.step = self.skipped = self.replaced = 0
        self._unusable: list[str] = []
        self._bad_in_a_row = 0
        self._between_steps = True
        self._freeze_unused()
        kept = held(trainee.tokenizer)  # looked up while the weights are whole
        if kept and self.recipe.optimizer.weight_decay:
            raise TrainingError(
                f"optimizer.weight_decay is {self.recipe.optimizer.weight_decay:g}: where clips have components beside "
                "those of images (recipe's start: pca), some weights must stay as they are; set it to 0"
            )
        self._prepare_blocks()
        places = [(trainee.tokenizer.get_parameter(name), mask) for name, mask in kept.items()]
        self._held = [(parameter, placed_like(mask, parameter)) for parameter, mask in places]
        self.optimizer = build_optimizer(trainee, self.recipe.optimizer)
        self.adversary = open_adversary(self.recipe, stage, self.world)
        self._passes = Passes(
            self.recipe, stage, trainee, self.world, perceptual=run.perceptual, adversary=self.adversary
        )
        self.average = Average(trainee, self.recipe.optimizer.ema)
        notes = checkpoints.newest()
        if notes is not None:
            self._resume(notes)
        run.log.trim(stage + 1, self.step)

    # -- The loop ----------------------------------------------------------------------------

    def run(self, *, seconds: float = math.inf, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the stage's last step; a checkpoint is written at the end, however early it comes.

        Args:
            seconds: stop after this long.
            stop: asked after every step; one rank's yes stops all.

        Returns:
            Whether the last step was reached.

        Raises:
            TrainingError: `patience` steps in a row gave no finite loss, or memory ran out; names the samples, or task
                and tokens.
        """
        steps, start, meter = self.stage.steps, time.monotonic(), Meter()
        try:
            with closing(self._batches_ahead()) as ahead:
                while self.step < steps and not self._asked_to_stop(stop, start, seconds):
                    line = self._train_step(ahead, meter)
                    if self.step % self.recipe.log_every == 0 or self.step == steps:
                        self._tell_replaced()
                        self.run_.log.write(line() | meter.speed(self.world))
                        meter = Meter()
                    if self.step % self.recipe.validate_every == 0 or self.step == steps:
                        self._validate()
                    if self.step % self.recipe.checkpoint_every == 0:
                        self._tell_replaced()
                        self.save()
        finally:
            # Not after memory ran out or files broke in the middle of a step: the last checkpoint stands then.
            if self._between_steps:
                self._tell_replaced()
                self.save()
                self.checkpoints.finish()
        return self.step >= steps

    def save(self) -> None:
        """Begin to write a checkpoint."""
        notes = {
            "step": self.step,
            "stage": self.index + 1,
            "skipped": self.skipped,
            "replaced": self.replaced,
            "recipe": self.recipe.to_dict(),
            "data": self.batches.fingerprint,
        }
        self.checkpoints.save(self.trainee, self.optimizer, self.average, notes, self.adversary)

    def averaged(self) -> dict[str, Tensor]:
        """The averaged weights, whole, under the trainee's names, with what is not trained. Every rank must ask."""
        return full_state({**self.trainee.state_dict(), **self.average.values})

    def _asked_to_stop(self, stop: Callable[[], bool], start: float, seconds: float) -> bool:
        return self.world.any(stop() or time.monotonic() - start >= seconds)

    def _batches_ahead(self) -> Generator[Batch, None, None]:
        tasks = ((name, step) for step in range(self.step, self.stage.steps) for name in tasks_of(self.stage, step))
        return load_ahead(self.batches, tasks, workers=self.run_.workers)

    def _train_step(self, ahead: Iterator[Batch], meter: Meter) -> Callable[[], dict[str, Any]]:
        """One step; the line about it is put together only if it is wanted, since that waits for the device."""
        rate = learning_rate(self.recipe.optimizer, self.step, self.stage.steps)
        set_learning_rate(self.optimizer, rate)
        self._between_steps = False
        sums: Terms = {}
        ids: list[str] = []
        for task in tasks_of(self.stage, self.step):
            waiting = time.perf_counter()
            batch = next(ahead)
            meter.waited += time.perf_counter() - waiting
            assert batch.task == task
            self._unusable += batch.skipped
            ids += [name for pack in batch.packs for name in pack.ids]
            for name, value in self._accumulate(batch, meter).items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value
        for parameter, mask in self._held:
            if parameter.grad is not None:
                local(parameter.grad).masked_fill_(mask, 0.0)
        norm = nn.utils.clip_grad_norm_(self.trainee.parameters(), self.recipe.optimizer.clip)
        size = float(full_state({"norm": norm})["norm"])
        # The norm is of the whole gradient, so every rank sees the same and none goes on alone.
        if math.isfinite(size):
            self.optimizer.step()
            self.average.update(self.step + 1)
            self._bad_in_a_row = 0
        else:
            self.skipped += 1
            self._bad_in_a_row += 1
        self._passes.zero_gradients(self.optimizer)
        self.step += 1
        meter.steps += 1
        self._between_steps = True
        if self._bad_in_a_row >= self.recipe.patience:
            names = sorted({name for part in self.world.gather_objects(ids) for name in part})
            raise TrainingError(
                f"step {self.step}: no finite loss in {self._bad_in_a_row} steps in a row; the last had "
                f"{', '.join(names[:20])}{' ...' if len(names) > 20 else ''}; look at these, or lower optimizer.lr"
            )
        return partial(self._line, sums, rate, size)

    def _accumulate(self, batch: Batch, meter: Meter) -> Terms:
        """Gradients of one task's batch, pack by pack; its terms as this rank's part of the mean over samples."""
        aligned = None
        if batch.task.endswith("_text"):
            assert self.run_.alignment is not None
            aligned = self.run_.alignment.of(batch, self.world)
        sums: Terms = {}
        first = 0
        for number, pack in enumerate(batch.packs):
            if aligned is not None:
                terms = self._passes.align(batch.task, pack, aligned[number])
            else:
                terms = self._passes.reconstruct(batch.task, pack, step=self.step, first=first)
            for name, value in terms.items():
                sums[name] = sums[name] + value if name in sums else value
            first += len(pack.ids)
            meter.add(self.trainee.tokenizer, pack)
        if self.adversary is not None:
            sums |= self.adversary.learn()
        return {f"{batch.task}/{name}": value for name, value in sums.items()}

    # -- What is told ------------------------------------------------------------------------

    def _line(self, sums: Terms, rate: float, norm: float) -> dict[str, Any]:
        names = sorted(sums)
        values = self.world.sum(torch.stack([sums[name].float() for name in names]).cpu()).tolist()
        line = {"stage": self.index + 1, "step": self.step, "task": task_of(self.stage, self.step - 1)}
        line |= dict(zip(names, values, strict=True))
        return line | {"lr": rate, "grad_norm": norm, "skipped": self.skipped, "replaced": self.replaced}

    def _tell_replaced(self) -> None:
        """Name the samples of all ranks that could not be used since this was last done."""
        reasons = [reason for part in self.world.gather_objects(self._unusable) for reason in part]
        self._unusable = []
        self.replaced += len(reasons)
        for reason in reasons:
            self.run_.log.write({"stage": self.index + 1, "step": self.step, "replaced": reason})

    def _validate(self) -> None:
        if self.run_.validate is not None:
            figures = self.run_.validate(self)
            if figures:
                self.run_.log.write({"stage": self.index + 1, "step": self.step, **figures})

    # -- Before the first step ---------------------------------------------------------------

    def _freeze_unused(self) -> None:
        """Nothing but text tasks reaches the pooling head and the scores, nothing but assets the Gaussian decoder."""
        if self.stage.trained == "gaussian-decoder":
            self.trainee.requires_grad_(False)
        aligned = any(task.endswith("_text") for task in self.stage.tasks)
        self.trainee.tokenizer.encoder.head.requires_grad_(aligned)
        self.trainee.log_scale.requires_grad_(aligned)
        self.trainee.bias.requires_grad_(aligned)
        decoder = self.trainee.tokenizer.gaussian_decoder
        if decoder is not None:
            decoder.requires_grad_("asset_recon" in self.stage.tasks)

    def _prepare_blocks(self) -> None:
        blocks = self.trainee.blocks()
        for block in blocks:
            # Compiled inside: checkpointing keeps the compiler out of all that it calls.
            forward = torch.compile(block.forward) if self.recipe.compile else block.forward
            if self.recipe.recompute:
                forward = partial(torch.utils.checkpoint.checkpoint, forward, use_reentrant=False)
            block.forward = forward
        self.world.shard(self.trainee, blocks, half=self.recipe.precision == "bfloat16")

    def _resume(self, notes: dict[str, Any]) -> None:
        refuse_another_run(notes, self.recipe, self.stage, self.batches.fingerprint, self.checkpoints.folder)
        self.checkpoints.load(self.trainee, self.optimizer, self.average, self.adversary)
        self.step, self.skipped, self.replaced = notes["step"], notes["skipped"], notes["replaced"]
