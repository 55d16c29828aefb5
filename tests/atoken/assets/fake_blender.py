"""A program in the place of a Python with bpy: notes what it was sent, and writes pictures of its own."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

import pytest

from atoken.assets.cycles import PYTHON

FAKE = """#!{python}
import json, os, signal, sys, time
from pathlib import Path
import numpy as np
from PIL import Image

assert sys.argv[1] == "-I" and Path(sys.argv[2]).name == "cycles_blender.py", sys.argv
folder = Path(sys.argv[3])
job = json.loads((folder / "job.json").read_text())
Path({seen!r}).write_text(json.dumps({{**job, "home": os.environ["BLENDER_USER_RESOURCES"], "folder": str(folder)}}))
shape = (job.get("height", 1), job.get("width", 1))
colours = [np.full((*shape, 4), 50 + n, np.uint8) for n in range(len(job.get("cameras", [])))]
depths = [np.full(shape, 1.5, np.float32) for _ in colours]
reply = {{"notes": ["texture a.png is not there: grey"], "blender": "fake", "device": "CPU"}}
{act}
for n, (colour, depth) in enumerate(zip(colours, depths)):
    Image.fromarray(colour).save(folder / f"colour_{{n:04}}.png")
    np.save(folder / f"depth_{{n:04}}.npy", depth)
(folder / "reply.json").write_text(reply if isinstance(reply, str) else json.dumps(reply))
"""

_NUMBERS = count()


def put(folder: Path, monkeypatch: pytest.MonkeyPatch, act: str = "") -> Path:
    """Make it, let the variable name it, and return the file that will hold what it is sent.

    Args:
        act: lines of Python that it runs before it writes.
    """
    # A new name each time: what a program says of itself is asked once.
    program, seen = folder / f"python{next(_NUMBERS)}", folder / "seen.json"
    program.write_text(FAKE.format(python=sys.executable, seen=str(seen), act=act))
    program.chmod(0o755)
    monkeypatch.setenv(PYTHON, str(program))
    return seen
