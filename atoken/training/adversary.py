"""The adversarial baseline of Fig. 4a in training: a PatchGAN that learns beside the tokenizer.

As LightningDiT trains VA-VAE: the tokenizer is pulled by reconstruction + share * adaptive weight * -mean logit of its
images, then the discriminator takes a step of its own on the same images. Images are judged at their own resolution,
those of one size together. It says in the log how far apart its logits of real and of rebuilt images are: where they
run apart, the discriminator has won (Fig. 4a).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.nn import functional as F

from atoken.training.distributed import World
from atoken.training.errors import TrainingError
from atoken.training.losses import PatchDiscriminator, adaptive_weight, discriminator_loss, generator_loss
from atoken.training.losses.precision import no_autocast, widened
from atoken.training.recipe import Losses, Recipe
from atoken.training.terms import weigh
from atoken.training.trainee import Terms

__all__ = ["ADVERSARIAL", "LR", "SMALLEST", "TASK", "Adversary", "open_adversary"]

TASK = "image_recon"
"""The task whose images are judged."""

ADVERSARIAL = "adversarial"
"""The term's name: its weight in the recipe is the share."""

LR, BETAS = 1e-4, (0.5, 0.9)
"""Of the discriminator, constant (LightningDiT's VA-VAE); without weight decay AdamW is its Adam."""

SMALLEST = 24
"""Pixels of a side from which a patch is judged; shorter sides are continued by their edge."""


_Pairs = list[tuple[Tensor, Tensor]]
"""Real and rebuilt images of one pack, [N, 3, H, W] of each size, for the discriminator's own step."""


