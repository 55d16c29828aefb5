"""The site builds without a warning, needs no other host, and says what the registry says."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness import protocol, registry
from tests.docs.pages import PAGES, ROOT

NEEDED = ("mkdocs", "material", "mkdocstrings_handlers")
VENDORED = PAGES / "vendor" / "iframe-worker"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with warnings as errors and without network."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        pytest.skip(f"needs {', '.join(missing)}: pip install --group docs, or nox -s docs")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", "docs/mkdocs.yml", "-d", str(out)]
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    made = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **proxies, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return out


def test_every_page_is_there_and_complete(site: Path) -> None:
    pages = {path.relative_to(PAGES).with_suffix(".html") for path in PAGES.rglob("*.md")}
    built = {path.relative_to(site) for path in site.rglob("*.html")} - {Path("404.html")}
    assert built == pages
    for path in sorted(built):
        text = (site / path).read_text(encoding="utf-8")
        assert "<!-- generated:" not in text, path
        assert not re.search(r"<p>:::", text), path  # a name that was not rendered


def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    loads = re.compile(r'<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)="?(https?:)?//')
    for path in site.rglob("*.html"):
        assert not loads.search(path.read_text(encoding="utf-8")), path
    for path in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?https?:", path.read_text(encoding="utf-8")), path


def test_links_lead_to_pages_and_anchors_that_exist(site: Path) -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html") if path.name != "404.html"}
    for path, text in texts.items():
        for link in set(re.findall(r'<a\b[^>]*?href="([^"]+)"', text)):
            if "://" in link or link.startswith("mailto:"):
                continue
            where, _, anchor = link.partition("#")
            target = (path.parent / where).resolve() if where else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{path.name}: {link}"
            if anchor and target in texts:
                assert re.search(rf'\bid="?{re.escape(anchor)}"?[\s>]', texts[target]), f"{path.name}: {link}"


def test_experiments_show_their_protocols_and_the_papers_figures(site: Path) -> None:
    page = (site / "experiments" / "image-recon.html").read_text(encoding="utf-8")
    for name in registry.experiment("image-recon").protocols:
        assert protocol.load("image-recon", name).sha256[:12] in page
    for printed in ("SD-VAE", "29.72", "0.209"):  # Table 4
        assert printed in page


def test_docstrings_are_rendered(site: Path) -> None:
    page = (site / "reference" / "atoken.html").read_text(encoding="utf-8")
    for name in ("AToken", "Latents", "SparseTokens", "open_video"):
        assert name in page
    assert "Parameters:" in page
    assert "Args:\n" not in page
    contracts = (site / "reference" / "harness.html").read_text(encoding="utf-8")
    assert "Attributes:" in contracts


def test_search_has_every_page(site: Path) -> None:
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    assert index.startswith("var __index = ")
    for path in PAGES.rglob("*.md"):
        assert f'"location":"{path.relative_to(PAGES).with_suffix(".html").as_posix()}"' in index


def test_the_vendored_script_is_unchanged() -> None:
    manifest = json.loads((VENDORED / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["licence"] == "MIT"
    assert {path.name for path in VENDORED.iterdir()} == {*manifest["files"], "manifest.json"}
    for name, entry in manifest["files"].items():
        assert hashlib.sha256((VENDORED / name).read_bytes()).hexdigest() == entry["sha256"], name
