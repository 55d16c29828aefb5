"""The sentences that class names are put into, and the names of ImageNet's classes (PROTOCOLS 4.2).

Published figures stand on CLIP's 80 templates and on the class names that CLIP's authors cleaned by hand. Both are
read from the open_clip package, which ships them, rather than copied: what everybody else evaluates with is then what
is evaluated with here, and the record keeps their hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from harness.errors import BenchError
from harness.protocol import Templates

IMAGENET_CLASSES = 1000

ASSET = "a 3D model of a {}"
ASSETS = ("{}", "a {}", ASSET, "a rendering of a {}", "a toy {}")
"""Of 3D assets; nobody has published any (PROTOCOLS 3.6)."""


def templates(name: Templates) -> tuple[str, ...]:
    """A set of sentences, each with one ``{}``.

    ``openai``: CLIP's 80 and the bare name, the 81 of big_vision's ``clip_paper``. ``openai-80``: without the bare
    name, as open_clip and CLIP_benchmark have them. ``bare``: the name alone. ``assets`` and ``asset``: those of 3D
    assets above. ``own``: the project's few (`atoken.text.prompts`), which the shipped model was trained with and which
    need no further package.

    Raises:
        BenchError: open_clip is not installed, or has others.
    """
    if name == "bare":
        return ("{}",)
    if name == "assets":
        return ASSETS
    if name == "asset":
        return (ASSET,)
    if name == "own":
        from atoken.text.prompts import CAPTIONS

        return CAPTIONS
    found = tuple(template("{}") for template in _open_clip().OPENAI_IMAGENET_TEMPLATES)
    if len(found) != 80 or any(text.count("{}") != 1 for text in found):
        raise BenchError(f"the installed open_clip has {len(found)} templates that are not CLIP's 80; install 3.x")
    return (*found, "{}") if name == "openai" else found


def imagenet_names() -> tuple[str, ...]:
    """CLIP's names of the 1,000 classes of ImageNet, by the place of their wnid.

    Raises:
        BenchError: open_clip is not installed, or has others.
    """
    found = tuple(_open_clip().IMAGENET_CLASSNAMES)
    if len(found) != IMAGENET_CLASSES:
        raise BenchError(f"the installed open_clip names {len(found)} classes, not ImageNet's 1,000; install 3.x")
    return found


def sentences(names: Sequence[str], sentences_of: Sequence[str]) -> list[str]:
    """Every name in every template: those of the first class, then those of the next."""
    return [template.replace("{}", name) for name in names for template in sentences_of]


def _open_clip() -> Any:
    try:
        return import_module("open_clip")
    except ImportError:
        raise BenchError(
            "CLIP's templates and ImageNet's class names are read from open_clip, which is not installed: "
            "pip install open_clip_torch, or measure with --protocol own-64 on classes that have names of their own"
        ) from None
