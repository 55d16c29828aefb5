"""Where images come from and how they are prepared. Importing this imports nothing heavy."""

from harness.data.catalog import DATASETS, DatasetEntry, open_dataset

__all__ = ["DATASETS", "DatasetEntry", "open_dataset"]
