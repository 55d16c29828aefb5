"""Read what `atoken-bench check` wrote: the contract's outcome of a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import BenchError

__all__ = ["NAME", "Check", "Seen", "read_checks"]

# As `harness.check` writes it; that module imports torch, which reports do not.
SCHEMA = 1
NAME = "check.json"


@dataclass(frozen=True, slots=True)
class Seen:
    """Whether a capability holds, and what showed it."""

    holds: bool
    seen: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A ``check.json``.

    Attributes:
        capabilities: by name, as `harness.check.capabilities_of` gives them.
        faults: of each part that the adapter offers.
    """

    folder: Path
    spec: str
    card: Mapping[str, Any]
    capabilities: Mapping[str, Seen]
    faults: Mapping[str, tuple[str, ...]]
    finished: str
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def title(self) -> str:
        """The tokenizer as a reader sees it."""
        return str(self.card.get("title") or self.card.get("name") or self.spec)

    @property
    def holds(self) -> bool:
        """Whether no part has a fault."""
        return not any(self.faults.values())


def read_checks(runs: Path) -> list[Check]:
    """Every check below ``runs``, in the order of their folders' names.

    Raises:
        BenchError: a file that is no check, or of a newer version; names it and the mend.
    """
    return [_read(path) for path in sorted(runs.rglob(NAME))]


def _read(path: Path) -> Check:
    try:
        raw = json.loads(path.read_bytes())
        if raw["schema"] > SCHEMA:
            raise BenchError(f"{path}: written by a newer version (schema {raw['schema']}); update atoken-bench")
        return Check(
            folder=path.parent,
            spec=str(raw["tokenizer"]["spec"]),
            card=dict(raw["tokenizer"]["card"]),
            capabilities={name: Seen(bool(e["holds"]), str(e["seen"])) for name, e in raw["capabilities"].items()},
            faults={part: tuple(map(str, found)) for part, found in raw["contract"]["faults"].items()},
            finished=str(raw["finished"]),
            raw=raw,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"missing {error}" if isinstance(error, KeyError) else str(error)
        raise BenchError(f"{path}: damaged ({what}); run the same `check` again or remove the folder") from None
