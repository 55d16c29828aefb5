"""Golden cases of views: cameras and depth maps of an asset to its voxels, and the patches that colour them."""

from __future__ import annotations

import numpy as np
import torch

from atoken.assets.cameras import camera_from_opengl
from atoken.assets.voxel_features import PATCH, SIDE, nearest_patches, patches_of_views, voxel_features
from atoken.assets.voxels import occupied_by_points, unprojected
from harness.errors import BenchError
from harness.golden_sheet import Case, Produced

__all__ = ["views"]

_PICTURE = "(37*view + 3*row + 7*col + 91*channel + (row*col)//16) % 256, uint8 256x256x3"
"""How the reference run painted its views, as the header says it; formulas of a file are not run."""


def views(case: Case, device: torch.device) -> Produced:
    """Everything that the release packs of an asset's views. Computed on the CPU in any case.

    Raises:
        BenchError: the file's views are painted in another way.
    """
    if case.header["image_formula"] != _PICTURE or case.header["bounding_radius"] != 0.5:
        raise BenchError(f"{case.name}: its views are painted, or its cube is placed, as this install does not know")
    resolution = case.header["vol_resolution"]
    matrices = case.tensors["in/c2w_opengl"].numpy()
    cameras = [camera_from_opengl(matrix, case.header["camera_angle_x"]) for matrix in matrices]
    points = unprojected(case.tensors["in/depth"].numpy(), cameras, corner=True)
    coords = occupied_by_points(points, resolution)
    features = voxel_features(coords, patches_of_views(_painted(len(cameras))), cameras, resolution=resolution)
    view, patch = nearest_patches(coords, cameras, resolution)
    chosen = np.stack([view, patch // (SIDE // PATCH), patch % (SIDE // PATCH)], axis=1)
    chosen[patch < 0] = -1
    values = {
        "w2c": np.stack([camera.world_to_camera for camera in cameras]),
        "intrinsics": np.stack([camera.intrinsics for camera in cameras]),
        "surface_points_first256": points[:256],
        "coords": coords,
        "feats_uint8": np.rint(features * 255).astype(np.uint8),
        "view_row_col": chosen,
    }
    return Produced(values={key: torch.from_numpy(value).to(device) for key, value in values.items()})


def _painted(count: int) -> np.ndarray:
    view, row, column, channel = np.ogrid[:count, :SIDE, :SIDE, :3]
    colours = (37 * view + 3 * row + 7 * column + 91 * channel + (row * column) // 16) % 256
    return np.asarray(colours, np.uint8)