class Adversary:
    """A discriminator with its optimiser.

    In every step of the trainer, for each pack `judge` and `balanced`, then once `learn`.

    Attributes:
        start: steps of the stage before it begins; until then nothing is judged and nothing learned.
    """

    def __init__(self, *, device: torch.device, seed: int = 0, start: int = 0) -> None:
        self.start = start
        self.discriminator: nn.Module = PatchDiscriminator(seed=seed).to(device)
        self.optimizer = torch.optim.AdamW(self.discriminator.parameters(), lr=LR, betas=BETAS, weight_decay=0.0)
        # As AdamW makes it at its first step. Torch makes it for a checkpoint by taking a step, which then counts.
        for weight in self.discriminator.parameters():
            moments = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
            self.optimizer.state[weight] = {"step": torch.zeros(()), **moments}
        self._shown: list[_Pairs] = []
        self._pulls: list[tuple[Tensor, Tensor]] = []

    def active(self, step: int) -> bool:
        """Whether it takes part in a step, 0 for the stage's first."""
        return step >= self.start

    def judge(self, originals: Sequence[Tensor], copies: Sequence[Tensor]) -> Tensor:
        """The tokenizer's loss, summed over images: minus the mean logit of each copy. A scalar with a graph.

        Args:
            originals, copies: [H, W, 3] each, in [-1, 1]; remembered without their graphs until `learn`.
        """
        shown: _Pairs = []
        total = copies[0].new_zeros((), dtype=torch.float32)
        # The tokenizer's gradients pass through it and leave none of its own behind.
        self.discriminator.requires_grad_(False)
        for members in _by_size(copies):
            real, fake = (_batch([images[index] for index in members]) for images in (originals, copies))
            with no_autocast(fake):
                total = total + len(members) * generator_loss(self.discriminator(fake))
            shown.append((real.detach(), fake.detach()))
        self._shown.append(shown)
        return total

    def balance(self, reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
        """The tokenizer's loss, made as strong as reconstruction is at the decoder's last layer.

        Args:
            reconstruction: the pack's weighted terms without KL and without this one, summed over images.
            adversarial: of `judge`.
            last_layer: weight of the decoder's last layer, `decoder.out_layer.weight`.
        """
        count = sum(len(real) for real, _ in self._shown[-1])
        # Of means, as in a trainer without packs: the weight has a floor in it.
        weight = adaptive_weight(reconstruction / count, adversarial / count, last_layer)
        self._pulls.append((weight, adversarial.detach()))
        return weight * adversarial

    def balanced(self, terms: Terms, losses: Losses, last_layer: Tensor) -> Terms:
        """A pack's terms, with the adversarial one `balance`d against those of reconstruction where it is there."""
        if ADVERSARIAL not in terms:
            return terms
        rebuilding = {name: value for name, value in terms.items() if name not in ("kl", ADVERSARIAL)}
        pull = self.balance(weigh(rebuilding, losses), terms[ADVERSARIAL], last_layer)
        return {**terms, ADVERSARIAL: pull}

    def learn(self) -> Terms:
        """The discriminator's step on all images judged since the last one, and what to log of it.

        A loss that is not finite changes nothing.

        Returns:
            Nothing where none were judged. Else scalars: `disc_loss` (hinge), `disc_real` and `disc_fake` (mean
            logits), `gen_loss` (minus the mean logit that the tokenizer saw), `gan_weight` (the adaptive weight, mean
            over packs).
        """
        pairs = [pair for shown in self._shown for pair in shown]
        if not pairs:
            return {}
        count = sum(len(real) for real, _ in pairs)
        told = {name: torch.zeros((), device=pairs[0][0].device) for name in ("disc_loss", "disc_real", "disc_fake")}
        self.discriminator.requires_grad_(True)
        self.optimizer.zero_grad(set_to_none=True)
        for real, fake in pairs:
            share = len(real) / count
            with no_autocast(real):
                logits = self.discriminator(real), self.discriminator(fake)
                loss = discriminator_loss(*logits) * share
            torch.autograd.backward(loss)
            parts = (loss.detach(), *(part.detach().mean() * share for part in logits))
            for name, part in zip(told, parts, strict=True):
                told[name] += part
        if bool(told["disc_loss"].isfinite()):
            self.optimizer.step()
        weights, pulls = zip(*self._pulls, strict=True)
        self._shown, self._pulls = [], []
        return told | {"gen_loss": torch.stack(pulls).sum() / count, "gan_weight": torch.stack(weights).mean()}

    def state_dict(self) -> dict[str, Any]:
        """Weights, statistics of its norms, and optimiser state, for a checkpoint."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": dict(get_optimizer_state_dict(self.discriminator, self.optimizer)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.discriminator.load_state_dict(state["discriminator"])
        set_optimizer_state_dict(self.discriminator, self.optimizer, optim_state_dict=state["optimizer"])


def open_adversary(recipe: Recipe, stage: int, world: World) -> Adversary | None:
    """The adversary of a stage, or None where the recipe weighs none or the stage rebuilds no images.

    Raises:
        TrainingError: more than one process; it is a baseline, whose batch norms and weights are nobody's but one's.
    """
    if not recipe.losses.adversarial or TASK not in recipe.stages[stage].tasks:
        return None
    if world.size > 1:
        raise TrainingError(
            f"losses.adversarial {recipe.losses.adversarial:g}: the discriminator trains on one process, not on "
            f"{world.size}; start without torchrun, or --set losses.adversarial=0"
        )
    return Adversary(device=world.device, seed=recipe.seed, start=recipe.losses.adversarial_start)


def _by_size(images: Sequence[Tensor]) -> list[list[int]]:
    sizes: dict[torch.Size, list[int]] = {}
    for index, image in enumerate(images):
        sizes.setdefault(image.shape, []).append(index)
    return list(sizes.values())


def _batch(images: Sequence[Tensor]) -> Tensor:
    """[N, 3, H, W] float32 of images of one size, their sides at least `SMALLEST`."""
    batch = widened(torch.stack(list(images))).permute(0, 3, 1, 2)
    lower, right = (max(0, SMALLEST - side) for side in batch.shape[2:])
    return F.pad(batch, (0, right, 0, lower), mode="replicate") if lower or right else batch
