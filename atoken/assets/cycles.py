"""Pictures of a model by Blender's Cycles, lit as TRELLIS lights its data: the optional renderer.

bpy wants a numpy of its own, so it lives in an environment of its own and is called as a program; the variable
``ATOKEN_BLENDER_PYTHON`` names that environment's Python:

    python3.11 -m venv blender
    blender/bin/pip install 'bpy>=5' 'numpy<2'
    export ATOKEN_BLENDER_PYTHON=$PWD/blender/bin/python

As TRELLIS: a point light of 1000 W at (4, 1, 6), an area light of 10,000 W at z = 10 a hundred metres wide, one of
1000 W at z = -10, the grey world and the Filmic view of Blender 3.0's start-up scene, 128 samples denoised, a box
filter, one diffuse and one glossy bounce, three of transparency and of transmission, a transparent film. Not as
TRELLIS: Blender 5 in place of 3.0.1. (TRELLIS names the box in a way that Blender 5 does not know; here it is set.)
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from atoken.assets.cameras import Camera
from atoken.assets.render import EMPTY, Views
from atoken.assets.sources import AssetError
from atoken.errors import InputError

__all__ = [
    "BLEND",
    "FORMATS",
    "PYTHON",
    "Blender",
    "BlenderError",
    "CyclesSettings",
    "exported",
    "installed",
    "render_cycles",
]

PYTHON = "ATOKEN_BLENDER_PYTHON"
"""The environment variable that names the Python with bpy."""

BLEND = ".blend"
FORMATS = (".glb", ".gltf", ".obj", ".ply", ".stl", BLEND)
"""Suffixes that Blender is given."""

_MEND = (
    "make an environment (python3.11 -m venv blender && blender/bin/pip install 'bpy>=5' 'numpy<2') "
    f"and set {PYTHON} to its blender/bin/python"
)
_SCRIPT = Path(__file__).with_name("cycles_blender.py")
_POLL = 0.1
_START = 300.0  # seconds in which Blender must say what it is: a slow disk, a first start
_LAST_LINES = 4000

Device = Literal["auto", "cpu", "gpu"]


class BlenderError(AssetError):
    """Blender's Python is missing, ended, hung or gave something else than was asked; the line says which."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CyclesSettings:
    """What a picture by Cycles depends on besides model and camera.

    Attributes:
        height: pixels.
        width: pixels.
        samples: paths through a pixel at most; Cycles stops sooner where its noise threshold is met.
        seed: of the noise.
        device: "auto" takes a GPU where Cycles finds one.
        timeout: seconds that a view may take, and that reading the model may.
    """

    height: int = 512
    width: int = 512
    samples: int = 128
    seed: int = 0
    device: Device = "auto"
    timeout: float = 600.0

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1 or max(self.height, self.width) > 8192:
            raise InputError(f"a view has 1 to 8192 pixels a side, not {self.width}x{self.height}")
        if not 1 <= self.samples <= 65536:
            raise InputError(f"Cycles takes 1 to 65536 samples a pixel, not {self.samples}")
        if not 0 <= self.seed < 2**31:
            raise InputError(f"a seed of Cycles is 0 to {2**31 - 1}, not {self.seed}")
        if self.device not in get_args(Device):
            raise InputError(f"Cycles runs on {', '.join(get_args(Device))}, not {self.device!r}")
        if not self.timeout > 0:
            raise InputError(f"a timeout is a number of seconds above 0, not {self.timeout}")


@dataclass(frozen=True, slots=True)
class Blender:
    """What draws: Blender's version, and what Cycles runs on (``CPU``, or a GPU's name)."""

    version: str
    device: str

    def __str__(self) -> str:
        return f"Blender {self.version} on {self.device}"


def installed(device: Device = "auto") -> Blender:
    """Start Blender's Python once and ask what it is; the answer is kept for as long as this process lives.

    Raises:
        BlenderError: it is missing, has no bpy, one that is too old, or not the device.
    """
    return _installed(os.environ.get(PYTHON), device)


@lru_cache(maxsize=8)
def _installed(stated: str | None, device: Device) -> Blender:  # noqa: ARG001 - another program is asked anew
    try:
        with _worked("Blender", {"task": "look", "device": device}, _START, None) as (_, reply):
            return Blender(str(reply["blender"]), str(reply["device"]))
    except AssetError as error:  # what Blender itself refuses
        raise BlenderError(str(error)) from None
    except KeyError:
        raise BlenderError("Blender: it does not say what it is; look at its version") from None


