"""Token files of any length, written and read part by part; the format is that of `atoken.token_files`.

Nothing is mapped into memory: pages of a mapped file count as the process's own, and a long video's
tokens are larger than everything else that coding it takes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from fractions import Fraction
from io import BufferedReader
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from atoken.errors import InputError
from atoken.files import aside_of, refusals, replacing
from atoken.parts import cut_spec, joined_spec
from atoken.patches import raster
from atoken.token_files import TokenFileError, TokenHeader, TokenSource, faults, kind_of
from atoken.token_header import SCATTERED, check_places
from atoken.tokens import ItemSpec, Latents, SparseTokens

__all__ = ["TokenReader", "TokenWriter", "open_tokens"]

# In the order in which safetensors lays tensors out: wide types first, then by name.
_TYPES: dict[str, tuple[str, type[np.generic]]] = {
    "lengths": ("I64", np.int64),
    "latents": ("F32", np.float32),
    "logvar": ("F32", np.float32),
    "mean": ("F32", np.float32),
    "codes": ("I32", np.int32),
    "coords": ("I32", np.int32),
}


class TokenWriter:
    """Writes a token file as its tokens come; it is there, whole, only once all of it has come.

    Each tensor grows in a hidden file beside the target; leaving the `with` block joins them. An
    exception leaves nothing behind, and an older file as it was.
    """

    def __init__(self, path: Path, source: TokenSource) -> None:
        """The file to write, and where its tokens come from."""
        self._path = path
        self._source = source
        self._files: dict[str, BinaryIO] = {}
        self._widths: dict[str, int] = {}
        self._names: list[str] = []
        self._rates: list[Fraction | None] = []
        self._specs: list[ItemSpec] = []

    @property
    def count(self) -> int:
        """Items written so far."""
        return len(self._specs)

    @property
    def tokens(self) -> int:
        """Tokens of these items."""
        return sum(self._header().lengths)

    def __enter__(self) -> TokenWriter:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            for name, file in self._files.items():
                # A full disk refuses once more what it refused; the first line said so.
                with suppress(OSError):
                    file.close()
                self._beside(name).unlink(missing_ok=True)

    @contextmanager
    def item(self, name: str, rate: Fraction | None) -> Iterator[Callable[[Latents | SparseTokens], None]]:
        """A function that appends one item's next part; an exception takes back all of its parts.

        Args:
            rate: frames per second of a video; None for an image or asset.

        Raises:
            WriteError: the system refused, e.g. a full disk.
            InputError: tokens of another kind than those before.
        """
        starts = {key: file.tell() for key, file in self._files.items()}
        specs: list[ItemSpec] = []

        def add(part: Latents | SparseTokens) -> None:
            packed = part.mean if isinstance(part, Latents) else part
            (spec,) = packed.items
            with refusals(self._path):
                self._append(part, packed)
            specs.append(spec)

        try:
            yield add
            TokenHeader(names=(name,), rates=(rate,), items=(joined_spec(specs),), **_fields(self._source))
        except BaseException:
            with refusals(self._path):
                for key, file in self._files.items():
                    file.seek(starts.get(key, 0))
                    file.truncate()
            raise
        self._names.append(name)
        self._rates.append(rate)
        self._specs.append(joined_spec(specs))

    def _append(self, part: Latents | SparseTokens, packed: SparseTokens) -> None:
        if isinstance(part, Latents):
            tensors = {"mean": packed.features, "logvar": part.logvar}
        else:
            tensors = {"codes" if packed.is_codes else "latents": packed.features}
        tensors["coords"] = packed.coords
        widths = {name: tensor.shape[1] for name, tensor in tensors.items()}
        if not self._files:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            for name in tensors:
                self._files[name] = self._beside(name).open("w+b")
            self._widths = widths
        if widths != self._widths:
            raise InputError(f"tokens with {', '.join(widths)} after tokens with {', '.join(self._widths)}")
        for name, tensor in tensors.items():
            array = np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype=_TYPES[name][1])
            self._files[name].write(array.data)

    def _finish(self) -> None:
        if not self._specs:
            raise InputError("there are no tokens to write")
        header = self._header()
        rows, lengths = self.tokens, np.array(header.lengths, dtype=np.int64)
        shapes = {"lengths": [len(lengths)]} | {name: [rows, width] for name, width in self._widths.items()}
        with replacing(self._path) as aside, aside.open("wb") as out:
            out.write(_preamble(header.metadata(), {name: shapes[name] for name in _TYPES if name in shapes}))
            out.write(lengths.data)
            for name in (name for name in _TYPES if name in self._files):
                self._files[name].seek(0)
                shutil.copyfileobj(self._files[name], out, 2**20)

    def _header(self) -> TokenHeader:
        return TokenHeader(
            names=tuple(self._names), rates=tuple(self._rates), items=tuple(self._specs), **_fields(self._source)
        )

    def _beside(self, name: str) -> Path:
        return aside_of(self._path.with_name(f"{self._path.name}.{name}"))


def _fields(source: TokenSource) -> dict[str, Any]:
    return {field.name: getattr(source, field.name) for field in fields(TokenSource)}


def _preamble(metadata: Mapping[str, str], shapes: Mapping[str, list[int]]) -> bytes:
    """What precedes the tensors, given in their order, in a `.safetensors` file."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    start = 0
    for name, shape in shapes.items():
        kind, dtype = _TYPES[name]
        stop = start + prod(shape) * np.dtype(dtype).itemsize
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


