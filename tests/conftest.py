"""Fixtures shared by every test: where the development data lies, and no network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no fault of the code: no test has a time to keep.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Nothing in the suite may reach for a hub (a test that does would pass here and fail offline).
os.environ.setdefault("HF_HUB_OFFLINE", "1")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """The developers' folder beside the checkout; a user has none, so the test is skipped then."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the development data in ../shared, which a user does not have")
    return folder
