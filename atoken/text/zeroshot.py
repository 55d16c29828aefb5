"""Zero-shot classification: an image belongs to the class whose texts are nearest (PROTOCOLS section 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from atoken.errors import InputError
from atoken.text.tower import TextTower

__all__ = ["accuracy", "class_vectors"]

ROWS = 4096
"""Images compared at once: scores of a large set need not lie in memory whole."""


def class_vectors(tower: TextTower, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """A unit vector for each class: the mean over templates of unit vectors, brought to unit length again.

    Args:
        templates: with one "{}" each, which becomes the name.

    Returns:
        [K, width] float32, in the order of `names`.

    Raises:
        InputError: no names, no templates, or a template without "{}".
    """
    if isinstance(names, str) or isinstance(templates, str) or not names or not templates:
        raise InputError("zero-shot classes need lists of one or more names and templates")
    for template in templates:
        if "{}" not in template:
            raise InputError(f'template {template!r} has no "{{}}" for the name')
    texts = [template.replace("{}", name) for name in names for template in templates]
    vectors = torch.unflatten(tower.embed(texts), 0, (len(names), len(templates)))
    return F.normalize(vectors.mean(dim=1), dim=-1)


def accuracy(
    image_vectors: Tensor, class_vectors: Tensor, labels: Tensor, top: Sequence[int] = (1, 5)
) -> dict[int, float]:
    """Share of images whose own class is among the nearest.

    A class with the same score as an image's own counts as nearer: equal scores must not make a broken model, which
    gives all classes the same, look good.

    Args:
        image_vectors: [N, D], of any length.
        class_vectors: [K, D].
        labels: [N] whole numbers, 0 to K - 1.
        top: for each k, the own class is among the k nearest.

    Returns:
        By k, 0 to 1.

    Raises:
        InputError: shapes that do not fit, no images, labels out of range, or vectors that are not finite.
    """
    count, classes = len(image_vectors), len(class_vectors)
    if image_vectors.ndim != 2 or image_vectors.shape[1:] != class_vectors.shape[1:] or labels.shape != (count,):
        raise InputError(
            f"give vectors [N, D] and [K, D] and labels [N], not {list(image_vectors.shape)}, "
            f"{list(class_vectors.shape)} and {list(labels.shape)}"
        )
    if not count or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(f"labels must be 0 to {classes - 1} for one image or more")
    nearer = torch.empty(count, dtype=torch.long)
    for start in range(0, count, ROWS):
        rows = slice(start, start + ROWS)
        # In float64, brought to float32 once: equal classes have equal scores, whatever order a product sums in.
        scores = (F.normalize(image_vectors[rows].double(), dim=-1) @ class_vectors.double().t()).float()
        if not bool(scores.isfinite().all()):
            raise InputError("vectors of images or classes are not finite")
        own = scores.gather(1, labels[rows].to(scores.device).long().unsqueeze(1))
        nearer[rows] = (scores >= own).sum(1).cpu() - 1
    return {k: float((nearer < k).double().mean()) for k in top}
