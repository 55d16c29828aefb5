"""Vectors by text: in memory, and in a folder where one is given, so that a later run need not read texts again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atoken.checkpoint import Source, open_weights
from atoken.errors import CheckpointError, InputError
from atoken.files import replacing
from atoken.weights_file import write_safetensors

__all__ = ["Store", "StoredTower", "text_keys"]

HELD = 2**18
"""Texts that are kept; those that come later are read each time anew (at width 1152 these take 1.2 GB)."""
ABOUT = "tower.json"


def text_keys(texts: Sequence[str]) -> list[str]:
    """What texts are stored under: their SHA-256.

    Raises:
        InputError: a single text, or something else in the list.
    """
    if isinstance(texts, str):
        raise InputError("give a list of texts; for one write [text]")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {index}: expected str, got {type(text).__name__}")
    return [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for text in texts]


class Store:
    """Vectors by `text_keys`. Each batch is a file of its own, so that writers never wait for each other."""

    def __init__(self, folder: Path | None = None, about: Mapping[str, Any] | None = None) -> None:
        """Read what the folder holds; it need not exist.

        Args:
            about: the tower that makes the vectors, noted in the folder for `StoredTower`.

        Raises:
            CheckpointError: a file in it is damaged.
        """
        self._folder, self._about = folder, about
        self._vectors: dict[str, Tensor] = {}
        for path in sorted(folder.glob("*.safetensors")) if folder is not None else ():
            file = open_weights(Source(path, None))
            if set(file.shapes) != {"keys", "vectors"}:
                raise CheckpointError(f"{path}: holds no vectors of texts; delete it")
            keys, vectors = (file.read(name) for name in ("keys", "vectors"))
            self._vectors.update(zip((bytes(row).hex() for row in keys.numpy()), vectors, strict=True))

    def __len__(self) -> int:
        return len(self._vectors)

    def find(self, keys: Sequence[str]) -> dict[str, Tensor]:
        """The vectors [width] of those that are there."""
        return {key: self._vectors[key] for key in keys if key in self._vectors}

    def add(self, vectors: Mapping[str, Tensor]) -> None:
        """Keep vectors [width], if there is room.

        Raises:
            WriteError: the folder cannot be written to.
        """
        if not vectors or len(self) + len(vectors) > HELD:
            return
        self._vectors.update(vectors)
        if self._folder is None:
            return
        about = self._folder / ABOUT
        if not about.is_file():
            with replacing(about) as aside:
                aside.write_text(json.dumps(self._about, indent=2) + "\n")
        name = hashlib.sha256("".join(vectors).encode()).hexdigest()[:16]
        table = torch.tensor([list(bytes.fromhex(key)) for key in vectors], dtype=torch.uint8)
        rows = torch.stack(list(vectors.values()))
        write_safetensors({"keys": table, "vectors": rows}, self._folder / f"{name}.safetensors")


class StoredTower:
    """What another tower has read, where that tower cannot be had: as in a place without its weights.

    Attributes:
        name, width, fingerprint: of that tower.
    """

    def __init__(self, folder: Path) -> None:
        """Read a folder that a tower with a `cache` wrote.

        Raises:
            CheckpointError: no such folder, or a damaged one.
        """
        try:
            about = json.loads((folder / ABOUT).read_text())
            self.name, self.width, self.fingerprint = (
                str(about["name"]), int(about["width"]), str(about["fingerprint"]),
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError):
            raise CheckpointError(
                f"{folder}: holds no {ABOUT} of a text tower; give the folder that one wrote"
            ) from None
        self._folder, self._store = folder, Store(folder)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, width], float32.

        Raises:
            InputError: a text that the tower has not read there.
        """
        keys = text_keys(texts)
        found = self._store.find(keys)
        for key, text in zip(keys, texts, strict=True):
            if key not in found:
                raise InputError(
                    f"{self._folder}: holds no vector of {text[:60]!r}, and the text tower {self.name} that could make "
                    "it is not here; run it once where it is"
                )
        return torch.stack([found[key] for key in keys]) if keys else torch.empty(0, self.width)
