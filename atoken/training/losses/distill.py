"""Distillation of a frozen tower's image-text scores (eq. 7)."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from atoken.training.losses.precision import widened

__all__ = ["Directions", "distillation"]

Directions = Literal["image-to-text", "both"]


def distillation(
    student: Tensor, teacher: Tensor, *, temperature: float = 2.0, directions: Directions = "image-to-text"
) -> Tensor:
    """KL(softmax(teacher / temperature) || softmax(student / temperature)): a scalar, without a factor temperature^2.

    The scores are logits, exp(scale) * cosine + bias: of bare cosines the distributions would be almost uniform
    (PROTOCOLS 11.6).

    Args:
        student, teacher: [images, texts], against the same texts. No gradient flows to the teacher.
        directions: "image-to-text" is the mean over images of the KL over texts, so that a pack of the batch's images
            adds its part. "both" is the mean of that and of its transpose, as open_clip distils; the second
            distribution is over the images that are given. The paper does not say which.
    """
    if directions not in get_args(Directions):
        raise ValueError(f"no directions {directions!r}; there are {', '.join(get_args(Directions))}")
    student, teacher = widened(student) / temperature, widened(teacher.detach()) / temperature
    loss = _divergence(student, teacher)
    return loss if directions == "image-to-text" else 0.5 * (loss + _divergence(student.T, teacher.T))


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over rows of the KL over columns."""
    wanted, given = teacher.log_softmax(dim=1), student.log_softmax(dim=1)
    return (wanted.exp() * (wanted - given)).sum(dim=1).mean()
