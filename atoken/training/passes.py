"""Forward and backward pass of a pack, at once or by way of a recording."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from atoken.network import Plan
from atoken.tokens import SparseTokens
from atoken.training.adversary import Adversary
from atoken.training.data import Pack
from atoken.training.distributed import World
from atoken.training.errors import TrainingError
from atoken.training.graphs import Graphs
from atoken.training.noise import normal_noise
from atoken.training.perceptual import Perceptual
from atoken.training.recipe import Recipe
from atoken.training.terms import Aligned, align, reconstruct, weigh
from atoken.training.trainee import Terms, Trainee

__all__ = ["Passes"]

MOST_PLANS = 256
"""Layouts of packs that are kept."""


class Passes:
    """The passes of one stage: terms come out, gradients are added to the weights'."""

    def __init__(
        self,
        recipe: Recipe,
        stage: int,
        trainee: Trainee,
        world: World,
        *,
        perceptual: Perceptual | None,
        adversary: Adversary | None,
    ) -> None:
        """For weights that are where they stay.

        Args:
            stage: its index, 0 for the first.

        Raises:
            TrainingError: CUDA graphs are asked for where they cannot be recorded.
        """
        self._recipe, self._index, self._stage = recipe, stage, recipe.stages[stage]
        self._trainee, self._world = trainee, world
        self._perceptual, self._adversary = perceptual, adversary
        self._plans: dict[Hashable, Plan] = {}
        self._graphs = self._recorder()

    def align(self, task: str, pack: Pack, aligned: Aligned) -> Terms:
        """Terms of a pack of a text task, and the loss, divided by the samples of the global batch.

        Raises:
            TrainingError: memory ran out; names task and tokens.
        """
        inputs = {"texts": aligned.texts, "positives": aligned.positives}
        if aligned.teacher is not None:
            inputs["teacher"] = aligned.teacher

        def terms(tokens: SparseTokens, plan: Plan, given: Mapping[str, Tensor]) -> Terms:
            what = Aligned(given["texts"], given["positives"], given.get("teacher"))
            found: Terms = self._trainee(align, tokens, what, plan=plan, losses=self._recipe.losses)
            return found

        return self._pass(task, pack, inputs, terms)

    def reconstruct(self, task: str, pack: Pack, *, step: int, first: int) -> Terms:
        """As `align`, of a reconstruction.

        Args:
            step: of the stage, 0 for the first.
            first: samples of this rank's batch that stand before the pack.
        """
        adversary = self._adversary
        judge = adversary if adversary is not None and adversary.active(step) else None
        settings: dict[str, Any] = {
            "losses": self._recipe.losses, "perceptual": self._perceptual, "adversary": judge,
        }  # fmt: skip

        def terms(tokens: SparseTokens, plan: Plan, given: Mapping[str, Tensor]) -> Terms:
            found: Terms = self._trainee(reconstruct, tokens, pack, given["noise"], plan=plan, **settings)
            return found

        # This rank's samples are every world-size-th of the global batch.
        numbers = [self._world.rank + (first + i) * self._world.size for i in range(len(pack.ids))]
        seed = ((self._recipe.seed * 64 + self._index) << 32) + step
        noise = normal_noise(seed, numbers, pack.lengths, self._stage.latents, self._world.device)
        return self._pass(task, pack, {"noise": noise}, terms)

    def zero_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Forget all gradients; those that recorded passes add to stay where they are."""
        if self._graphs is None:
            optimizer.zero_grad()
            return
        self._graphs.zero()
        if self._trainee.tokenizer.gaussian_decoder is not None:
            # Not recorded, and not in every step: without a gradient it is left as it is.
            self._trainee.tokenizer.gaussian_decoder.zero_grad()

    def _pass(self, task: str, pack: Pack, inputs: dict[str, Tensor], terms: Callable[..., Terms]) -> Terms:
        samples = self._stage.tasks[task].samples
        # Packs of one kind of item, all of one size, are laid out alike.
        same = len(set(pack.items)) == 1 and pack.items[0].kind != "asset"
        key = (task, len(pack.items), pack.items[0]) if same else None
        try:
            # Of an image or an asset one frame: what fills its patches up to four says nothing, see `reconstruct`.
            tokens = pack.tokens(pack.patch, self._world.device)
            plan = self._plan(key, tokens)

            def compute(given: Mapping[str, Tensor]) -> Terms:
                with self._precision():
                    found = terms(tokens.with_features(given["features"]), plan, given)
                if self._adversary is not None:
                    last = self._trainee.tokenizer.decoder.out_layer.weight
                    found = self._adversary.balanced(found, self._recipe.losses, last)
                loss = weigh(found, self._recipe.losses) / samples
                # Gradients are averaged over ranks: times their number, the average is the sum.
                (loss * self._world.size).backward()  # type: ignore[no-untyped-call]
                return {"loss": loss.detach()} | {name: value.detach() / samples for name, value in found.items()}

            inputs = {"features": tokens.features, **inputs}
            if self._graphs is None or key is None:
                return compute(inputs)
            return self._graphs.run(key, compute, inputs)
        except (torch.cuda.OutOfMemoryError, MemoryError) as error:
            raise self._no_memory(task, pack) from error

    def _plan(self, key: Hashable, tokens: SparseTokens) -> Plan:
        plan = self._plans.get(key) if key is not None else None
        if plan is None:
            with self._precision():
                plan = self._trainee.tokenizer.plan(tokens)
            if key is not None:
                self._plans[key] = plan
                if len(self._plans) > MOST_PLANS:
                    self._plans.pop(next(iter(self._plans)))
        return plan

    def _precision(self) -> torch.autocast:
        half = self._recipe.precision == "bfloat16"
        return torch.autocast(self._world.device.type, torch.bfloat16, enabled=half)

    def _recorder(self) -> Graphs | None:
        # Beside an adversary a pass is not the same kernels at every step.
        if not self._recipe.cuda_graphs or self._world.device.type != "cuda" or self._adversary is not None:
            return None
        if self._world.size > 1 or self._perceptual is not None:
            raise TrainingError("cuda_graphs: only on one process and without perceptual terms; set it to false")
        outside = self._trainee.tokenizer.gaussian_decoder
        excluded = set() if outside is None else {id(p) for p in outside.parameters()}
        return Graphs(p for p in self._trainee.parameters() if id(p) not in excluded)

    def _no_memory(self, task: str, pack: Pack) -> TrainingError:
        tokens, most = sum(pack.lengths), self._recipe.pack_tokens
        mend = f"lower pack_tokens (now {most})" if len(pack.ids) > 1 else "lower the task's resolution"
        return TrainingError(
            f"out of memory in {task}: a pack of {len(pack.ids)} items, {tokens} tokens; {mend}"
            f"{'' if self._recipe.recompute else ', or set recompute: true'}"
        )
