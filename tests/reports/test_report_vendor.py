"""Other projects' libraries are what their manifests name, and every report holds them with their licences."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import pytest

from reports import vendor

FOLDERS = ("gsplat", "panzoom", "tablesort")


def test_every_library_has_a_manifest() -> None:
    found = sorted(path.name for path in (resources.files("reports") / "vendor").iterdir() if path.is_dir())
    assert found == list(FOLDERS)
    assert set(vendor.SCRIPTS) <= set(FOLDERS)


@pytest.mark.parametrize("name", FOLDERS)
def test_files_are_unchanged(name: str) -> None:
    known = vendor.manifest(name)
    assert known["licence"] == "MIT"
    assert known["package"]["got_by"] == f"npm pack {known['name']}@{known['version']}"
    assert known["package"]["integrity"].startswith("sha512-")
    for file, entry in known["files"].items():
        assert hashlib.sha256(vendor.file(name, file).read_bytes()).hexdigest() == entry["sha256"], file
    folder = resources.files("reports") / "vendor" / name
    assert {path.name for path in folder.iterdir()} == {*known["files"], "manifest.json"}


def test_pages_get_the_scripts_below_their_licences(tmp_path: Path) -> None:
    vendor.write_scripts(tmp_path)
    for name, script in vendor.SCRIPTS.items():
        text = (tmp_path / script).read_text(encoding="utf-8")
        assert "Permission is hereby granted, free of charge" in text
        assert text.endswith(vendor.file(name, script).read_text(encoding="utf-8"))