def render_cycles(
    model: Path | str,
    cameras: Sequence[Camera],
    settings: CyclesSettings | None = None,
    *,
    passed: Callable[[int], None] | None = None,
    noted: Callable[[str], None] | None = None,
) -> Views:
    """Render a model from several cameras, lit and path-traced.

    Axes and size are those of `load_mesh`: the unit cube, z up. Blender reads the file itself, so that its materials
    count; a file from a stranger is better given to `load_mesh` first, which refuses what leads out of its folder.

    Args:
        model: a file of one of `FORMATS`, not in a zip.
        cameras: at least one, each looking through the middle of its picture.
        settings: 512 x 512 at 128 samples unless given.
        passed: hears how many more views are drawn, as they are.
        noted: hears what the model asked for and did not get (textures that are missing), a line each.

    Returns:
        colours as they come from Blender, sRGB after its Filmic view; depth of the surface at each pixel's centre.

    Raises:
        AssetError: no model that Blender can draw.
        InputError: a camera that Blender does not have.
        BlenderError: its Python is missing, ended, hung or gave something else.
    """
    settings = settings or CyclesSettings()
    if not cameras:
        raise InputError("a model is drawn from at least one camera, none was given")
    job = {
        "task": "render",
        "cameras": [_blender_camera(camera, settings) for camera in cameras],
        "height": settings.height,
        "width": settings.width,
        "samples": settings.samples,
        "seed": settings.seed,
        "device": settings.device,
    }
    path = _given(Path(model))
    with _worked(str(path), {**job, "model": str(path.resolve())}, settings.timeout, passed) as (folder, reply):
        for note in reply["notes"]:
            if noted is not None:
                noted(str(note))
        shape = (len(cameras), settings.height, settings.width)
        views = Views(np.empty((*shape, 4), np.uint8), np.empty(shape, np.float32), tuple(cameras))
        for number in range(len(cameras)):
            views.colours[number] = _picture(folder / f"colour_{number:04}.png", shape[1:])
            views.depth[number] = _depth(folder / f"depth_{number:04}.npy", shape[1:])
    return views


@contextmanager
def exported(model: Path, timeout: float = 600.0) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """A .blend file as GLB, for as long as the context lasts, and what it asked for and did not get.

    All that the file's scene shows, with modifiers and instances; of materials what glTF can say.

    Raises:
        AssetError: no file that Blender reads, or nothing to see in it.
        BlenderError: as of `render_cycles`.
    """
    job = {"task": "export", "model": str(_given(model).resolve())}
    with _worked(str(model), job, timeout, None) as (folder, reply):
        path = folder / "model.glb"
        if not path.is_file() or not path.stat().st_size:
            raise BlenderError(f"{model}: Blender says that it is exported, and wrote no file; look at its version")
        yield path, tuple(str(note) for note in reply["notes"])


def _blender_camera(camera: Camera, settings: CyclesSettings) -> dict[str, Any]:
    """To world from OpenGL axes, focal length in widths of the picture, and the shape of a pixel."""
    (fx, skew, cx), (_, fy, cy), _ = camera.intrinsics
    if abs(skew) > 1e-9 or max(abs(cx - 0.5), abs(cy - 0.5)) > 1e-9:
        raise InputError("Cycles draws cameras that look through the middle of their picture; take the other renderer")
    to_world = np.linalg.inv(camera.world_to_camera)
    to_world[:3, 1:3] *= -1
    # How much taller than wide a pixel is; Blender takes neither side below 1.
    ratio = (fx * settings.width) / (fy * settings.height)
    return {"to_world": to_world.tolist(), "focal": float(fx), "pixel": [max(1.0, 1 / ratio), max(1.0, ratio)]}


def _given(model: Path) -> Path:
    """The model, if it is one that Blender can be given."""
    if model.suffix.lower() not in FORMATS:
        raise AssetError(f"{model}: no format that Blender is given; it takes {' '.join(FORMATS)}")
    if not model.is_file():
        raise AssetError(f"{model}: no such file" + (" (Blender reads no zip)" if ".zip" in str(model) else ""))
    return model


