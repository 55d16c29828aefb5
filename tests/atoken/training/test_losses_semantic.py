"""Distillation and the sigmoid loss against torch and open_clip, alone and over two ranks."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, distributed, multiprocessing
from torch.nn import functional as F

from atoken.training.losses import distillation, sigmoid_loss

needs_open_clip = pytest.mark.skipif(find_spec("open_clip") is None, reason="open_clip_torch is not installed")


def _scores(seed: int = 0, shape: tuple[int, int] = (6, 9)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = 5 * torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return student.requires_grad_(), teacher.requires_grad_()


def _unit(count: int, seed: int, width: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, width, generator=generator, dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_distillation_is_torchs_kl_with_its_gradient(temperature: float) -> None:
    student, teacher = _scores()
    wanted = F.kl_div(
        (student / temperature).log_softmax(1), (teacher.detach() / temperature).softmax(1), reduction="batchmean"
    )
    value = distillation(student, teacher, temperature=temperature)
    assert value.item() == pytest.approx(wanted.item(), rel=1e-12)
    ours, theirs = (torch.autograd.grad(loss, student, retain_graph=True)[0] for loss in (value, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-14)
    assert torch.autograd.grad(value, teacher, allow_unused=True) == (None,)


@needs_open_clip
def test_both_directions_are_open_clips_cross_entropy_less_the_teachers_entropy() -> None:
    from open_clip.loss import DistillClipLoss

    images, texts, their_images, their_texts = (_unit(6, seed).requires_grad_() for seed in range(4))
    _, wanted = DistillClipLoss()(images, texts, 7.0, their_images, their_texts, 9.0)
    student, teacher = 7.0 * images @ texts.T, 9.0 * their_images @ their_texts.T
    entropies = [-(t.softmax(1) * t.log_softmax(1)).sum(1).mean() for t in (teacher, teacher.T)]
    value = distillation(student, teacher, temperature=1.0, directions="both")
    assert value.item() == pytest.approx((wanted - sum(entropies) / 2).item(), rel=1e-12)
    # The entropy is the teacher's alone: the student's gradients are the same.
    ours, theirs = (torch.autograd.grad(loss, (images, texts)) for loss in (value, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-14)


@given(seed=st.integers(0, 50), shift=st.floats(-20, 20))
def test_distillation_is_zero_only_for_equal_distributions(seed: int, shift: float) -> None:
    student, teacher = _scores(seed)
    assert distillation(student, teacher).item() > 0
    assert distillation(teacher + shift, teacher).item() == pytest.approx(0, abs=1e-12)
    # Images apart: the mean over a batch is that of its packs, weighed by their images.
    packs = [4 * distillation(student[:4], teacher[:4]), 2 * distillation(student[4:], teacher[4:])]
    assert distillation(student, teacher).item() == pytest.approx(sum(packs).item() / 6)


def test_distillation_of_scores_in_half_precision_is_computed_in_float32() -> None:
    student, teacher = (scores.detach().bfloat16() for scores in _scores())
    with torch.autocast("cpu", torch.bfloat16):
        value = distillation(student, teacher, directions="both")
    assert value.dtype == torch.float32
    wanted = distillation(student.double(), teacher.double(), directions="both")
    assert value.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_other_directions_are_refused() -> None:
    with pytest.raises(ValueError, match="there are image-to-text, both"):
        distillation(*_scores(), directions="text-to-image")  # type: ignore[arg-type]


def _learned() -> tuple[Tensor, Tensor]:
    return (
        torch.tensor(2.3, dtype=torch.float64, requires_grad=True),
        torch.tensor(-3.0, dtype=torch.float64, requires_grad=True),
    )


@needs_open_clip
def test_sigmoid_loss_of_one_rank_is_open_clips_with_its_gradients() -> None:
    from open_clip.loss import SigLipLoss

    images, texts = _unit(6, 0).requires_grad_(), _unit(6, 1)
    log_scale, bias = _learned()
    value = sigmoid_loss(images, texts, torch.eye(6, dtype=torch.bool), log_scale, bias, total=6)
    wanted = SigLipLoss()(images, texts, log_scale.exp(), bias)
    assert value.item() == pytest.approx(wanted.item(), rel=1e-12)
    ours, theirs = (torch.autograd.grad(loss, (images, log_scale, bias)) for loss in (value, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-14)


def test_equal_captions_are_positives_of_one_another() -> None:
    images, texts = _unit(3, 0), _unit(4, 1)
    texts[3] = texts[0]
    log_scale, bias = _learned()
    positives = torch.zeros(3, 4, dtype=torch.bool)
    positives[[0, 1, 2, 0], [0, 1, 2, 3]] = True
    value = sigmoid_loss(images, texts, positives, log_scale, bias, total=3)
    scores = log_scale.exp() * images @ texts.T + bias
    wanted = F.binary_cross_entropy_with_logits(scores, positives.double(), reduction="sum") / 3
    assert value.item() == pytest.approx(wanted.item(), rel=1e-12)


def test_sigmoid_loss_keeps_float32_scores_under_autocast() -> None:
    images, texts, positives = _unit(6, 0).float(), _unit(6, 1).float(), torch.eye(6, dtype=torch.bool)
    log_scale, bias = torch.tensor(4.8438), torch.tensor(-15.5625)
    with torch.autocast("cpu", torch.bfloat16):
        within = sigmoid_loss(images, texts, positives, log_scale, bias, total=6)
    assert torch.equal(within, sigmoid_loss(images, texts, positives, log_scale, bias, total=6))


def _rank(rank: int, meeting: str, results: Any) -> None:
    """Its images with the texts of both ranks; gives value and gradients."""
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    own = slice(0, 4) if rank == 0 else slice(4, 8)
    images, texts = _unit(8, 0)[own].clone().requires_grad_(), _unit(8, 1)[own]
    gathered = [torch.empty_like(texts) for _ in range(2)]
    distributed.all_gather(gathered, texts)
    log_scale, bias = _learned()
    positives = torch.eye(8, dtype=torch.bool)[own]
    value = sigmoid_loss(images, torch.cat(gathered), positives, log_scale, bias, total=8)
    gradients = torch.autograd.grad(value, (images, log_scale, bias))
    results[rank] = [value.item(), *(gradient.tolist() for gradient in gradients)]
    distributed.destroy_process_group()


def test_two_ranks_parts_sum_to_one_ranks_loss(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(_rank, args=(str(tmp_path / "meeting"), results), nprocs=2)
        parts = [results[rank] for rank in range(2)]
    images = _unit(8, 0).requires_grad_()
    log_scale, bias = _learned()
    value = sigmoid_loss(images, _unit(8, 1), torch.eye(8, dtype=torch.bool), log_scale, bias, total=8)
    of_images, of_scale, of_bias = torch.autograd.grad(value, (images, log_scale, bias))
    values, by_images, by_scale, by_bias = zip(*parts, strict=True)
    assert sum(values) == pytest.approx(value.item(), rel=1e-12)
    torch.testing.assert_close(torch.tensor([*by_images[0], *by_images[1]], dtype=torch.float64), of_images)
    assert sum(by_scale) == pytest.approx(of_scale.item(), rel=1e-12)
    assert sum(by_bias) == pytest.approx(of_bias.item(), rel=1e-12)
