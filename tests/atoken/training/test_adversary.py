"""The adversarial baseline in training: whom it pulls, what it learns, and that it goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn

from atoken.training.adversary import LR, SMALLEST, Adversary, open_adversary
from atoken.training.distributed import World
from atoken.training.errors import TrainingError
from atoken.training.logs import LOG
from atoken.training.losses import PatchDiscriminator
from atoken.training.recipe import Losses, Recipe
from atoken.training.recipe_files import load_recipe
from atoken.training.session import Inputs, run_session
from atoken.training.terms import weigh

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
    weighed = replace(nano, losses=replace(nano.losses, adversarial=0.5, adversarial_start=7))
    opened = open_adversary(weighed, 0, one)
    assert opened is not None
    assert opened.start == 7
    with pytest.raises(TrainingError, match=r"losses\.adversarial 0\.5: .* one process, not on 2; .*without torchrun"):
        open_adversary(weighed, 0, two)
    video = replace(weighed.stages[1], tasks={"video_recon": weighed.stages[1].tasks["video_recon"]})
    assert open_adversary(replace(weighed, stages=(video,)), 0, two) is None


def test_the_terms_of_a_pack_are_balanced_without_kl() -> None:
    adversary, painter, images = Adversary(device=CPU), Painter(), pictures(0, (32, 32), (32, 32))
    copies = painter(images)
    l1 = torch.stack([(a - b).abs().mean() for a, b in zip(images, copies, strict=True)]).sum()
    losses = Losses(lpips=0, gram=0, clip=0, reconstruction=0.2, adversarial=0.5)
    terms = {"l1": l1, "kl": 1e6 * painter.last.weight.sum(), "adversarial": adversary.judge(images, copies)}
    made = adversary.balanced(terms, losses, painter.last.weight)
    assert made["l1"] is l1
    given = torch.autograd.grad(made["adversarial"], painter.last.weight, retain_graph=True)[0]
    wanted = torch.autograd.grad(l1, painter.last.weight, retain_graph=True)[0]
    assert given.norm().item() == pytest.approx(0.2 * wanted.norm().item(), rel=0.05)
    assert weigh(made, losses).item() == pytest.approx(
        (0.2 * l1 + 1e-8 * made["kl"] + 0.5 * made["adversarial"]).item(), rel=1e-5
    )
    without = {"l1": l1}
    assert adversary.balanced(without, losses, painter.last.weight) is without


def test_without_images_it_learns_nothing() -> None:
    assert Adversary(device=CPU).learn() == {}


# In the trainer.


def lines(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / LOG).read_text().splitlines()]


def train(recipe: Recipe, folder: Path, out: Path, steps: int | None = None) -> None:
    calls = iter(range(10**6))
    stop = (lambda: False) if steps is None else (lambda: next(calls) == steps)
    inputs = Inputs(data={"images": [str(folder)]}, val={}, out=out, cache=out / "cache", workers=0)
    run_session(recipe, range(1), inputs, device="cpu", stop=stop, say=lambda _: None)


def test_a_training_is_judged_from_its_start_step_and_goes_on_where_it_stopped(
    make_recipe: Callable[..., Recipe], folder: Path, tmp_path: Path
) -> None:
    base = make_recipe(7)
    recipe = replace(base, losses=replace(base.losses, adversarial=0.5, adversarial_start=2))
    train(recipe, folder, tmp_path / "whole")
    train(recipe, folder, tmp_path / "cut", steps=4)
    train(recipe, folder, tmp_path / "cut")
    whole, cut = lines(tmp_path / "whole"), lines(tmp_path / "cut")
    judged = [name for name in whole[-1] if "disc" in name or "gan" in name or name.endswith("adversarial")]
    assert len(judged) == 5
    assert [all(name in line for name in judged) for line in whole] == [False] * 2 + [True] * 5
    for one, other in zip(whole, cut, strict=True):
        assert {k: v for k, v in one.items() if "/" in k} == {k: v for k, v in other.items() if "/" in k}
    # It pulls: what it has not judged yet is as without it, then no more.
    train(base, folder, tmp_path / "plain")
    plain = lines(tmp_path / "plain")
    same = [one["image_recon/l1"] == other["image_recon/l1"] for one, other in zip(whole, plain, strict=True)]
    assert same == [True] * 3 + [False] * 4
