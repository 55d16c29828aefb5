"""A dataset's .blend files: read where a Python with bpy is named, here by a program in its place."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from atoken.assets.cycles import PYTHON
from harness.data.base import SampleError
from harness.data.catalog import open_assets
from tests.atoken.assets.models import Gltf


def test_blend_files_are_read_where_blender_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Gltf()
    model.add(model.square())
    glb = model.write(tmp_path / "square.glb")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "chair.blend").write_bytes(b"BLENDER")
    dataset = open_assets("folder", tmp_path / "set")
    monkeypatch.delenv(PYTHON, raising=False)
    with pytest.raises(SampleError, match=rf"Blender alone reads: name a Python with bpy by \${PYTHON}"):
        dataset.open(0)
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable}\nimport shutil, sys\nfrom pathlib import Path\nfolder = Path(sys.argv[3])\n"
        f"shutil.copy({str(glb)!r}, folder / 'model.glb')\n(folder / 'reply.json').write_text('{{\"notes\": []}}')\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv(PYTHON, str(program))
    assert dataset.open(0).mesh.faces.shape == (2, 3)
    program.write_text("#!/bin/sh\nexit 4\n")
    with pytest.raises(SampleError, match=r"chair\.blend: Blender ended with code 4 and no reply"):
        dataset.open(0)
