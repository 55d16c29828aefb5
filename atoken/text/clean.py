"""What texts go through before SigLIP2's tokenizer (FACTS section 10)."""

from __future__ import annotations

import html
import string
from importlib import import_module

from atoken.errors import ATokenError

__all__ = ["MissingPackage", "clean"]

_PUNCTUATION = str.maketrans("", "", string.punctuation)


class MissingPackage(ATokenError):
    """A package of an extra that is not installed."""


def clean(text: str) -> str:
    """Mended encoding, no HTML entities, no ASCII punctuation, lower case, single spaces.

    Nothing takes a character's place but "_", which becomes a space; dashes beyond ASCII stay.

    Raises:
        MissingPackage: ftfy is not installed.
    """
    try:
        ftfy = import_module("ftfy")
    except ImportError:
        raise MissingPackage("cleaning texts needs ftfy; install atoken[text]") from None
    mended = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return " ".join(mended.replace("_", " ").translate(_PUNCTUATION).lower().split())
