"""What samples show, in words: caption files, and sentences made of class names."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from atoken.training.errors import TrainingError

__all__ = ["CAPTION_FILES", "HOW", "Captions", "chosen", "listed_captions", "parse_captions"]

CAPTION_FILES = ("captions.csv", "captions.jsonl")

HOW = (
    'captions are NAME.txt beside each NAME, or one captions.csv with the header "file,caption" in the folder '
    "(or captions.jsonl with these keys)"
)
"""Told wherever they are missed."""

Captions = Mapping[str, tuple[str, ...]]
"""Of a file's path below its folder, one or several."""


def parse_captions(text: str, name: str) -> Captions:
    """Captions of a .csv with a header, or of a .jsonl; a file named several times has several.

    Args:
        name: of the file, for messages; its ending tells the kind.

    Raises:
        TrainingError: lacks the columns `file` and `caption`, or a line is no such record.
    """
    found: dict[str, list[str]] = {}
    for line, (file, caption) in enumerate(_rows(text, name), 2 if name.lower().endswith(".csv") else 1):
        given = caption if isinstance(caption, list) else [caption]
        if not isinstance(file, str) or not all(isinstance(one, str) for one in given):
            raise TrainingError(f'{name}: line {line} lacks a text for "file" or "caption"')
        found.setdefault(file.strip().replace("\\", "/").removeprefix("./"), []).extend(
            filter(None, map(_clean, given))
        )
    return {file: tuple(captions) for file, captions in found.items() if captions}


def _rows(text: str, name: str) -> list[tuple[object, object]]:
    if name.lower().endswith(".csv"):
        reader = csv.DictReader(io.StringIO(text))
        lacking = [column for column in ("file", "caption") if column not in (reader.fieldnames or ())]
        if lacking:
            raise TrainingError(f"{name}: its first line must name the columns file and caption; lacks {lacking[0]}")
        return [(row["file"], row["caption"]) for row in reader]
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            rows.append((record["file"], record["caption"]))
        except (json.JSONDecodeError, KeyError, TypeError):
            raise TrainingError(f'{name}: line {number} is no {{"file": ..., "caption": ...}}') from None
    return rows


def listed_captions(folder: Path, read: Callable[[str], bytes | None] | None = None) -> Captions:
    """Captions of the caption file in a folder; empty where there is none.

    Args:
        read: gives the bytes of a file of that name, or None; the folder is read unless given.

    Raises:
        TrainingError: as `parse_captions`, or no UTF-8.
    """
    for name in CAPTION_FILES:
        path = folder / name
        data = read(name) if read else (path.read_bytes() if path.is_file() else None)
        if data is None:
            continue
        try:
            return parse_captions(data.decode("utf-8-sig"), str(path))
        except UnicodeDecodeError:
            raise TrainingError(f"{path}: no UTF-8 text; save it as UTF-8") from None
    return {}


def chosen(captions: tuple[str, ...], rng: np.random.Generator) -> str | None:
    """One of several, drawn; None of none."""
    return captions[int(rng.integers(len(captions)))] if captions else None


def _clean(text: str) -> str:
    return " ".join(text.split())
