"""What images, videos and assets are aligned with: a frozen text tower, and a frozen image tower where eq. 7 rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from atoken.text import TextTower
from atoken.training.data import Batch, Pack
from atoken.training.distributed import World
from atoken.training.terms import Aligned

__all__ = ["Alignment", "ImageTower"]


MOST_TEXTS = 2**16
"""Vectors of texts that are held on the device: 300 MB at width 1152."""


class ImageTower(Protocol):
    """The items of a pack of images to unit vectors [N, width], float32."""

    def embed_pack(self, pack: Pack, device: torch.device) -> Tensor:
        """[N, width]."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Alignment:
    """The towers of a run.

    Attributes:
        texts: as wide as the model's pooled vectors.
        teacher: None where the sigmoid loss rules.
        teacher_scale: exp of the teacher's logarithmic scale; its bias falls out of the softmax.
    """

    texts: TextTower
    teacher: ImageTower | None = None
    teacher_scale: float = 1.0
    _known: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def _vectors(self, texts: Sequence[str], device: torch.device) -> Tensor:
        """Rows of texts on the device, where they stay: captions come again and again."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if len(self._known) + len(new) > MOST_TEXTS:
            self._known.clear()
            new = list(dict.fromkeys(texts))
        if new:
            self._known.update(zip(new, self.texts.embed(new).to(device).unbind(), strict=True))
        return torch.stack([self._known[text] for text in texts])

    def of(self, batch: Batch, world: World) -> list[Aligned]:
        """What each pack of this rank's batch is aligned with: the texts of all ranks.

        They are frozen, so gathering them needs no gradient, and every image meets every text of the global batch.
        """
        own = [text for pack in batch.packs for text in pack.texts or ()]
        vectors = world.gather_rows(self._vectors(own, world.device))
        every = [text for part in world.gather_objects(own) for text in part]
        number = {text: index for index, text in enumerate(dict.fromkeys(every))}
        said = torch.tensor([number[text] for text in every], device=world.device)
        aligned = []
        for pack in batch.packs:
            mine = torch.tensor([number[text] for text in pack.texts or ()], device=world.device)
            # Equal captions are no negatives of each other.
            scores = None
            if self.teacher is not None and pack.items[0].kind == "image":
                scores = self.teacher_scale * self.teacher.embed_pack(pack, world.device) @ vectors.T
            aligned.append(Aligned(vectors, mine[:, None] == said[None], scores))
        return aligned