@dataclass(frozen=True, slots=True, eq=False)
class TokenReader:
    """An opened token file, checked but for its values; what it reads lies on the CPU.

    Attributes:
        header: what it says of its items and of where they come from.
        path: the file.
    """

    header: TokenHeader
    path: Path
    _kind: tuple[str, ...]
    _places: Mapping[str, tuple[int, int]]
    """Of each tensor: where it starts in the file, values in a row."""
    _starts: tuple[int, ...]
    """Of each item: its first row."""

    def parts(self, index: int, steps: int) -> Iterator[Latents | SparseTokens]:
        """The tokens of an item, `steps` latent steps at a time (`atoken.parts`); an asset is one part.

        Raises:
            TokenFileError: the file changed under us, or cannot be read any more.
        """
        spec, patch, first = self.header.items[index], self.header.config.patch, self._starts[index]
        with faults(self.path), self.path.open("rb") as file:
            if spec.kind == "asset":
                yield self._part(file, range(first, first + spec.voxels), spec)
                return
            t, h, w = spec.grid(patch)
            for start in range(0, t, steps):
                stop = min(start + steps, t)
                rows = range(first + start * h * w, first + stop * h * w)
                yield self._part(file, rows, cut_spec(spec, start, stop, patch))

    def _part(self, file: BufferedReader, rows: range, spec: ItemSpec) -> Latents | SparseTokens:
        tensors = {name: self._read(file, name, rows) for name in (*self._kind, "coords")}
        packed = SparseTokens(tensors[self._kind[0]], tensors["coords"], (len(rows),), (spec,))
        return Latents(packed, tensors["logvar"]) if "logvar" in tensors else packed

    def _check_coords(self) -> None:
        """Raise TokenFileError unless each item has the coordinates of a whole image, video or asset."""
        first = 0
        with self.path.open("rb") as file:
            for spec in self.header.items:
                if spec.kind == "asset":
                    check_places(self._read(file, "coords", range(first, first + spec.voxels)))
                    first += spec.voxels
                    continue
                t, h, w = spec.grid(self.header.config.patch)
                step = raster((1, h, w))
                for _ in range(t):
                    if not torch.equal(self._read(file, "coords", range(first, first + h * w)), step):
                        raise TokenFileError(SCATTERED)
                    first += h * w
                    step[:, 0] += 1

    def _read(self, file: BufferedReader, name: str, rows: range) -> Tensor:
        (offset, width), dtype = self._places[name], _TYPES[name][1]
        array = np.empty((len(rows), width), dtype)
        file.seek(offset + rows.start * width * array.itemsize)
        if file.readinto(array.data.cast("B")) != array.nbytes:
            raise TokenFileError("truncated while it was read")
        return torch.from_numpy(array)


def open_tokens(path: Path) -> TokenReader:
    """Look at a token file: all is checked as `load_tokens` does, and nothing is kept but the header.

    Raises:
        TokenFileError: as `load_tokens`.
    """
    with faults(path):
        with safe_open(path, "pt") as file:
            header = TokenHeader.parse(file.metadata())
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            kind = kind_of({name: slices[name][:0].dtype for name in slices})
            lengths = file.get_tensor("lengths").tolist()
        header.check_lengths(lengths)
        with path.open("rb") as raw:
            size = int.from_bytes(raw.read(8), "little")
            entries = json.loads(raw.read(size))
        shapes = {name: entries[name]["shape"] for name in (*kind, "coords")}
        for name, shape in shapes.items():
            wanted = [sum(lengths), 4 if name == "coords" else shapes[kind[0]][-1]]
            if shape != wanted:
                raise TokenFileError(f"{name} must be {wanted}, got {shape}")
        starts = {name: 8 + size + entries[name]["data_offsets"][0] for name in shapes}
        places = {name: (starts[name], shapes[name][1]) for name in shapes}
        reader = TokenReader(header, path, kind, places, tuple(accumulate(lengths, initial=0)))
        reader._check_coords()
    return reader
