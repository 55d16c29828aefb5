"""A protocol fixes everything that can move a number; its hash is part of every record."""
