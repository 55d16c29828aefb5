"""Gaussians in PLY files with the fields of 3D Gaussian splatting, which splat viewers open.

    x y z nx ny nz f_dc_0..2 opacity scale_0..2 rot_0..3        float32, binary, little endian

`opacity` is a logit, `scale_*` are natural logarithms, `rot_*` is a quaternion (w, x, y, z) of any length: what
`Gaussians` holds, so that a set in float32 comes back from a file to the last bit, and a file that was read and
written again holds the same values. Normals mean nothing: written as 0 and not read.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from atoken.assets.gaussians import Gaussians
from atoken.errors import InputError
from atoken.files import replacing

__all__ = ["load_ply", "save_ply"]

_PARTS = {
    "means": ("x", "y", "z"),
    "features_dc": ("f_dc_0", "f_dc_1", "f_dc_2"),
    "opacity_logits": ("opacity",),
    "log_scales": ("scale_0", "scale_1", "scale_2"),
    "quaternions": ("rot_0", "rot_1", "rot_2", "rot_3"),
}
_NORMALS = ("nx", "ny", "nz")
_FIELDS = (*_PARTS["means"], *_NORMALS, *(name for part in list(_PARTS)[1:] for name in _PARTS[part]))

_LONGEST_LINE, _MOST_LINES = 4096, 1024
"""Bounds of a header: what is longer is no splat."""


def save_ply(gaussians: Gaussians, path: str | Path) -> None:
    """Write a set; the file appears whole or not at all.

    Values are stored in float32: a float64 set is rounded.

    Raises:
        InputError: NaN or infinity among the values, or a quaternion of 0.
        WriteError: the system refused.
    """
    rows = np.zeros(len(gaussians), np.dtype([(name, "<f4") for name in _FIELDS]))
    stored = gaussians.to("cpu", torch.float32)
    stored.check_finite()
    for part, names in _PARTS.items():
        values = getattr(stored, part).detach().numpy().reshape(len(rows), len(names))
        for column, name in enumerate(names):
            rows[name] = values[:, column]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [*(f"property float {name}" for name in _FIELDS), "end_header", ""]
    with replacing(Path(path)) as aside, aside.open("wb") as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(rows.tobytes())


def load_ply(path: str | Path) -> Gaussians:
    """Read a set: float32, on the processor.

    The fields may stand in any order, and normals may be missing. Everything else is refused and not guessed: no
    memory is taken before the file's size has been found to be what its header says.

    Raises:
        InputError: no such file, no PLY, text or big endian, other fields than those above (spherical harmonics of
            a degree above 0 among them: their colours depend on the view, which `Gaussians` do not hold), too short
            or too long for its header, or NaN, infinity or a quaternion of 0 among the values.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            count, fields = _read_header(path, file)
            begin, size = file.tell(), os.fstat(file.fileno()).st_size
            wanted = begin + count * 4 * len(fields)
            if size != wanted:
                raise InputError(
                    f"{path}: its header announces {count} Gaussians, which makes {wanted} bytes, but the file has "
                    f"{size}; it was cut off or written by something else, so export it again"
                )
            rows = np.fromfile(file, np.dtype([(name, "<f4") for name in fields]), count)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    parts = {
        part: torch.from_numpy(np.stack([rows[name] for name in names], axis=1).astype(np.float32))
        for part, names in _PARTS.items()
    }
    gaussians = Gaussians(**parts | {"opacity_logits": parts["opacity_logits"].squeeze(1)})
    try:
        gaussians.check_finite()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return gaussians


def _read_header(path: Path, file: BinaryIO) -> tuple[int, list[str]]:
    """Number of Gaussians and names of the fields; the file is left where the values begin."""
    if file.readline(_LONGEST_LINE).rstrip(b"\r\n") != b"ply":
        raise InputError(f"{path}: not a PLY file")
    lines: list[list[str]] = []
    for _ in range(_MOST_LINES):
        words = file.readline(_LONGEST_LINE).decode("ascii", "replace").split()
        if words == ["end_header"]:
            break
        if not words or words[0] not in ("format", "element", "property", "comment", "obj_info"):
            raise InputError(f"{path}: broken PLY header at {' '.join(words)[:60]!r}")
        lines.append(words)
    else:
        raise InputError(f"{path}: broken PLY header, no end within {_MOST_LINES} lines")
    lines = [words for words in lines if words[0] not in ("comment", "obj_info")]
    if not lines or lines[0] != ["format", "binary_little_endian", "1.0"]:
        found = " ".join(lines[0]) if lines else "nothing"
        raise InputError(
            f"{path}: Gaussians are read from binary little endian PLY 1.0 only, not {found!r}; convert it"
        )
    elements = [words for words in lines if words[0] == "element"]
    if [words[1:2] for words in elements] != [["vertex"]] or lines[1] != elements[0] or not _is_count(elements[0][2:]):
        raise InputError(
            f"{path}: a splat has one element, 'element vertex N', not "
            f"{'; '.join(' '.join(words) for words in elements) or 'none'} (a mesh is no splat)"
        )
    return int(elements[0][2]), _fields(path, lines[2:])


def _is_count(words: list[str]) -> bool:
    # isdecimal alone takes other scripts' digits too; 18 digits keep the product with a row's size small.
    return len(words) == 1 and words[0].isascii() and words[0].isdecimal() and len(words[0]) <= 18


def _fields(path: Path, properties: list[list[str]]) -> list[str]:
    """Names of the fields in the file's order."""
    names = [words[-1] for words in properties]
    missing = [name for name in _FIELDS if name not in names and name not in _NORMALS]
    if missing:
        raise InputError(f"{path}: no splat, it lacks {', '.join(missing)} (a mesh or a point cloud?)")
    rest = [name for name in names if name.startswith("f_rest_")]
    if rest:
        raise InputError(
            f"{path}: its colours depend on the view ({len(rest)} fields f_rest_*), which is not read; "
            "export it with spherical harmonics of degree 0"
        )
    for words in properties:
        if words[:2] not in (["property", "float"], ["property", "float32"]) or len(words) != 3:
            raise InputError(f"{path}: fields of a splat are float, not {' '.join(words)!r}")
    odd = sorted(set(names) - set(_FIELDS)) or sorted({name for name in names if names.count(name) > 1})
    if odd:
        raise InputError(f"{path}: unknown or repeated fields {', '.join(odd)}")
    return names
