"""Samples of training: where they lie, which are drawn, how they become packs of tokens."""

from atoken.training.data.photos import PATCH, Photos, center_crop, load_photos, patches

__all__ = ["PATCH", "Photos", "center_crop", "load_photos", "patches"]
