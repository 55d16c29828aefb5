"""What stands between a frozen text tower and a model's image vectors: a fixed projection, a scale and a bias.

Saved beside the model that was trained with them, so that its vectors can be compared with texts.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from atoken.checkpoint import Source, open_weights
from atoken.errors import CheckpointError, InputError
from atoken.files import replacing
from atoken.text.loading import load_tower
from atoken.text.tower import TextTower
from atoken.weights_file import write_safetensors

__all__ = ["TextHead", "fit_projection"]

WEIGHTS_NAME = "text.safetensors"
CONFIG_NAME = "text.json"
LOG_SCALE, BIAS = math.log(10.0), -10.0
"""Where SigLIP's training starts (Zhai et al. 2023): nearly all pairs are negatives."""


def fit_projection(embeddings: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """PCA of text vectors, which keeps what tells them apart; in float64.

    Args:
        embeddings: [K, D] of different texts.
        width: of the image vectors, at most D.

    Returns:
        Mean [D] and projection [D, width] with orthonormal columns by falling variance, float32. A column's largest
        entry is positive: eigenvectors have no sign, and without a rule it would differ between machines. With fewer
        texts than columns, the last columns are any that fit.

    Raises:
        InputError: a text tower narrower than the images' vectors, or fewer than two texts.
    """
    if embeddings.ndim != 2 or len(embeddings) < 2:
        raise InputError(f"a projection is fitted on vectors [K, D] of two texts or more, not {list(embeddings.shape)}")
    if not 1 <= width <= embeddings.shape[1]:
        raise InputError(
            f"text vectors of {embeddings.shape[1]} numbers cannot be projected to {width}; take a wider tower"
        )
    rows = embeddings.detach().double().cpu()
    mean = rows.mean(0)
    centred = rows - mean
    vectors = torch.linalg.eigh(centred.t() @ centred).eigenvectors.flip(1)[:, :width]
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return mean.float(), (vectors * largest.sign()).float().contiguous()


@dataclass(kw_only=True, slots=True, eq=False)
class TextHead:
    """A text tower as wide as a model's pooled vectors; itself a `TextTower`.

    Attributes:
        tower_name: of the text tower, as `load_tower` takes it.
        tower_fingerprint: which it must have.
        version: of the package that the tower's weights come with; empty where they come from a path.
        mean: [D], taken off text vectors.
        projection: [D, width]; None where the tower is as wide as the images' vectors: nothing is done then.
        tower_width: D.
        log_scale, bias: a score is exp(log_scale) * cosine + bias, as SigLIP's (FACTS section 10).
        tower: None until a text is first read.
    """

    tower_name: str
    tower_fingerprint: str
    version: str
    tower_width: int
    mean: Tensor | None
    projection: Tensor | None
    log_scale: float = LOG_SCALE
    bias: float = BIAS
    tower: TextTower | None = field(default=None, repr=False)

    @classmethod
    def fitted(cls, tower: TextTower, texts: Iterable[str], width: int) -> TextHead:
        """A head for image vectors of `width` numbers, where scores start as SigLIP's training does.

        Args:
            texts: for `fit_projection`, read only if the tower is wider; double ones count once.

        Raises:
            InputError: as `fit_projection`.
        """
        mean = projection = None
        if tower.width != width:
            mean, projection = fit_projection(tower.embed(sorted(set(texts))), width)
        return cls(
            tower_name=getattr(tower, "name", type(tower).__name__),
            tower_fingerprint=tower.fingerprint,
            version=getattr(tower, "version", ""),
            tower_width=tower.width,
            mean=mean,
            projection=projection,
            tower=tower,
        )

    @classmethod
    def from_pretrained(cls, folder: str | Path, tower: TextTower | None = None) -> TextHead:
        """Read `text.json` and `text.safetensors`.

        Args:
            tower: the text tower; if not given, the sentence encoder is loaded when a text is first read.

        Raises:
            CheckpointError: no such files, damaged ones, or another tower than the head was made for.
        """
        path = Path(folder) / CONFIG_NAME
        try:
            values = json.loads(path.read_text())
            kinds = {
                "tower": str,
                "fingerprint": str,
                "version": str,
                "tower_width": int,
                "width": int,
                "projected": bool,
            }
            if set(values) != set(kinds) or any(type(values[name]) is not kind for name, kind in kinds.items()):
                raise CheckpointError(f"{path}: its keys are not those of a text head; write it anew")
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path}: no text head ({error}); give a folder that one was saved in") from None
        tensors = _tensors(path.with_name(WEIGHTS_NAME), values["tower_width"], values["width"], values["projected"])
        head = cls(
            tower_name=values["tower"],
            tower_fingerprint=values["fingerprint"],
            version=values["version"],
            tower_width=values["tower_width"],
            mean=tensors.get("mean"),
            projection=tensors.get("projection"),
            log_scale=float(tensors["log_scale"]),
            bias=float(tensors["bias"]),
        )
        return head if tower is None else head.with_tower(tower)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write `text.json` and `text.safetensors` beside a model's files; the tower's weights stay where they are.

        Returns:
            The latter.

        Raises:
            WriteError: the system refused.
        """
        path = Path(folder) / WEIGHTS_NAME
        tensors = {"log_scale": torch.tensor(self.log_scale), "bias": torch.tensor(self.bias)}
        if self.mean is not None and self.projection is not None:
            tensors |= {"mean": self.mean, "projection": self.projection}
        write_safetensors(tensors, path)
        values = {
            "tower": self.tower_name,
            "fingerprint": self.tower_fingerprint,
            "version": self.version,
            "tower_width": self.tower_width,
            "width": self.width,
            "projected": self.projection is not None,
        }
        with replacing(path.with_name(CONFIG_NAME)) as aside:
            aside.write_text(json.dumps(values, indent=2) + "\n")
        return path

    def with_scores(self, log_scale: float, bias: float) -> TextHead:
        """The same head with what training made of scale and bias."""
        return replace(self, log_scale=log_scale, bias=bias)

    def with_tower(self, tower: TextTower) -> TextHead:
        """The same head with a text tower to read with.

        Raises:
            CheckpointError: another tower than the head was made for.
        """
        if tower.fingerprint != self.tower_fingerprint:
            raise CheckpointError(
                f"the model was trained with the text tower {self.tower_name} {self.version} "
                f"({self.tower_fingerprint[:16]}), this one is {tower.fingerprint[:16]}; install or give that"
            )
        return replace(self, tower=tower)

    @property
    def width(self) -> int:
        """Of the vectors."""
        return self.tower_width if self.projection is None else self.projection.shape[1]

    @property
    def fingerprint(self) -> str:
        """Of tower and projection; scale and bias move no vector."""
        digest = hashlib.sha256(self.tower_fingerprint.encode())
        for tensor in (self.mean, self.projection):
            if tensor is not None:
                digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, width], float32, on the CPU.

        Raises:
            InputError, MissingPackage, CheckpointError: as the tower, or as loading it.
        """
        if self.tower is None:
            # Who reads no text needs no tower.
            tower = load_tower(self.tower_name)
            self.with_tower(tower)
            self.tower = tower
        return self.project(self.tower.embed(texts))

    def project(self, vectors: Tensor) -> Tensor:
        """The tower's vectors [N, D] as this head's: unit length, [N, width]."""
        if self.mean is not None and self.projection is not None:
            # Row by row, or how many there are could change the last bits.
            rows = [(row - self.mean) @ self.projection for row in vectors.float()]
            vectors = torch.stack(rows) if rows else vectors.new_empty(0, self.width)
        return F.normalize(vectors.float(), dim=-1)

    def logits(self, image_vectors: Tensor, text_vectors: Tensor) -> Tensor:
        """Scores exp(log_scale) * cosine + bias: sigmoid of them is the model's belief that a pair belongs together.

        Args:
            image_vectors: [N, width], of any length.
            text_vectors: [M, width].

        Returns:
            [N, M] float32.
        """
        cosine = F.normalize(image_vectors.float(), dim=-1) @ F.normalize(text_vectors.float(), dim=-1).t()
        return math.exp(self.log_scale) * cosine + self.bias


def _tensors(path: Path, tower_width: int, width: int, projected: bool) -> dict[str, Tensor]:
    wanted: dict[str, tuple[int, ...]] = {"log_scale": (), "bias": ()}
    if projected:
        wanted |= {"mean": (tower_width,), "projection": (tower_width, width)}
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give a folder that a text head was saved in")
    file = open_weights(Source(path, None))
    if file.shapes != wanted or (not projected and width != tower_width):
        raise CheckpointError(f"{path}: holds {file.shapes}, not {wanted} as {CONFIG_NAME} says; write both anew")
    tensors = {name: file.read(name).float() for name in wanted}
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{path}: {name} holds NaN or infinity; take another checkpoint")
    return tensors
