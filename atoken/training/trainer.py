"""The loop of one stage: plain PyTorch, resumable at any step, stoppable at any time, on one process or many."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from atoken.network import Plan
from atoken.tokens import SparseTokens
from atoken.training.adversary import open_adversary
from atoken.training.alignment import Alignment
from atoken.training.checkpoints import Checkpoints
from atoken.training.data import Batch, Batches, Pack, load_ahead
from atoken.training.distributed import World, full_state
from atoken.training.errors import TrainingError
from atoken.training.flops import PEAKS, step_flops
from atoken.training.graphs import Graphs
from atoken.training.logs import Log
from atoken.training.noise import normal_noise
from atoken.training.optimizer import Average, build_optimizer, set_learning_rate
from atoken.training.perceptual import Perceptual
from atoken.training.recipe import Recipe
from atoken.training.round_robin import task_of, tasks_of
from atoken.training.schedule import learning_rate
from atoken.training.terms import Aligned, align, reconstruct, weigh
from atoken.training.trainee import Terms, Trainee

__all__ = ["Run", "Trainer"]

MOST_PLANS = 256
"""Layouts of packs that are kept."""

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


@dataclass(slots=True)
class _Meter:
    """Sums between two lines of the log."""

    steps: int = 0
    tokens: int = 0
    samples: int = 0
    flops: float = 0.0
    waited: float = 0.0
    start: float = field(default_factory=time.perf_counter)


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
        self._prepare_blocks()
        self.optimizer = build_optimizer(trainee, self.recipe.optimizer)
        self.adversary = open_adversary(self.recipe, stage, self.world)
        self._plans: dict[Hashable, Plan] = {}
        self._graphs = self._recorder()
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
        steps, start, meter = self.stage.steps, time.monotonic(), _Meter()
        try:
            with closing(self._batches_ahead()) as ahead:
                while self.step < steps and not self._asked_to_stop(stop, start, seconds):
                    line = self._train_step(ahead, meter)
                    if self.step % self.recipe.log_every == 0 or self.step == steps:
                        self._tell_replaced()
                        self.run_.log.write(line() | self._speed(meter))
                        meter = _Meter()
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
        return load_ahead(self.batches, tasks, workers=self.run_.workers, ahead=4)

    def _train_step(self, ahead: Iterator[Batch], meter: _Meter) -> Callable[[], dict[str, Any]]:
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
        self._zero_gradients()
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

    def _accumulate(self, batch: Batch, meter: _Meter) -> Terms:
        """Gradients of one task's batch, pack by pack; its terms as this rank's part of the mean over samples."""
        aligned = None
        if batch.task.endswith("_text"):
            assert self.run_.alignment is not None
            aligned = self.run_.alignment.of(batch, self.world)
        sums: Terms = {}
        first = 0
        for number, pack in enumerate(batch.packs):
            try:
                if aligned is not None:
                    terms = self._align(batch.task, pack, aligned[number])
                else:
                    terms = self._reconstruct(batch.task, pack, first)
            except (torch.cuda.OutOfMemoryError, MemoryError) as error:
                raise _no_memory(batch.task, pack, self.recipe) from error
            for name, value in terms.items():
                sums[name] = sums[name] + value if name in sums else value
            first += len(pack.ids)
            meter.samples += len(pack.ids)
            meter.tokens += sum(pack.lengths)
            meter.flops += step_flops(self.trainee.tokenizer, pack, recompute=False)
        if self.adversary is not None:
            sums |= self.adversary.learn()
        return {f"{batch.task}/{name}": value for name, value in sums.items()}

    def _align(self, task: str, pack: Pack, aligned: Aligned) -> Terms:
        inputs = {"texts": aligned.texts, "positives": aligned.positives}
        if aligned.teacher is not None:
            inputs["teacher"] = aligned.teacher

        def terms(tokens: SparseTokens, plan: Plan, given: Mapping[str, Tensor]) -> Terms:
            what = Aligned(given["texts"], given["positives"], given.get("teacher"))
            found: Terms = self.trainee(align, tokens, what, plan=plan, losses=self.recipe.losses)
            return found

        return self._pass(task, pack, inputs, terms)

    def _reconstruct(self, task: str, pack: Pack, first: int) -> Terms:
        def terms(tokens: SparseTokens, plan: Plan, given: Mapping[str, Tensor]) -> Terms:
            judge = self.adversary if self.adversary is not None and self.adversary.active(self.step) else None
            settings = {
                "plan": plan,
                "losses": self.recipe.losses,
                "perceptual": self.run_.perceptual,
                "adversary": judge,
            }
            found: Terms = self.trainee(reconstruct, tokens, pack, given["noise"], **settings)
            return found

        return self._pass(task, pack, {"noise": self._noise(pack, first)}, terms)

    def _pass(self, task: str, pack: Pack, inputs: dict[str, Tensor], terms: Callable[..., Terms]) -> Terms:
        """Forward and backward pass of a pack; the terms and the loss, divided by the samples of the global batch."""
        samples = self.stage.tasks[task].samples
        # Packs of one kind of item, all of one size, are laid out alike.
        same = len(set(pack.items)) == 1 and pack.items[0].kind != "asset"
        key = (task, len(pack.items), pack.items[0]) if same else None
        tokens = pack.tokens(self.trainee.tokenizer.config.patch, self.world.device)
        plan = self._plan(key, tokens)

        def compute(given: Mapping[str, Tensor]) -> Terms:
            with self._precision():
                found = terms(tokens.with_features(given["features"]), plan, given)
            if self.adversary is not None:
                found = self.adversary.balanced(
                    found, self.recipe.losses, self.trainee.tokenizer.decoder.out_layer.weight
                )
            loss = weigh(found, self.recipe.losses) / samples
            # Gradients are averaged over ranks: times their number, the average is the sum.
            (loss * self.world.size).backward()  # type: ignore[no-untyped-call]
            return {"loss": loss.detach()} | {name: value.detach() / samples for name, value in found.items()}

        inputs = {"features": tokens.features, **inputs}
        if self._graphs is None or key is None or self.adversary is not None:
            return compute(inputs)
        return self._graphs.run(key, compute, inputs)

    def _plan(self, key: Hashable, tokens: SparseTokens) -> Plan:
        plan = self._plans.get(key) if key is not None else None
        if plan is None:
            with self._precision():
                plan = self.trainee.tokenizer.plan(tokens)
        if key is not None:
            self._plans[key] = plan
            if len(self._plans) > MOST_PLANS:
                self._plans.pop(next(iter(self._plans)))
        return plan

    def _precision(self) -> torch.autocast:
        half = self.recipe.precision == "bfloat16"
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=half)

    def _noise(self, pack: Pack, first: int) -> Tensor:
        # This rank's samples are every world-size-th of the global batch.
        numbers = [self.world.rank + (first + i) * self.world.size for i in range(len(pack.ids))]
        seed = ((self.recipe.seed * 64 + self.index) << 32) + self.step
        return normal_noise(seed, numbers, pack.lengths, self.stage.latents, self.world.device)

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

    def _speed(self, meter: _Meter) -> dict[str, float]:
        if self.world.device.type == "cuda":
            torch.cuda.synchronize(self.world.device)
        elapsed = time.perf_counter() - meter.start
        told = {
            "steps_per_s": meter.steps / elapsed,
            "samples_per_s": meter.samples * self.world.size / elapsed,
            "tokens_per_s": meter.tokens * self.world.size / elapsed,
            "tflops_per_gpu": meter.flops / elapsed / 1e12,
            "data_share": meter.waited / elapsed,
        }
        if self.world.device.type == "cuda":
            told["memory_gib"] = torch.cuda.max_memory_allocated(self.world.device) / 2**30
            name = torch.cuda.get_device_name(self.world.device)
            peak = next((peak for part, peak in PEAKS.items() if part in name), None)
            if peak is not None:
                told["mfu"] = meter.flops / elapsed / peak
        return told

    def _validate(self) -> None:
        if self.run_.validate is not None:
            figures = self.run_.validate(self)
            if figures:
                self.run_.log.write({"stage": self.index + 1, "step": self.step, **figures})

    def _zero_gradients(self) -> None:
        if self._graphs is None:
            self.optimizer.zero_grad()
            return
        self._graphs.zero()
        if self.trainee.tokenizer.gaussian_decoder is not None:
            # Not recorded, and not in every step: without a gradient it is left as it is.
            self.trainee.tokenizer.gaussian_decoder.zero_grad()

    # -- Before the first step ---------------------------------------------------------------

    def _freeze_unused(self) -> None:
        """Nothing but text tasks reaches the pooling head and the scores, nothing but assets the Gaussian decoder."""
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

    def _recorder(self) -> Graphs | None:
        if not self.recipe.cuda_graphs or self.world.device.type != "cuda":
            return None
        if self.world.size > 1 or self.run_.perceptual is not None:
            raise TrainingError("cuda_graphs: only on one process and without perceptual terms; set it to false")
        outside = self.trainee.tokenizer.gaussian_decoder
        excluded = set() if outside is None else {id(p) for p in outside.parameters()}
        return Graphs(p for p in self.trainee.parameters() if id(p) not in excluded)

    def _resume(self, notes: dict[str, Any]) -> None:
        differing = _differences(self._deciding(notes["recipe"]), self._deciding(self.recipe.to_dict()))
        # Another number of steps is the same run as long as it has not changed the learning rate of a step.
        if differing == ["stage.steps"] and self._same_rates(notes):
            differing = []
        if differing:
            raise TrainingError(
                f"{self.checkpoints.folder}: holds a run at step {notes['step']} with another {', '.join(differing)}; "
                "give the recipe that it began with, or another folder"
            )
        if notes["data"] != self.batches.fingerprint:
            raise TrainingError(
                f"{self.checkpoints.folder}: holds a run on other data; give the same, or another folder"
            )
        self.checkpoints.load(self.trainee, self.optimizer, self.average, self.adversary)
        self.step, self.skipped, self.replaced = notes["step"], notes["skipped"], notes["replaced"]

    def _same_rates(self, notes: dict[str, Any]) -> bool:
        settings, theirs = self.recipe.optimizer, notes["recipe"]["stages"][self.stage.name]["steps"]
        rates = (learning_rate(settings, step, self.stage.steps) for step in range(notes["step"]))
        return all(rate == learning_rate(settings, step, theirs) for step, rate in enumerate(rates))

    def _deciding(self, recipe: dict[str, Any]) -> dict[str, Any]:
        """What of a recipe decides this stage's results, the other stages and what is only told left out."""
        kept = {key: value for key, value in recipe.items() if key not in TELLING}
        return kept | {"stage": recipe["stages"].get(self.stage.name)}


TELLING = {
    "name",
    "stages",
    "log_every",
    "validate_every",
    "checkpoint_every",
    "patience",
    "compile",
    "recompute",
    "cuda_graphs",
}


def _differences(theirs: dict[str, Any], ours: dict[str, Any], where: str = "") -> list[str]:
    """Dotted keys in which two recipes differ."""
    found = []
    for key in sorted({*theirs, *ours}):
        a, b = theirs.get(key), ours.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{where}{key}.")
        elif a != b:
            found.append(f"{where}{key}")
    return found


def _no_memory(task: str, pack: Pack, recipe: Recipe) -> TrainingError:
    tokens = sum(pack.lengths)
    mend = f"lower pack_tokens (now {recipe.pack_tokens})" if len(pack.ids) > 1 else "lower the task's resolution"
    return TrainingError(
        f"out of memory in {task}: a pack of {len(pack.ids)} items, {tokens} tokens; {mend}"
        f"{'' if recipe.recompute else ', or set recompute: true'}"
    )
