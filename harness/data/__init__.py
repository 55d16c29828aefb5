"""Where samples come from and how they are prepared. Importing this imports nothing heavy."""

from harness.data.catalog import DATASETS, DatasetEntry, open_clips, open_dataset, open_images

__all__ = ["DATASETS", "DatasetEntry", "open_clips", "open_dataset", "open_images"]
