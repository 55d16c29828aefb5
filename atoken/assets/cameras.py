"""Cameras around an asset, and the view sets that the papers and the releases use.

The world is the cube [-0.5, 0.5]^3 with z up (Blender's and TRELLIS's axes). A camera's own axes are OpenCV's:
x right, y down, z forward, so that depth is the camera's z and positive in front. Image coordinates are
normalised: (0, 0) is the corner at the top left of the picture, (1, 1) that at the bottom right; the centre of
pixel (row, column) lies at ((column + 0.5) / width, (row + 0.5) / height).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from atoken.errors import InputError

__all__ = [
    "TRELLIS_FOV",
    "TRELLIS_RADIUS",
    "Camera",
    "camera_from_opengl",
    "four_views",
    "hammersley_views",
    "look_at",
    "orbit",
    "thirty_views",
    "turntable",
]

TRELLIS_FOV = math.radians(40)
"""Field of view of TRELLIS's cameras, radians, across the whole picture."""

TRELLIS_RADIUS = 2.0
"""Distance of TRELLIS's cameras from the centre of the cube."""


@dataclass(frozen=True, eq=False, slots=True)
class Camera:
    """A pinhole camera without a picture size: renderers are told height and width.

    Attributes:
        world_to_camera: float64 ``[4, 4]``, a rotation and a shift, to OpenCV axes.
        intrinsics: float64 ``[3, 3]``, normalised: focal length 0.5 / tan(fov / 2), centre 0.5.
    """

    world_to_camera: np.ndarray
    intrinsics: np.ndarray

    def __post_init__(self) -> None:
        for name, shape in (("world_to_camera", (4, 4)), ("intrinsics", (3, 3))):
            matrix = np.array(getattr(self, name), np.float64)
            if matrix.shape != shape or not np.isfinite(matrix).all():
                raise InputError(f"a camera's {name} is a finite {shape[0]}x{shape[1]} matrix, not {matrix.tolist()}")
            matrix.setflags(write=False)
            object.__setattr__(self, name, matrix)

    @property
    def position(self) -> np.ndarray:
        """Where the camera stands in the world, float64 ``[3]``."""
        turn, shift = self.world_to_camera[:3, :3], self.world_to_camera[:3, 3]
        return np.asarray(-turn.T @ shift)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Image coordinates and depth of points of the world.

        Args:
            points: ``[..., 3]``.

        Returns:
            normalised (u, v) ``[..., 2]`` and depth ``[...]``; of a point behind the camera the depth is
            negative and (u, v) mean nothing.
        """
        local = points @ self.world_to_camera[:3, :3].T + self.world_to_camera[:3, 3]
        image = local @ self.intrinsics.T
        return image[..., :2] / image[..., 2:], local[..., 2]


def look_at(
    position: ArrayLike, target: ArrayLike = (0.0, 0.0, 0.0), up: ArrayLike = (0.0, 0.0, 1.0), fov: float = TRELLIS_FOV
) -> Camera:
    """A camera at `position` that sees `target` in the middle of its picture.

    Args:
        position: ``[3]``, in the world.
        target: ``[3]``, likewise.
        up: ``[3]``, the direction that shall point upwards in the picture; need not be upright to the view.
        fov: field of view, radians, both ways.

    Raises:
        InputError: `position` is `target`, `up` lies along the view, or `fov` is not between 0 and pi.
    """
    here = np.asarray(position, np.float64)
    forward = np.asarray(target, np.float64) - here
    length = float(np.linalg.norm(forward))
    if length == 0:
        raise InputError(f"a camera at {here.tolist()} cannot look at itself; move it or its target")
    forward = forward / length
    right = np.cross(forward, np.asarray(up, np.float64))
    # 1e-9 of the length of `up`: below that the picture's roll would be rounding noise.
    if np.linalg.norm(right) <= 1e-9 * np.linalg.norm(np.asarray(up, np.float64)):
        raise InputError(f"up {np.asarray(up).tolist()} lies along the view from {here.tolist()}; give another up")
    right /= np.linalg.norm(right)
    turn = np.stack([right, np.cross(forward, right), forward])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, -turn @ here
    return Camera(matrix, _intrinsics(fov))


def orbit(azimuth: float, pitch: float, radius: float = TRELLIS_RADIUS, fov: float = TRELLIS_FOV) -> Camera:
    """A camera on a sphere around the origin that looks at the origin, upright.

    Args:
        azimuth: radians, from +x towards +y.
        pitch: radians above the horizon. At +-pi/2 the picture has the roll that it has just beside the pole.
        radius: distance from the origin.
        fov: as of `look_at`.
    """
    level = np.array([math.cos(azimuth), math.sin(azimuth), 0.0])
    vertical = np.array([0.0, 0.0, 1.0])
    outward = math.cos(pitch) * level + math.sin(pitch) * vertical
    # Where the camera goes when the pitch grows is upright to the view everywhere, also at the poles.
    up = math.cos(pitch) * vertical - math.sin(pitch) * level
    return look_at(radius * outward, up=up, fov=fov)


def camera_from_opengl(camera_to_world: ArrayLike, fov: float) -> Camera:
    """A camera as ``transforms.json`` files (NeRF, Blender, TRELLIS) hold it.

    Args:
        camera_to_world: ``[4, 4]`` to the world from OpenGL axes: x right, y up, z backward.
        fov: ``camera_angle_x``, radians.

    Raises:
        InputError: no invertible 4x4 matrix.
    """
    matrix = np.array(camera_to_world, np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
        raise InputError(f"camera to world is an invertible 4x4 matrix, not {matrix.tolist()}")
    matrix[:3, 1:3] *= -1
    return Camera(np.linalg.inv(matrix), _intrinsics(fov))


def hammersley_views(count: int, offset: Sequence[float] = (0.0, 0.0), *, mostly_above: bool = False) -> list[Camera]:
    """Views spread over the sphere by a Hammersley sequence: what TRELLIS renders its training data from.

    Args:
        count: how many.
        offset: two numbers in [0, 1) that move the whole set; TRELLIS draws them per asset, without a seed.
        mostly_above: as TRELLIS's data preparation has it, which maps the height u in [0, 1) to 2u below
            0.25 and to 2u/3 + 1/3 from there on: a quarter of the views lies below the horizon, three
            quarters above. Without it, halves.

    Returns:
        cameras at radius 2 with a field of view of 40 degrees.
    """
    cameras = []
    for index in range(count):
        height, turn = (index + offset[0]) / count, _radical_inverse(index) + offset[1]
        if mostly_above:
            height = 2 * height if height < 0.25 else 2 * height / 3 + 1 / 3
        cameras.append(orbit(2 * math.pi * turn, _pitch(height)))
    return cameras


def four_views() -> list[Camera]:
    """The evaluation set of four: yaw 0, 90, 180, 270 degrees (from +y towards +x), pitch 30 (PROTOCOLS of TRELLIS)."""
    return turntable(4)


def turntable(count: int, pitch: float = math.radians(30)) -> list[Camera]:
    """Evenly spaced views once around an upright asset, from +y towards +x; of four, `four_views`.

    Args:
        count: how many.
        pitch: radians above the horizon.
    """
    return [_facing_y(math.radians(360 * index / count), pitch) for index in range(count)]


def thirty_views() -> list[Camera]:
    """The evaluation set of thirty: TRELLIS's ``render_multiview``, a Hammersley sphere without offset.

    Its first camera stands straight below and has the roll of `orbit` there. (TRELLIS's own roll there hangs
    on the rounding of cos(pi/2).)
    """
    return [_facing_y(2 * math.pi * _radical_inverse(index), _pitch(index / 30)) for index in range(30)]


def _facing_y(yaw: float, pitch: float) -> Camera:
    """TRELLIS's evaluation code turns the other way, and from +y, than its data preparation."""
    return orbit(math.pi / 2 - yaw, pitch)


def _pitch(height: float) -> float:
    """Of equal areas: `height` runs from 0 straight below to 1 straight above."""
    return math.acos(1 - 2 * height) - math.pi / 2


def _radical_inverse(index: int) -> float:
    """The binary digits of `index` mirrored at the point."""
    value, unit = 0.0, 0.5
    while index:
        index, digit = divmod(index, 2)
        value += digit * unit
        unit /= 2
    return value


def _intrinsics(fov: float) -> np.ndarray:
    if not 0 < fov < math.pi:
        raise InputError(f"a field of view lies between 0 and pi radians, not {fov}")
    focal = 0.5 / math.tan(fov / 2)
    return np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])
