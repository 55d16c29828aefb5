"""The adversarial baseline in training: whom it pulls, what it learns, and that it goes on where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn

from atoken.training.adversary import LR, SMALLEST, Adversary, open_adversary
from atoken.training.distributed import World
from atoken.training.errors import TrainingError
from atoken.training.losses import PatchDiscriminator
from atoken.training.recipe_files import load_recipe

CPU = torch.device("cpu")


def pictures(seed: int, *sizes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(height, width, 3, generator=generator) * 2 - 1 for height, width in sizes]


class Painter(nn.Module):
    """Rebuilds images as a scaled and shifted copy: the smallest thing with a last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            self.last.weight.copy_(torch.eye(3) * 0.2)

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        return [self.last(image) for image in images]


def pulled(adversary: Adversary, painter: Painter, images: list[Tensor]) -> tuple[Tensor, Tensor]:
    copies = painter(images)
    reconstruction = torch.stack(
        [(a - b).abs().mean() for a, b in zip(images, copies, strict=True)],
    ).sum()
    return reconstruction, adversary.balance(reconstruction, adversary.judge(images, copies), painter.last.weight)


def test_the_pull_is_as_strong_as_reconstruction_at_the_last_layer() -> None:
    adversary, painter = Adversary(device=CPU), Painter()
    reconstruction, pull = pulled(adversary, painter, pictures(0, (32, 32), (32, 32), (48, 32)))
    wanted, given = (
        torch.autograd.grad(loss, painter.last.weight, retain_graph=True)[0] for loss in (reconstruction, pull)
    )
    assert given.norm().item() == pytest.approx(wanted.norm().item(), rel=0.05)
    assert all(weight.grad is None for weight in adversary.discriminator.parameters())


def test_its_loss_is_minus_the_mean_logit_of_each_size_as_the_networks_own() -> None:
    adversary = Adversary(device=CPU, seed=3)
    images = pictures(1, (32, 32), (48, 32), (32, 32))
    own = PatchDiscriminator(seed=3)  # in training mode, as the adversary's
    batches = [torch.stack([images[0], images[2]]), images[1][None]]
    wanted = sum(-len(batch) * own(batch.permute(0, 3, 1, 2)).mean() for batch in batches)
    assert adversary.judge(pictures(2, (32, 32), (48, 32), (32, 32)), images).item() == pytest.approx(wanted.item())


def test_small_images_are_judged_too() -> None:
    adversary = Adversary(device=CPU)
    images, copies = pictures(0, (16, 16), (16, 64)), pictures(1, (16, 16), (16, 64))
    assert min(images[0].shape[:2]) < SMALLEST
    assert adversary.judge(images, copies).isfinite()


def test_learning_parts_the_logits_and_tells_what_it_saw() -> None:
    adversary = Adversary(device=CPU)
    flat = [torch.full((32, 32, 3), value, requires_grad=True) for value in (0.1, -0.3, 0.5)]
    told = {}
    for step in range(12):
        for first in (0, 2):  # two packs
            part = pictures(step, *[(32, 32)] * 3)[first : first + 2]
            judged = adversary.judge(part, flat[first : first + 2])
            adversary.balance(judged * 2, judged, flat[first])
        told = adversary.learn()
        if step == 0:
            start = told
    assert set(told) == {"disc_loss", "disc_real", "disc_fake", "gen_loss", "gan_weight"}
    assert told["disc_loss"] < 0.7 * start["disc_loss"]
    assert told["disc_real"] > told["disc_fake"] + 0.5
    assert abs(start["disc_real"] - start["disc_fake"]) < 0.5
    assert start["gan_weight"].item() == pytest.approx(2, rel=0.05)
    assert told["gen_loss"].item() == pytest.approx(-told["disc_fake"].item(), abs=0.5)
    assert all(not value.requires_grad for value in told.values())


def test_the_optimiser_is_lightningdits() -> None:
    (group,) = Adversary(device=CPU).optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (LR, (0.5, 0.9), 0.0) == (1e-4, (0.5, 0.9), 0.0)


def test_a_loss_that_is_not_finite_changes_no_weight() -> None:
    adversary = Adversary(device=CPU)
    before = [weight.clone() for weight in adversary.discriminator.parameters()]
    copies = [image.requires_grad_() for image in pictures(1, (32, 32))]
    judged = adversary.judge([pictures(0, (32, 32))[0] * torch.nan], copies)
    adversary.balance(judged, judged, copies[0])
    assert not adversary.learn()["disc_loss"].isfinite()
    assert all(torch.equal(a, b) for a, b in zip(before, adversary.discriminator.parameters(), strict=True))


def steps(adversary: Adversary, numbers: range) -> list[dict[str, float]]:
    lines = []
    for number in numbers:
        copies = [image.requires_grad_() for image in pictures(100 + number, (32, 32), (32, 32))]
        judged = adversary.judge(pictures(number, (32, 32), (32, 32)), copies)
        adversary.balance(judged, judged, copies[0])
        lines.append({name: value.item() for name, value in adversary.learn().items()})
    return lines


@pytest.mark.parametrize("done", [0, 3])
def test_through_a_checkpoint_it_goes_on_bit_for_bit(tmp_path: Path, done: int) -> None:
    whole, cut, resumed = (Adversary(device=CPU, seed=seed) for seed in (0, 0, 9))
    expected = steps(whole, range(6))
    steps(cut, range(done))
    dcp.save({"adversary": cut.state_dict()}, checkpoint_id=tmp_path)
    state = {"adversary": resumed.state_dict()}
    dcp.load(state, checkpoint_id=tmp_path)
    resumed.load_state_dict(state["adversary"])
    assert steps(resumed, range(done, 6)) == expected[done:]
    for key, value in whole.discriminator.state_dict().items():
        assert torch.equal(value, resumed.discriminator.state_dict()[key]), key


def test_it_begins_when_it_is_told() -> None:
    adversary = Adversary(device=CPU, start=5)
    assert [adversary.active(step) for step in (0, 4, 5, 6)] == [False, False, True, True]


def test_it_is_opened_where_a_recipe_weighs_it_and_images_are_rebuilt() -> None:
    nano = load_recipe("nano")
    one, two = (World(0, size, CPU) for size in (1, 2))
    assert open_adversary(nano, 0, one) is None
    weighed = replace(nano, losses=replace(nano.losses, adversarial=0.5))
    opened = open_adversary(weighed, 0, one, start=7)
    assert opened is not None
    assert opened.start == 7
    with pytest.raises(TrainingError, match=r"losses\.adversarial 0\.5: .* one process, not on 2; .*without torchrun"):
        open_adversary(weighed, 0, two)
    video = replace(weighed.stages[1], tasks={"video_recon": weighed.stages[1].tasks["video_recon"]})
    assert open_adversary(replace(weighed, stages=(video,)), 0, two) is None
