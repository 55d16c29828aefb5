"""Who draws the originals of a protocol: our renderer of base colours, or Blender's Cycles; both keep their views.

A protocol's `prepare` says it, so that its hash does: ``unit_cube|unlit`` or ``unit_cube|cycles(128)``, with the
number of samples a pixel.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from harness.errors import BenchError

if TYPE_CHECKING:
    from atoken.assets.cameras import Camera
    from atoken.assets.mesh import Mesh
    from atoken.assets.render import Views

UNLIT = "unit_cube|unlit"
CACHE = "ATOKEN_BENCH_VIEWS"

_LIT = re.compile(r"unit_cube\|cycles\((\d+)\)")


class Draw(Protocol):
    """Draws a mesh."""

    def __call__(self, mesh: Mesh, cameras: Sequence[Camera], size: int) -> Views:
        """Colour, alpha and depth from each camera, `size` pixels along the sides.

        Raises:
            InputError: this mesh cannot be drawn.
            WriteError: the cache cannot be written.
        """
        ...


@dataclass(frozen=True, slots=True)
class Unlit:
    """Base colours, by `atoken.assets.render`.

    Attributes:
        cache: a folder where views are kept, or None.
    """

    cache: Path | None = None

    def __call__(self, mesh: Mesh, cameras: Sequence[Camera], size: int) -> Views:
        from atoken.assets.render import RenderSettings, render_views

        return render_views(mesh, cameras, RenderSettings(height=size, width=size), cache=self.cache)


@dataclass(frozen=True, slots=True)
class Lit:
    """Lit as TRELLIS lights its data, by `atoken.assets.cycles_views`.

    Attributes:
        samples: paths through a pixel.
        cache: as of `Unlit`.
    """

    samples: int
    cache: Path | None = None

    def __call__(self, mesh: Mesh, cameras: Sequence[Camera], size: int) -> Views:
        from atoken.assets.cycles import CyclesSettings
        from atoken.assets.cycles_views import cycles_views

        settings = CyclesSettings(height=size, width=size, samples=self.samples)
        return cycles_views(mesh, cameras, settings, cache=self.cache)


class Timed:
    """Draws by another, and knows how long that took: it says nothing of the tokenizer that asked for the views.

    Attributes:
        seconds: in all so far.
    """

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self.seconds = 0.0

    def __call__(self, mesh: Mesh, cameras: Sequence[Camera], size: int) -> Views:
        start = time.perf_counter()
        try:
            return self._draw(mesh, cameras, size)
        finally:
            self.seconds += time.perf_counter() - start


def drawn_by(prepare: str, protocol: str, cache: Path | None = None) -> Unlit | Lit:
    """What draws for a protocol.

    Args:
        prepare: of the protocol.
        protocol: its name, for messages.
        cache: a folder where views are kept, or None.

    Raises:
        BenchError: no such way.
    """
    if prepare == UNLIT:
        return Unlit(cache)
    lit = _LIT.fullmatch(prepare)
    if lit is None or not 1 <= int(lit[1]) <= 65536:
        raise BenchError(
            f"protocol {protocol}: prepare is {prepare!r}; of assets there are: {UNLIT} and unit_cube|cycles(SAMPLES)"
        )
    return Lit(int(lit[1]), cache)


def drawing_software(prepare: str, protocol: str) -> dict[str, str]:
    """What draws that is none of this environment's packages: of Cycles Blender's version and its device.

    Raises:
        BenchError: it is not here; the line says how to get it.
    """
    if not isinstance(drawn_by(prepare, protocol), Lit):
        return {}
    from atoken.assets.cycles import BlenderError, installed

    try:
        return {"cycles": str(installed())}
    except BlenderError as error:
        raise BenchError(f"protocol {protocol}: {error}; or take a protocol without Cycles") from None


def view_cache() -> Path | None:
    """Where rendered views are kept from run to run: ``$ATOKEN_BENCH_VIEWS``, else the user's cache folder.

    Every row of a table looks at the same originals. None where the variable is ``off``. A view of 512 x 512 takes
    about 0.1 MB, so that all of Toys4k with 180 views each would take 60 GB.
    """
    stated = os.environ.get(CACHE)
    if stated == "off":
        return None
    if stated:
        return Path(stated).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "atoken-bench" / "views"
