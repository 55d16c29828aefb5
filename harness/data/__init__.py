"""Datasets: where samples come from and how they are decoded."""
