"""Reading and writing weights without a second copy of them in memory.

The safetensors package maps the whole file, so that a conversion holds file and result at once, and
serialises to one buffer when it writes. Here one tensor passes at a time.
"""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol
from zipfile import is_zipfile

import torch
from torch import Tensor

from atoken.errors import CheckpointError
from atoken.files import replacing

__all__ = ["PickleWeights", "SafetensorsWeights", "Shape", "Weights", "write_safetensors"]

Shape = tuple[int, ...]

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_MAX_HEADER = 100_000_000
_TORN = "the file is cut short or damaged; copy or download it again"


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor; numpy has no bfloat16, but has bytes."""
    return tensor.view(-1).view(torch.uint8).numpy().data


class Weights(Protocol):
    """An opened weights file."""

    path: Path
    shapes: dict[str, Shape]

    def read(self, key: str) -> Tensor:
        """The tensor called `key`, as stored, on the CPU."""
        ...


class SafetensorsWeights:
    """A `.safetensors` file; header and sizes are checked before anything is allocated."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shapes: dict[str, Shape] = {}
        self._entries: dict[str, tuple[torch.dtype, int, int]] = {}
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
            if not 2 <= length <= min(_MAX_HEADER, size - 8):
                raise CheckpointError(f"{path}: not a safetensors file, or {_TORN}")
            try:
                header = json.loads(file.read(length))
                header.pop("__metadata__", None)
                for key, entry in header.items():
                    self._add(key, entry, 8 + length)
            except (ValueError, KeyError, TypeError, AttributeError):
                raise CheckpointError(f"{path}: its header is not valid; {_TORN}") from None
        end = max((stop for _, _, stop in self._entries.values()), default=8 + length)
        if end > size:
            raise CheckpointError(f"{path}: {size:,} bytes where its header needs {end:,}; {_TORN}")

    def _add(self, key: str, entry: dict[str, Any], base: int) -> None:
        shape = tuple(int(n) for n in entry["shape"])
        dtype = _DTYPES[entry["dtype"]]
        start, stop = (base + int(n) for n in entry["data_offsets"])
        if min(shape, default=0) < 0 or start < base:
            raise ValueError(key)
        if stop - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(key)
        self.shapes[key] = shape
        self._entries[key] = (dtype, start, stop)

    def read(self, key: str) -> Tensor:
        """The tensor called `key`, read into memory of its own."""
        dtype, start, stop = self._entries[key]
        tensor = torch.empty(self.shapes[key], dtype=dtype)
        if stop > start:
            buffer = _bytes_of(tensor)
            with self.path.open("rb", buffering=0) as file:
                file.seek(start)
                while buffer:
                    count = file.readinto(buffer)
                    if not count:
                        raise CheckpointError(f"{self.path}: ends inside {key}; {_TORN}")
                    buffer = buffer[count:]
        return tensor


class PickleWeights:
    """An official `.pt` file: tensors only, nothing in it is executed, pages mapped as needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Files of torch before 1.6 are no zip archives and cannot be mapped.
            data = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
        except OSError:
            raise
        except Exception as error:  # Foreign bytes make the unpickler fail in any way at all.
            if isinstance(error, UnpicklingError):
                raise CheckpointError(
                    f"{path}: was not loaded: it holds more than tensors, which could run code, or is "
                    "damaged; ask its author for a .safetensors file"
                ) from None
            raise CheckpointError(f"{path}: not a torch checkpoint, or {_TORN}") from None
        for wrapper in ("state_dict", "model"):
            if isinstance(data, Mapping) and isinstance(data.get(wrapper), Mapping):
                data = data[wrapper]
        if not isinstance(data, Mapping) or not all(isinstance(v, Tensor) for v in data.values()):
            raise CheckpointError(f"{path}: not a state dict; give a file of named tensors")
        self._tensors = dict(data)
        self.shapes = {key: tuple(value.shape) for key, value in self._tensors.items()}

    def read(self, key: str) -> Tensor:
        """The tensor called `key`, handed over: pages in the file's mapping until written to."""
        tensor: Tensor = self._tensors.pop(key)
        return tensor


def write_safetensors(tensors: Mapping[str, Tensor], path: Path, dtype: torch.dtype | None = None) -> None:
    """Write `tensors` aside, then rename: a reader sees the old file or the whole new one.

    Args:
        dtype: to store floating-point tensors in; as they are if not given.

    Raises:
        WriteError: the system refused to write.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    stored = {
        key: dtype if dtype is not None and value.is_floating_point() else value.dtype for key, value in tensors.items()
    }
    for key, value in tensors.items():
        size = value.numel() * stored[key].itemsize
        header[key] = {
            "dtype": _NAMES[stored[key]],
            "shape": list(value.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as aside, aside.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for key, value in tensors.items():
            plain = value.detach().to(device="cpu", dtype=stored[key]).contiguous()
            file.write(_bytes_of(plain))
