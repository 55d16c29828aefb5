"""What a container's own headers say about the length of the file; a cut file is told by it. Reads headers only."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

__all__ = ["stated_size", "without_index"]

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_ISO_BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"uuid", b"sidx", b"styp", b"mfra")


def stated_size(path: Path) -> int:
    """Bytes that the file should have by its headers: ISO boxes, RIFF chunks, EBML. 0 where they do not say."""
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF":
            return _riff_end(file)
        if head[:4] == _EBML:
            return _ebml_end(file)
        if head[4:8] in _ISO_BOXES:
            return max((end for _, end in _iso_boxes(file)), default=0)
    return 0


def without_index(path: Path) -> str | None:
    """Why an ISO file (MP4, MOV) cannot be opened, if its index is what is missing."""
    with path.open("rb") as file:
        if file.read(12)[4:8] not in _ISO_BOXES:
            return None
        names = [name for name, _ in _iso_boxes(file)]
    if b"moov" in names:
        return None
    return "its index (moov) is missing, so it was cut off or its recording not finished"


def _iso_boxes(file: BinaryIO) -> list[tuple[bytes, int]]:
    """Name and end of each box of the top level that is known by its name."""
    boxes = []
    total = file.seek(0, 2)
    place = 0
    while place + 8 <= total:
        file.seek(place)
        header = file.read(16)
        size, name, least = int.from_bytes(header[:4], "big"), header[4:8], 8
        if size == 1:
            size, least = int.from_bytes(header[8:16], "big"), 16
        # 0: up to the end of the file, wherever that is. Unknown names are what trails behind some files.
        if size < least or name not in _ISO_BOXES:
            break
        place += size
        boxes.append((name, place))
    if place < total < place + 8:
        boxes.append((b"", place + 8))  # the beginning of a box
    return boxes


def _riff_end(file: BinaryIO) -> int:
    """The end of the last RIFF chunk (AVI above 1 GiB has several)."""
    end = place = 0
    total = file.seek(0, 2)
    while place + 8 <= total:
        file.seek(place)
        header = file.read(8)
        size = int.from_bytes(header[4:], "little")
        # 0 and all ones: written to a pipe.
        if header[:4] != b"RIFF" or size in (0, 2**32 - 1):
            break
        place += 8 + size + size % 2
        end = place - size % 2
    return end


def _ebml_end(file: BinaryIO) -> int:
    """The end of Matroska's segment; 0 where its size was left open (written to a pipe)."""
    file.seek(4)
    header = _ebml_size(file)
    if header is None:
        return 0
    file.seek(header, 1)
    if file.read(4) != _SEGMENT:
        return 0
    size = _ebml_size(file)
    return 0 if size is None else file.tell() + size


def _ebml_size(file: BinaryIO) -> int | None:
    """A size of variable length (RFC 8794, section 4); None for "unknown" (all ones) and at the end of the file."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    value = int.from_bytes(first + rest, "big") & ((1 << 7 * length) - 1)
    return None if len(rest) < length - 1 or value == (1 << 7 * length) - 1 else value
