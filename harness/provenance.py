"""Where a number comes from: code, packages, machine. Written into every record."""

from __future__ import annotations

import hashlib
import platform
import resource
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DISTRIBUTION = "atoken"

# Those that compute pixels or metrics; a shard depends on their versions.
COMPUTING = (
    *("torch", "torchvision", "numpy", "pillow", "av", "torch-fidelity", "lpips", "scikit-image", "scipy"),
    *("trimesh", "embreex", "numba"),
)
# Those that only carry data.
CARRYING = ("safetensors", "pandas", "pyarrow")
# Source that no sample's result passes through: an edit there leaves the finished shards standing.
_BESIDE = (
    *("atoken/training", "atoken/cli.py", "atoken/commands.py", "atoken/inspection.py", "atoken/token_"),
    *(
        "atoken/work.py",
        "atoken/prepare_command.py",
        "harness/ablation",
        "harness/cli.py",
        "harness/cli_",
        "harness/console.py",
    ),
    *("harness/check.py", "harness/golden", "harness/listing.py", "harness/record_", "harness/sensitivity"),
)


def packages(names: tuple[str, ...] = COMPUTING + CARRYING) -> dict[str, str]:
    """Installed versions; a package that is not installed is left out."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def source_sha256() -> str:
    """Hash of the library's and the harness's own source, so that an edited checkout never reuses old shards."""
    total = hashlib.sha256()
    for path in sorted(path for room in ("atoken", "harness") for path in (ROOT / room).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(_BESIDE):
            total.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def software() -> dict[str, Any]:
    """What the numbers are computed with; part of what a shard depends on."""
    return {"source": source_sha256(), "packages": packages(COMPUTING)}


def code() -> dict[str, Any]:
    """Version of this package, and commit and dirty flag where it runs from a checkout (None otherwise)."""
    return {"version": metadata.version(DISTRIBUTION), "source_sha256": source_sha256(), **_git()}


def _git() -> dict[str, Any]:
    # The files must be tracked there: a wheel installed below somebody's checkout is not that checkout.
    if _run_git("ls-files", "--error-unmatch", "harness/provenance.py") is None:
        return {"commit": None, "dirty": None}
    commit = _run_git("rev-parse", "HEAD")
    status = _run_git("status", "--porcelain")
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def _run_git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def environment(device_names: list[str]) -> dict[str, Any]:
    """Python, system and packages; `device_names` as the shards wrote them."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device_name": ", ".join(device_names),
        "packages": packages(),
    }


def device_name(device: str) -> str:
    """The CPU's or GPU's own name."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    return _cpu_name()


@cache
def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def peak_rss_bytes() -> int:
    """Most memory that this process has had resident so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes everywhere else
