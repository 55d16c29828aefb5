"""Finds the trunk weights that metrics measure with, by file name and SHA-256. Fetches nothing.

Looked through in this order: the folders that the user names (``--weights``), those of
``$ATOKEN_BENCH_WEIGHTS`` (separated as in ``$PATH``), and torch's own cache
(``$TORCH_HOME/hub/checkpoints``). A file of the right name and another hash is not used, unless the
user says that it is meant: a file ``NAME.sha256`` beside it that holds its hash. Every cell measured
with such a file is then called unofficial, in its name and in its parameters. Imports nothing heavy.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from harness.errors import MissingWeights

ENVIRONMENT = "ATOKEN_BENCH_WEIGHTS"
UNOFFICIAL = " (unofficial weights)"
"""What follows the name of a cell that was measured with a file whose hash is not the published one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFile:
    """A published weights file.

    Attributes:
        name: file name, as its publisher calls it.
        sha256: of the published file; its first eight digits are part of most names.
        size: bytes.
        origin: where a user gets it.
        licence: of the weights, as far as the publisher says.
        used_by: metric families (`harness.metrics.families`) that need it.
    """

    name: str
    sha256: str
    size: int
    origin: str
    licence: str
    used_by: tuple[str, ...]


INCEPTION = WeightFile(
    name="weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    size=95_628_359,
    origin="github.com/toshas/torch-fidelity, release v0.2.0",
    licence="Apache-2.0 (TensorFlow's Inception of 2015-12-05, converted by torch-fidelity)",
    used_by=("rfid", "rfid-mean", "rfid-covariance", "kid", "inception-score"),
)
VGG16 = WeightFile(
    name="vgg16-397923af.pth",
    sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    size=553_433_881,
    origin="torchvision, VGG16_Weights.IMAGENET1K_V1",
    licence="BSD-3-Clause (torchvision); trained on ImageNet, see its terms",
    used_by=("lpips",),
)
ALEXNET = WeightFile(
    name="alexnet-owt-7be5be79.pth",
    sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    size=244_408_911,
    origin="torchvision, AlexNet_Weights.IMAGENET1K_V1",
    licence="BSD-3-Clause (torchvision); trained on ImageNet, see its terms",
    used_by=("lpips",),
)
# The hash and the size of both I3D files are those of the Git LFS pointers of Open-Sora-Plan-v1.0.0, whose copy of
# the program TokenBench names; the program's hash also stands in several projects that check it before they run it.
I3D_PROGRAM = WeightFile(
    name="i3d_torchscript.pt",
    sha256="bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
    size=51_235_320,
    origin="LanguageBind/Open-Sora-Plan-v1.0.0 on Hugging Face, opensora/eval/fvd/styleganv; made by StyleGAN-V",
    licence="none stated for the file; DeepMind's i3d-kinetics-400 (Apache-2.0) as a program, trained on Kinetics-400",
    used_by=("rfvd", "rfvd-mean", "rfvd-covariance"),
)
I3D_STATE = WeightFile(
    name="i3d_pretrained_400.pt",
    sha256="55095f049e706479d48e221adcdb145b2b9dc930ba28b081ed72367ffaa32343",
    size=50_939_526,
    origin="LanguageBind/Open-Sora-Plan-v1.0.0 on Hugging Face, opensora/eval/fvd/videogpt; made by VideoGPT",
    licence="none stated for the file; DeepMind's i3d-kinetics-400 (Apache-2.0), converted; trained on Kinetics-400",
    used_by=("rfvd", "rfvd-mean", "rfvd-covariance"),
)
I3D_FILES: Mapping[str, WeightFile] = MappingProxyType({"styleganv": I3D_PROGRAM, "state-dict": I3D_STATE})
"""By the option ``detector`` of the families ``rfvd...``."""
KNOWN: Mapping[str, WeightFile] = MappingProxyType(
    {file.name: file for file in (INCEPTION, VGG16, ALEXNET, I3D_PROGRAM, I3D_STATE)}
)


@dataclass(frozen=True, slots=True)
class Found:
    """A weights file on this machine; `official` is False where the user vouches for another hash."""

    path: Path
    sha256: str
    official: bool


class WeightStore:
    """Where weights are looked for.

    Args:
        folders: looked through first, in order.
    """

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        listed = os.environ.get(ENVIRONMENT, "").split(os.pathsep)
        self.folders = (*folders, *(Path(folder) for folder in listed if folder), _torch_cache())

    def find(self, file: WeightFile) -> Found:
        """The first file of that name whose hash is the published one or is vouched for.

        Raises:
            MissingWeights: there is none; the message says where it was looked for, what was wrong with
                each file of that name, and how to provide it.
        """
        wrong = []
        for folder in self.folders:
            path = folder / file.name
            if not path.is_file():
                continue
            try:
                digest = sha256_of(path)
                vouched = _vouched(path)
            except OSError as error:
                wrong.append(f"{_shown(path)} cannot be read ({error.strerror})")
                continue
            if digest == file.sha256:
                return Found(path, digest, official=True)
            if digest == vouched:
                return Found(path, digest, official=False)
            wrong.append(
                f"{_shown(path)} has SHA-256 {digest}, the published file {file.sha256}"
                + ("" if vouched is None else f" and {path.name}.sha256 says {vouched}")
            )
        if wrong:
            raise MissingWeights(
                f"{'; '.join(wrong)}. Get the file again ({file.origin}), or, to measure with other weights on "
                f"purpose, put its SHA-256 into {file.name}.sha256 beside it"
            )
        places = ", ".join(_shown(folder) for folder in self.folders)
        raise MissingWeights(
            f"no {file.name} in {places}; get it ({file.origin}, {file.size / 1e6:.0f} MB) and put it there, "
            f"or name its folder with --weights DIR or ${ENVIRONMENT}"
        )


def _shown(path: Path) -> str:
    """With ~ for the home folder: reasons stand in records and reports that are passed on."""
    home = Path.home()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as hex; read once per process and state of the file (path, size, time)."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001 (they key the cache)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _vouched(path: Path) -> str | None:
    """The hash in ``NAME.sha256`` beside a file (as ``sha256sum`` writes it), None where there is none."""
    beside = path.with_name(path.name + ".sha256")
    if not beside.is_file():
        return None
    words = beside.read_text(encoding="utf-8", errors="replace").split()
    return words[0].lower() if words else ""


def _torch_cache() -> Path:
    """``torch.hub.get_dir()/checkpoints`` by torch's documented rule, without importing torch."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser() / "hub" / "checkpoints"


def list_rows() -> list[dict[str, str]]:
    """A row for each known file, in the order of `KNOWN`; the keys are the columns' titles."""
    return [
        {
            "file": file.name,
            "MB": f"{file.size / 1e6:.0f}",
            "used by": ", ".join(file.used_by),
            "from": file.origin,
            "licence": file.licence,
        }
        for file in KNOWN.values()
    ]


def check_rows(store: WeightStore) -> list[dict[str, str]]:
    """Like `list_rows`, with ``status``: ``ok``, ``unofficial`` or ``absent``, and where or why."""
    rows = []
    for file in KNOWN.values():
        try:
            found = store.find(file)
        except MissingWeights as missing:
            rows.append({"file": file.name, "status": "absent", "detail": str(missing)})
        else:
            status = "ok" if found.official else "unofficial"
            rows.append({"file": file.name, "status": status, "detail": f"{found.path} sha256 {found.sha256}"})
    return rows
