"""Text towers, and what compares their vectors with a model's. Their packages come with the extra `text`."""

from atoken.text.head import TextHead, fit_projection
from atoken.text.loading import TOWERS, load_tower
from atoken.text.tower import TextTower
from atoken.text.zeroshot import accuracy, class_vectors

__all__ = ["TOWERS", "TextHead", "TextTower", "accuracy", "class_vectors", "fit_projection", "load_tower"]
