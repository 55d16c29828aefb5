"""Cameras must not mirror, and the view sets must be those of the papers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import qmc

from atoken.assets.cameras import (
    TRELLIS_FOV,
    Camera,
    camera_from_opengl,
    four_views,
    hammersley_views,
    look_at,
    orbit,
    thirty_views,
)
from atoken.errors import InputError

angles = st.floats(-10, 10)


def _seen(camera: Camera, *point: float) -> tuple[float, float, float]:
    (u, v), z = camera.project(np.array(point))
    return float(u), float(v), float(z)


def test_from_minus_y_x_is_right_and_z_is_up() -> None:
    camera = look_at((0, -2, 0))
    assert _seen(camera, 0, 0, 0) == pytest.approx((0.5, 0.5, 2))
    right, top = _seen(camera, 0.5, 0, 0), _seen(camera, 0, 0, 0.5)
    assert right[0] > 0.5
    assert right[1] == pytest.approx(0.5)
    assert top[1] < 0.5
    assert top[0] == pytest.approx(0.5)
    near = _seen(camera, 0, -0.5, 0)
    assert near == pytest.approx((0.5, 0.5, 1.5))


def test_the_field_of_view_ends_at_the_border_of_the_picture() -> None:
    camera = look_at((0, -2, 0), fov=math.radians(60))
    edge = 2 * math.tan(math.radians(30))
    assert _seen(camera, edge, 0, -edge)[:2] == pytest.approx((1, 1))


@given(azimuth=angles, pitch=st.floats(-math.pi / 2, math.pi / 2), radius=st.floats(0.1, 10))
def test_every_orbit_is_a_turn_that_looks_at_the_origin(azimuth: float, pitch: float, radius: float) -> None:
    camera = orbit(azimuth, pitch, radius)
    turn = camera.world_to_camera[:3, :3]
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    # -1 would mirror the picture.
    assert np.linalg.det(turn) == pytest.approx(1)
    assert _seen(camera, 0, 0, 0) == pytest.approx((0.5, 0.5, radius))
    expected = [math.cos(azimuth) * math.cos(pitch), math.sin(azimuth) * math.cos(pitch), math.sin(pitch)]
    np.testing.assert_allclose(camera.position, radius * np.array(expected), atol=1e-9 * max(1, radius))


@given(azimuth=angles, side=st.sampled_from([-1, 1]))
def test_the_pole_is_the_limit_of_the_views_beside_it(azimuth: float, side: int) -> None:
    pole, beside = (orbit(azimuth, side * (math.pi / 2 - gap)).world_to_camera for gap in (0.0, 1e-7))
    np.testing.assert_allclose(pole, beside, atol=1e-6)


def test_opengl_matrices_are_the_same_camera() -> None:
    camera = orbit(0.7, 0.3)
    to_world = np.linalg.inv(camera.world_to_camera)
    to_world[:, 1:3] *= -1
    again = camera_from_opengl(to_world, TRELLIS_FOV)
    np.testing.assert_allclose(again.world_to_camera, camera.world_to_camera, atol=1e-12)
    np.testing.assert_array_equal(again.intrinsics, camera.intrinsics)


def test_hammersley_views_follow_scipys_sequence() -> None:
    directions = np.array([camera.position for camera in hammersley_views(64)]) / 2
    np.testing.assert_allclose((directions[:, 2] + 1) / 2, np.arange(64) / 64, atol=1e-12)
    turn = qmc.Halton(1, scramble=False).random(64)[:, 0] * 2 * np.pi
    radius = np.hypot(directions[:, 0], directions[:, 1])
    np.testing.assert_allclose(directions[:, 0], radius * np.cos(turn), atol=1e-12)
    np.testing.assert_allclose(directions[:, 1], radius * np.sin(turn), atol=1e-12)


def test_the_offset_moves_all_views_and_leaves_none_at_the_pole() -> None:
    moved = hammersley_views(16, (0.5, 0.25))
    assert moved[0].position[2] == pytest.approx(2 * (2 * 0.5 / 16 - 1))
    assert math.atan2(moved[0].position[1], moved[0].position[0]) == pytest.approx(math.pi / 2)


def test_data_preparation_puts_a_quarter_of_its_views_below() -> None:
    heights = np.array([camera.position[2] for camera in hammersley_views(100, mostly_above=True)])
    assert (heights < -1e-9).sum() == 25
    heights = np.array([camera.position[2] for camera in hammersley_views(100)])
    assert (heights < -1e-9).sum() == 50


def test_the_evaluation_sets_are_those_of_the_papers() -> None:
    four = np.array([camera.position for camera in four_views()])
    level = 2 * math.cos(math.radians(30))
    np.testing.assert_allclose(four, [[0, level, 1], [level, 0, 1], [0, -level, 1], [-level, 0, 1]], atol=1e-12)
    thirty = np.array([camera.position for camera in thirty_views()])
    assert thirty.shape == (30, 3)
    np.testing.assert_allclose(thirty[:, 2], 2 * (2 * np.arange(30) / 30 - 1), atol=1e-12)
    # The second point: yaw 180 degrees from +y.
    assert thirty[1, 0] == pytest.approx(0, abs=1e-12)
    assert thirty[1, 1] < 0
    assert all(camera.intrinsics[0, 0] == pytest.approx(1.3737387) for camera in four_views() + thirty_views())


def test_cameras_that_cannot_be_are_refused() -> None:
    for position, target, up in (((1, 1, 1), (1, 1, 1), (0, 0, 1)), ((0, 0, 2), (0, 0, 0), (0, 0, 1))):
        with pytest.raises(InputError):
            look_at(position, target, up)
    for fov in (0.0, math.pi, math.nan):
        with pytest.raises(InputError, match="field of view"):
            look_at((0, -2, 0), fov=fov)
    with pytest.raises(InputError, match="invertible"):
        camera_from_opengl(np.zeros((4, 4)), 1.0)
    with pytest.raises(InputError, match="4x4"):
        Camera(np.eye(3), np.eye(3))
