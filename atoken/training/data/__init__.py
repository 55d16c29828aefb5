"""Samples of training: where they lie, which are drawn, how they become packs of tokens.

sources (images, tars, parquet, videos, moving_images, assets) -> batches (views, frames, pictures) -> pack -> loading.
"""

from atoken.training.data.batches import Batches
from atoken.training.data.loading import load_ahead
from atoken.training.data.pack import Batch, Pack, Renders
from atoken.training.data.photos import PATCH, Photos, center_crop, load_photos, patches
from atoken.training.data.prepared import Prepared, check_gathering, load_prepared
from atoken.training.data.source import Source
from atoken.training.data.sources import Sources, open_sources

__all__ = [
    "PATCH",
    "Batch",
    "Batches",
    "Pack",
    "Photos",
    "Prepared",
    "Renders",
    "Source",
    "Sources",
    "center_crop",
    "check_gathering",
    "load_ahead",
    "load_photos",
    "load_prepared",
    "open_sources",
    "patches",
]
