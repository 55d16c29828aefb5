"""Small image files of every kind that a dataset meets."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

MakeImage = Callable[..., bytes]


@pytest.fixture(scope="session")
def image_bytes() -> MakeImage:
    """Encode a small picture whose grey level is ``level``: ``image_bytes(level, "JPEG", size=(h, w))``."""

    def make(level: int = 0, kind: str = "PNG", size: tuple[int, int] = (6, 9)) -> bytes:
        data = io.BytesIO()
        Image.fromarray(np.full((*size, 3), level, np.uint8)).save(data, kind)
        return data.getvalue()

    return make
