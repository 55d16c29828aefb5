"""Files below a folder with their captions: what the sources of loose files share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atoken.training.data.captions import Captions, chosen, listed_captions
from atoken.training.data.source import SampleError
from atoken.training.errors import TrainingError

__all__ = ["FolderCaptions", "files_below"]


def files_below(folder: Path) -> list[tuple[str, int]]:
    """Relative path and size of every file below a folder, sorted; hidden ones are left out.

    Raises:
        TrainingError: the folder is not there or cannot be read.
    """
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "no such folder"
        raise TrainingError(f"{folder}: {what}")

    def refuse(error: OSError) -> None:
        raise TrainingError(f"{error.filename}: {error.strerror}") from None

    found = []
    for place, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                path = Path(place, name)
                found.append((path.relative_to(folder).as_posix(), path.stat().st_size if path.exists() else 0))
    return sorted(found)


@dataclass(frozen=True, slots=True)
class FolderCaptions:
    """Captions of files below a folder: of the caption file at its top, else of NAME.txt beside NAME.

    Attributes:
        folder: see above.
        listed: by relative path.
        beside: relative paths of text files, by relative path.
    """

    folder: Path
    listed: Captions
    beside: dict[str, str]

    @classmethod
    def of(cls, folder: Path, names: list[str], files: list[tuple[str, int]]) -> FolderCaptions:
        """Captions of the samples `names`, out of all `files`.

        Raises:
            TrainingError: a caption file that cannot be used, or that names no sample of these.
        """
        listed = listed_captions(folder)
        known = {name: listed[name] for name in names if name in listed}
        if listed and not known:
            first = next(iter(listed))
            raise TrainingError(f"{folder}: its caption file names none of its samples (its first is {first!r})")
        texts = {name for name, _ in files if name.endswith(".txt")}
        stems = {name: f"{os.path.splitext(name)[0]}.txt" for name in names}  # noqa: PTH122 - str in, str out, a million times
        return cls(folder, known, {name: text for name, text in stems.items() if text in texts and name not in known})

    def __bool__(self) -> bool:
        return bool(self.listed or self.beside)

    def caption(self, name: str, rng: np.random.Generator) -> str | None:
        """As `Source.caption`."""
        if name in self.listed:
            return chosen(self.listed[name], rng)
        return self._text(self.beside[name]) if name in self.beside else None

    def texts(self) -> Iterator[str]:
        """As `Source.texts`; files that cannot be read are passed over here."""
        for captions in self.listed.values():
            yield from captions
        for file in self.beside.values():
            try:
                yield self._text(file)
            except SampleError:
                continue

    def _text(self, file: str) -> str:
        try:
            return " ".join((self.folder / file).read_text(encoding="utf-8").split())
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no UTF-8"
            raise SampleError(f"its caption {file} cannot be read ({reason})") from None
