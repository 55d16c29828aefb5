"""Fingerprints of a dataset: one hash over its ids, one over its bytes. Pure functions, no heavy imports."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

WHOLE_CLIP_BYTES = 256 * 2**20
"""Clips up to this size are hashed whole."""


def _digest(rows: Iterable[object]) -> str:
    # One JSON value a line: unambiguous whatever characters a file name holds (line ends and
    # undecodable bytes are escaped), and streamed, so that a million ids need no second copy.
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, separators=(",", ":")).encode("ascii") + b"\n")
    return digest.hexdigest()


def ids_sha256(ids: Iterable[str]) -> str:
    """Hash of the sample ids, in the dataset's order.

    Equal for two copies of a dataset that hold the same files by name, whatever is in them.
    """
    return _digest(ids)


def content_sha256(samples: Iterable[tuple[str, str]]) -> str:
    """Hash of ``(id, SHA-256 of the stored bytes)`` pairs, in the dataset's order.

    Equal iff the same bytes lie under the same ids (of clips above `WHOLE_CLIP_BYTES`: the same size and the same
    bytes at both ends, see `clip_sha256`). Samples that could not be read are left out of
    ``samples`` by the caller, so a damaged copy never passes for the whole one.
    """
    return _digest([sample_id, sha256] for sample_id, sha256 in samples)


def clip_sha256(path: Path) -> str:
    """Hash of a clip as it is stored: a file's bytes; of a folder, its images' names and bytes.

    Of a file above `WHOLE_CLIP_BYTES` only its size and its two ends are hashed, half as much from
    each: hours of video need not be read for the first ten seconds to be measured.

    Raises:
        OSError: they cannot be read.
    """
    if not path.is_dir():
        return _file_sha256(path) if path.stat().st_size <= WHOLE_CLIP_BYTES else _ends_sha256(path)
    from atoken.media import is_image  # late: it brings Pillow

    images = sorted(file for file in path.iterdir() if is_image(file) and not file.name.startswith("."))
    return content_sha256((file.name, _file_sha256(file)) for file in images)


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ends_sha256(path: Path) -> str:
    """SHA-256 of the size (decimal, with a line end) and the first and last `WHOLE_CLIP_BYTES` / 2 bytes."""
    half = WHOLE_CLIP_BYTES // 2
    with path.open("rb") as file:
        size = file.seek(0, 2)
        digest = hashlib.sha256(b"%d\n" % size)
        for start in (0, size - half):
            file.seek(start)
            for offset in range(0, half, 2**20):
                digest.update(file.read(min(2**20, half - offset)))
    return digest.hexdigest()
