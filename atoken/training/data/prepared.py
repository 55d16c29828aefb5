"""Assets made ready for training: voxels with their colours, pictures to compare with, a caption, in one .npz file.

Looking at a mesh from all around takes seconds, so it is done once (`atoken prepare`). A file holds, as numpy arrays:

- `patches` uint8 [U, 768] and `index` [L]: voxel i has the pixels `patches[index[i]]`. Neighbouring voxels share what
  they see of a view, so the distinct patches are a tenth or less of the voxels;
- `coords` uint8 [L, 3]: the voxels in the grid of 64^3;
- `pictures` uint8 [R, S, S, 4], sRGB with straight alpha, and their cameras `intrinsics` float64 [R, 3, 3] and
  `world_to_camera` float64 [R, 4, 4], as `atoken.assets.cameras.Camera` has them;
- `captions`: the texts, in the order given;
- `gathering`: which views colour a voxel, as `atoken.assets.voxel_features` names them;
- `key`: a hash of the mesh's content and of all settings; `format`: 2.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atoken.assets.cameras import Camera
from atoken.errors import InputError
from atoken.files import replacing
from atoken.tokens import VOXEL_GRID
from atoken.training.errors import TrainingError

__all__ = ["Heading", "Prepared", "check_gathering", "load_heading", "load_prepared", "store_prepared"]

FORMAT = 2
CHANNELS = 768


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One asset; arrays as the file has them.

    Raises:
        TrainingError: the arrays do not fit together.
    """

    patches: np.ndarray
    index: np.ndarray
    coords: np.ndarray
    pictures: np.ndarray
    cameras: tuple[Camera, ...]
    captions: tuple[str, ...]
    gathering: str
    key: str

    def __post_init__(self) -> None:
        side = self.pictures.shape[1] if self.pictures.ndim == 4 else 0
        fits = (
            self.patches.dtype == self.coords.dtype == self.pictures.dtype == np.uint8
            and self.patches.ndim == 2
            and self.patches.shape[1] == CHANNELS
            and self.index.dtype.kind == "u"
            and self.index.ndim == 1
            and len(self.index) > 0
            and int(self.index.max()) < len(self.patches)
            and self.coords.shape == (len(self.index), 3)
            and int(self.coords.max()) < VOXEL_GRID
            and self.pictures.shape == (len(self.cameras), side, side, 4)
        )
        if not fits:
            raise TrainingError("its arrays do not fit together")

    @property
    def features(self) -> np.ndarray:
        """Pixels of each voxel, uint8 [L, 768]."""
        return np.asarray(self.patches[self.index])


def store_prepared(path: Path, asset: Prepared) -> None:
    """Write an asset, whole or not at all.

    Raises:
        WriteError: the system refused.
    """
    arrays = {
        "format": np.array(FORMAT),
        "key": np.array(asset.key),
        "captions": np.array(asset.captions, dtype=np.str_),
        "gathering": np.array(asset.gathering),
        "patches": asset.patches,
        "index": asset.index,
        "coords": asset.coords,
        "pictures": asset.pictures,
        "intrinsics": np.stack([camera.intrinsics for camera in asset.cameras]),
        "world_to_camera": np.stack([camera.world_to_camera for camera in asset.cameras]),
    }
    with replacing(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            # A fixed date: the same asset is the same bytes.
            member = zipfile.ZipInfo(f"{name}.npy")
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array, order="C"), allow_pickle=False)


def load_prepared(path: Path) -> Prepared:
    """Read an asset.

    Raises:
        TrainingError: no such file, damaged, or of another kind; names the file.
    """
    with _opened(path) as file:
        cameras = zip(file["world_to_camera"], file["intrinsics"], strict=True)
        return Prepared(
            patches=file["patches"],
            index=file["index"],
            coords=file["coords"],
            pictures=file["pictures"],
            cameras=tuple(Camera(world, own) for world, own in cameras),
            captions=_texts(file),
            gathering=str(file["gathering"]),
            key=str(file["key"]),
        )


@dataclass(frozen=True, slots=True)
class Heading:
    """What an asset's file says of it, without its voxels and pictures.

    Attributes:
        pictures, side: how many, and the pixels along their sides.
    """

    captions: tuple[str, ...]
    gathering: str
    pictures: int
    side: int


def load_heading(path: Path) -> Heading:
    """The heading alone, which is quick.

    Raises:
        TrainingError: as `load_prepared`.
    """
    with _opened(path) as file, file.zip.open("pictures.npy") as pictures:
        np.lib.format.read_magic(pictures)
        count, side, _, _ = np.lib.format.read_array_header_1_0(pictures)[0]
        return Heading(_texts(file), str(file["gathering"]), count, side)


def check_gathering(path: Path, own: str, wanted: str) -> None:
    """Refuse an asset whose voxels have their colours in another way than a recipe wants.

    Raises:
        TrainingError: they have; names the file and both ways.
    """
    if own != wanted:
        raise TrainingError(
            f"{path}: its voxels have their colours by {own}, the recipe wants {wanted}; prepare it again with "
            f"--gathering {wanted}, or give --set gathering={own}"
        )


def _texts(file: Any) -> tuple[str, ...]:
    return tuple(str(caption) for caption in file["captions"])


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            if int(file["format"]) != FORMAT:
                raise TrainingError(
                    f"is of format {int(file['format'])}, this version reads {FORMAT}; prepare it again"
                )
            yield file
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such file") from None
    except TrainingError as error:
        raise TrainingError(f"{path}: {error}") from None
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error, InputError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(f"{path}: no prepared asset, or damaged ({reason}); prepare it again") from None
