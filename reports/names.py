"""Names that the paper gives one system in different tables."""

from __future__ import annotations

from functools import cache

from reports.paper_audit_data import read_data

__all__ = ["same_system"]


@cache
def _groups() -> tuple[frozenset[str], ...]:
    # The audit's names end with what tells rows of one table apart, "[VAE]"; here the rows' own names are wanted.
    return tuple(frozenset(name.rpartition(" [")[0] or name for name in names) for names in read_data().systems)


def same_system(name: str) -> frozenset[str]:
    """All names of a system, as rows are called (`paper.Row.key`); that name alone where the paper has no other."""
    return next((group for group in _groups() if name in group), frozenset({name}))
