"""Sentences about class names, to train with and to compare with while training.

Our own few: none is of a published set of templates, so that evaluating with such a set is not training on it.
"""

from __future__ import annotations

__all__ = ["CAPTIONS", "class_name", "sentences"]

CAPTIONS = (
    "{}",
    "a photo of {}",
    "a picture of {}",
    "an image of {}",
    "a close-up photo of {}",
    "a photo of {}, as one sees it",
)


def class_name(name: str) -> str:
    """A class's name as words: the first of WordNet's synonyms ("goldfish, Carassius auratus"), "_" as space."""
    return " ".join(name.partition(",")[0].replace("_", " ").split())


def sentences(name: str) -> list[str]:
    """All captions about a class, in the order of `CAPTIONS`."""
    return [template.format(class_name(name)) for template in CAPTIONS]
