"""The house stands as CONTRIBUTING.md says: imports only go down, and reports never need torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FLOORS = {"atoken": 1, "harness": 2, "benchmarks": 3, "reports": 3}
# The command is the top floor: it finds everything through the registry and imports it late.
COMMAND = "harness/cli.py"


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.lineno, node.module


def test_imports_only_go_down(repository: Path) -> None:
    upward = []
    for room, floor in FLOORS.items():
        for path in sorted((repository / room).rglob("*.py")):
            name = path.relative_to(repository).as_posix()
            for line, module in _imports(path):
                other = module.partition(".")[0]
                if other != room and FLOORS.get(other, 0) >= floor and name != COMMAND:
                    upward.append(f"{name}:{line} imports {module}")
    assert upward == []


def test_test_files_have_names_of_their_own(repository: Path) -> None:
    # Folders of tests are no packages: pytest cannot collect two files of one name.
    names = [path.name for path in (repository / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(
    "module", ["reports.command", "harness.cli", "atoken.cli", "benchmarks.image_recon", "benchmarks.video_recon"]
)
def test_torch_is_not_imported_with(module: str) -> None:
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
