"""Every check and the demo, in one shared environment: torch is several gigabytes, so it is installed once."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "types", "tests"]
# The sessions manage one environment themselves (see `shared`); nox would make one for each.
nox.options.default_venv_backend = "none"

ROOT = Path(__file__).parent
ENVIRONMENT = ROOT / ".nox" / f"shared-{sys.version_info.major}.{sys.version_info.minor}"
BIN = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / "python"
PACKAGES = ("atoken", "benchmarks", "harness", "reports")
GROUPS = ("test", "lint", "types")


def shared(session: nox.Session) -> None:
    """Make the environment of all sessions, or bring it up to date if what it is made from has changed."""
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        session.error(f"Python 3.11, 3.12 or 3.13 is needed; nox runs on {sys.version.split()[0]}")
    made_from = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        made_from.update((ROOT / name).read_bytes())
    stamp = ENVIRONMENT / "made-from.sha256"
    if stamp.is_file() and stamp.read_text() == made_from.hexdigest():
        return
    session.log(f"Making the shared environment in {ENVIRONMENT} (torch is large: minutes on a first run)")
    if not PYTHON.exists():
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        session.run(sys.executable, "-m", "venv", str(ENVIRONMENT), external=True)
    pip = (str(PYTHON), "-m", "pip", "install", "--quiet", "--constraint", "constraints.txt")
    session.run(*pip, "--upgrade", "pip>=25.1", external=True)  # the first with --group
    session.run(*pip, "--editable", ".[clips,text]", *(f"--group={group}" for group in GROUPS), external=True)
    # Written last, so that an interrupted installation is taken up again.
    stamp.write_text(made_from.hexdigest())


def run(session: nox.Session, *command: str, **env: str) -> None:
    """Run a program of the shared environment."""
    shared(session)
    path = os.pathsep.join((str(BIN), os.environ.get("PATH", "")))
    session.run(str(BIN / command[0]), *command[1:], external=True, env={"PATH": path, **env})


@nox.session
def demo(session: nox.Session) -> None:
    """The main job on real photographs, clips and meshes: tokenize, measure, set beside the paper."""
    run(session, "atoken-bench", "run", "image-recon")
    run(session, "atoken-bench", "run", "image-recon", "--tokenizer", "atoken:atoken-nano-d", "--option", "search=10")
    run(session, "atoken-bench", "run", "video-recon", "--protocol", "preview")
    run(session, "atoken-bench", "run", "asset-recon", "--protocol", "preview", "--limit", "6")
    run(session, "atoken-bench", "run", "image-classify")
    for spec in ("atoken:atoken-nano", "identity"):
        # A tokenizer that breaks the contract ends with 1, and Table 1 says what it does not do.
        session.run(str(BIN / "atoken-bench"), "check", spec, external=True, success_codes=[0, 1])
    run(session, "atoken-bench", "report")


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite; ``nox -s tests -- -m slow`` for the slow part."""
    run(session, "python", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff's checks and its format."""
    run(session, "ruff", "check", ".")
    run(session, "ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """The type checker."""
    run(session, "mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation's site, below build/docs; a warning is an error, and building it needs no network."""
    shared(session)
    made_with = ENVIRONMENT / "docs-made-from.sha256"
    stamp = (ENVIRONMENT / "made-from.sha256").read_text()
    # Installed by this session alone, so that the others need not wait for what they do not use.
    if not made_with.is_file() or made_with.read_text() != stamp:
        pip = (str(PYTHON), "-m", "pip", "install", "--quiet", "--constraint", "constraints.txt")
        session.run(*pip, "--group=docs", external=True)
        made_with.write_text(stamp)
    run(session, "python", "-m", "mkdocs", "build", "--strict", "-f", "docs/mkdocs.yml", NO_MKDOCS_2_WARNING="1")


@nox.session
def bench(session: nox.Session) -> None:
    """Speed and memory, as ratios measured in one run; ``nox -s bench -- model`` for one of them."""
    names = session.posargs or sorted(
        path.stem for path in (ROOT / "benchmarks" / "speed").glob("*.py") if path.stem != "__init__"
    )
    for name in names:
        run(session, "python", "-m", f"benchmarks.speed.{name}")