@contextmanager
def _worked(
    model: str, job: Mapping[str, Any], timeout: float, passed: Callable[[int], None] | None
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Have a job done; gives the folder with its results and the reply. `model` is for messages."""
    python = _python(model)
    with tempfile.TemporaryDirectory(prefix="atoken-cycles-") as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps(job))
        code = _run(python, folder, model, timeout, passed)
        yield folder, _reply(folder, model, code)


def _python(model: str) -> Path:
    stated = os.environ.get(PYTHON)
    if not stated:
        raise BlenderError(f"{model}: Cycles and .blend files need a Python with bpy: {_MEND}")
    found = shutil.which(str(Path(stated).expanduser()))
    if found is None:
        raise BlenderError(f"{PYTHON}={stated}: no program that can be started; {_MEND}")
    return Path(found)


def _run(python: Path, folder: Path, model: str, timeout: float, passed: Callable[[int], None] | None) -> int:
    """Run the script to its end; returns its exit code."""
    # No add-ons, start-up files or preferences of the user's: they could change pictures, or reach the network.
    environment = {**os.environ, "BLENDER_USER_RESOURCES": str(folder / "user")}
    with (folder / "log.txt").open("wb") as log:
        # A session of its own, so that nothing that it starts outlives it.
        process = subprocess.Popen(
            [python, "-I", _SCRIPT, folder],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            seen, last = 0, time.monotonic()
            while process.poll() is None:
                drawn = len(list(folder.glob("depth_*.npy")))
                if drawn > seen:
                    if passed is not None:
                        passed(drawn - seen)
                    seen, last = drawn, time.monotonic()
                elif time.monotonic() - last > timeout:
                    raise BlenderError(
                        f"{model}: Blender gave nothing for {timeout:g} s after {seen} views and was stopped; "
                        "ask for fewer samples or pixels, or allow it more time"
                    )
                time.sleep(_POLL)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    drawn = len(list(folder.glob("depth_*.npy")))
    if drawn > seen and passed is not None:
        passed(drawn - seen)
    return process.returncode


def _reply(folder: Path, model: str, code: int) -> dict[str, Any]:
    try:
        reply = json.loads((folder / "reply.json").read_text())
    except FileNotFoundError:
        raise BlenderError(_ended(folder, model, code)) from None
    except ValueError:
        raise BlenderError(f"{model}: Blender's reply cannot be read; look at its version") from None
    if isinstance(reply, dict) and isinstance(reply.get("error"), str):
        raise AssetError(f"{model}: {reply['error']}")
    if code != 0 or not isinstance(reply, dict) or not isinstance(reply.get("notes"), list):
        raise BlenderError(_ended(folder, model, code))
    return reply


def _ended(folder: Path, model: str, code: int) -> str:
    """Why there is no reply, by the exit code and the last line that was written."""
    text = (folder / "log.txt").read_bytes()[-_LAST_LINES:].decode(errors="replace")
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "nothing was written")
    if "No module named 'bpy'" in text:
        return f"{os.environ[PYTHON]} has no bpy: {_MEND}"
    if code < 0:
        how = f"was killed ({signal.Signals(-code).name}); is there memory enough?"
        return f"{model}: Blender {how} Its last line: {last}"
    return f"{model}: Blender ended with code {code} and no reply. Its last line: {last}"


def _picture(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.mode != "RGBA" or (image.height, image.width) != shape:
                raise BlenderError(
                    f"Blender gave a picture of {image.width}x{image.height} {image.mode}, "
                    f"not {shape[1]}x{shape[0]} RGBA; look at its version"
                )
            pixels = np.array(image)
    except (OSError, SyntaxError) as error:
        raise BlenderError(f"Blender gave no picture that can be read ({path.name}: {error})") from None
    pixels[pixels[..., 3] == 0] = 0
    return pixels


def _depth(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        depth = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BlenderError(f"Blender gave no depth that can be read ({path.name}: {error})") from None
    if not isinstance(depth, np.ndarray) or depth.shape != shape or depth.dtype != np.float32:
        raise BlenderError(f"Blender gave a depth that is not float32 {list(shape)}; look at its version")
    if not np.isfinite(depth).all() or not ((depth > 0) | (depth == EMPTY)).all():
        raise BlenderError("Blender gave depths that are not finite or lie behind the camera; look at the model")
    return depth
