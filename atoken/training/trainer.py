"""The loop: plain PyTorch, resumable at any step, stoppable at any time."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from atoken.config import preset
from atoken.patches import pack_pixels
from atoken.tokenizer import AToken
from atoken.training.data import Batch, Photos, random_crops
from atoken.training.errors import TrainingError
from atoken.training.evaluate import mean_psnr
from atoken.training.losses import kl_divergence, log_mse
from atoken.training.recipe import Recipe
from atoken.training.schedule import learning_rate
from atoken.training.start.pca import fit_basis, image_config, initialise
from atoken.training.state import load_state, save_state

__all__ = ["LOG", "Trainer"]

LOG = "log.jsonl"

Report = Callable[[dict[str, Any]], None]
"""Is given every line of the log."""


class Trainer:
    """One run of a recipe in one folder.

    Opening a folder that holds a run goes on with it: the losses are, on the same CPU and number of
    threads, bit for bit those of a run that was never interrupted, because batches and noise come
    from (seed, step) and everything else is in the state.
    """

    def __init__(self, recipe: Recipe, photos: Photos, out: Path, *, validation: Photos | None = None) -> None:
        """Start anew from the PCA of `photos`, or from the state in `out`.

        Raises:
            TrainingError: `out` holds a run of another recipe or of other photos.
        """
        self.recipe, self.photos, self.out, self.validation = recipe, photos, out, validation
        self.config = preset(recipe.preset)
        self.model = AToken(image_config(self.config))
        # Nothing in image reconstruction reaches the pooling head.
        self.model.encoder.head.requires_grad_(False)
        self.step = 0
        self.skipped = 0
        self._bad_in_a_row = 0
        self._fingerprint = photos.fingerprint
        state = load_state(out)
        if state is None:
            initialise(self.model, fit_basis(photos.pixels), latent_std=recipe.latent_std, seed=recipe.seed)
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizer = _optimizer(self.model, recipe)
        if state is not None:
            self._resume(state)
        self._trim_log()

    def run(
        self,
        *,
        seconds: float = math.inf,
        stop: Callable[[], bool] = lambda: False,
        report: Report | None = None,
    ) -> bool:
        """Train to the recipe's last step; the state is saved at the end, however early it comes.

        Args:
            seconds: stop after this long.
            stop: asked after every step.
            report: called with every line of the log.

        Returns:
            Whether the last step was reached.

        Raises:
            TrainingError: `patience` steps in a row gave no finite loss; names the samples.
        """
        recipe, start = self.recipe, time.monotonic()
        mark, images, tokens = start, 0, 0
        try:
            while self.step < recipe.steps and time.monotonic() - start < seconds and not stop():
                batch, line = self._train_step()
                images, tokens = images + len(batch.ids), tokens + recipe.tokens_per_step
                if self.step % recipe.log_every == 0:
                    now = time.monotonic()
                    speed = {"images_per_s": images / (now - mark), "tokens_per_s": tokens / (now - mark)}
                    self._log(line | speed, report)
                    mark, images, tokens = now, 0, 0
                last = self.step == recipe.steps
                if self.validation is not None and (last or self.step % recipe.validate_every == 0):
                    score = mean_psnr(self.ema, self.validation.pixels)
                    self._log({"step": self.step, "val_psnr": score}, report)
                if self.step % recipe.checkpoint_every == 0:
                    self.save()
        except TrainingError:
            self.save()
            raise
        self.save()
        return self.step >= recipe.steps

    def save(self) -> None:
        """Write the state of the run."""
        save_state(
            self.out,
            {
                "step": self.step,
                "skipped": self.skipped,
                "recipe": self.recipe.to_dict(),
                "photos": self._fingerprint,
                "model": self.model.state_dict(),
                "ema": self.ema.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
        )

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch, differentiable, with its parts; noise comes from (seed, step)."""
        model, recipe = self.model, self.recipe
        tokens = pack_pixels(batch.crops, patch=model.config.patch)
        _, moments = model.forward_encoder(tokens)
        mean, logvar = moments.chunk(2, dim=-1)
        generator = torch.Generator().manual_seed(recipe.seed * 2**32 + self.step)
        noise = torch.randn(mean.shape, generator=generator)
        latents = mean + torch.exp(0.5 * logvar) * noise
        rebuilt = model.forward_decoder(tokens.with_features(latents))
        reconstruction = log_mse(rebuilt, tokens.features, tokens.lengths)
        divergence = kl_divergence(mean, logvar)
        loss = recipe.log_mse * reconstruction + recipe.kl * divergence
        return loss, {"log_mse": reconstruction.item(), "kl": divergence.item()}

    def _train_step(self) -> tuple[Batch, dict[str, Any]]:
        recipe = self.recipe
        rate = learning_rate(recipe, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_ratio"]
        crop = recipe.cooldown_crop if self.step >= recipe.cooldown_start else recipe.crop
        batch = random_crops(self.photos, seed=recipe.seed, step=self.step, crop=crop, tokens=recipe.tokens_per_step)
        loss, parts = self.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(_trained(self.model), recipe.clip)
        if math.isfinite(loss.item()) and math.isfinite(norm.item()):
            self.optimizer.step()
            self._average()
            self._bad_in_a_row = 0
        else:
            self.skipped += 1
            self._bad_in_a_row += 1
        self.optimizer.zero_grad()
        self.step += 1
        if self._bad_in_a_row >= recipe.patience:
            raise TrainingError(
                f"step {self.step}: no finite loss in {self._bad_in_a_row} steps in a row; the last had "
                f"{', '.join(sorted(set(batch.ids)))}; look at these images, or lower lr"
            )
        line = {"step": self.step, "loss": loss.item(), **parts, "lr": rate, "grad_norm": norm.item()}
        return batch, line | {"skipped": self.skipped}

    @torch.no_grad()
    def _average(self) -> None:
        # A short memory at first, so that the start is forgotten.
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        for average, weight in zip(self.ema.parameters(), self.model.parameters(), strict=True):
            if weight.requires_grad:
                average.lerp_(weight, 1.0 - decay)

    def _resume(self, state: dict[str, Any]) -> None:
        theirs, ours = state["recipe"], self.recipe.to_dict()
        differing = sorted(key for key in ours if theirs.get(key) != ours[key])
        # More or fewer steps only move the cool-down, as long as it has not begun.
        if differing == ["steps"] and state["step"] <= self.recipe.cooldown_start:
            differing = []
        if differing:
            raise TrainingError(
                f"{self.out}: holds a run at step {state['step']} with another {', '.join(differing)}; "
                "give the recipe that it began with, or another folder"
            )
        if state["photos"] != self._fingerprint:
            raise TrainingError(f"{self.out}: holds a run on other images; give the same ones, or another folder")
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.skipped = state["step"], state["skipped"]

    def _trim_log(self) -> None:
        """Drop lines of steps that a killed run logged and did not save: they come again."""
        path = self.out / LOG
        if path.is_file():
            lines = path.read_text().splitlines()
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= self.step]
            path.write_text("".join(line + "\n" for line in kept))

    def _log(self, line: dict[str, Any], report: Report | None) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / LOG).open("a") as file:
            file.write(json.dumps(line) + "\n")
        if report is not None:
            report(line)


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW in two groups: the blocks' matrices, and what the PCA has set."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            inner = ".blocks." in name and name.endswith(".weight") and parameter.ndim == 2
            (matrices if inner else rest).append(parameter)
    groups = [
        {"params": matrices, "lr_ratio": 1.0, "weight_decay": recipe.weight_decay},
        {"params": rest, "lr_ratio": recipe.io_lr_ratio, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=True)
