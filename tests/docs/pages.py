"""The documentation's pages as tests read them: fenced blocks, and the command lines in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "pages"
TEXTS = (*sorted(PAGES.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md")

_FENCE = re.compile(r'^( *)```(\w+)?(?: +title="([^"]+)")?\n(.*?)^\1```$', re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:atoken|atoken-bench) [^`]+)`")
PROGRAMS = ("atoken", "atoken-bench")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: what follows the fence.
        title: a file's name, where the block is that file.
        line: in the page, of the block's first line.
    """

    language: str
    title: str | None
    code: str
    line: int


def blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    return [
        Block(match[2] or "", match[3], match[4], text.count("\n", 0, match.start(4)) + 1)
        for match in _FENCE.finditer(text)
    ]


def command_lines(path: Path) -> Iterator[list[str]]:
    """Every call of `PROGRAMS` in a page's shell blocks and inline code, as words from the program's name on."""
    text = path.read_text(encoding="utf-8")
    lines = []
    for block in blocks(path):
        if block.language == "sh":
            lines += block.code.replace("\\\n", " ").splitlines()
    lines += [" ".join(found.split()) for found in _INLINE.findall(_FENCE.sub("", text))]
    for line in lines:
        words = shlex.split(line, comments=True)
        for place, word in enumerate(words):
            if word in PROGRAMS and place == 0:
                yield words
            elif word == "-m" and words[place + 1 : place + 2] in (["atoken"], ["harness"]):
                yield ["atoken-bench" if words[place + 1] == "harness" else "atoken", *words[place + 2 :]]
