"""The resolver: by name and hash, in order, and never silently with other weights."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.errors import MissingWeights
from harness.weights import ENVIRONMENT, INCEPTION, KNOWN, WeightFile, WeightStore, check_rows, list_rows

CONTENT = b"the published bytes"
FILE = WeightFile(
    name="trunk-0a1b2c3d.pth",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    size=len(CONTENT),
    origin="its publisher",
    licence="none",
    used_by=("lpips",),
)


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    return cache


def put(folder: Path, content: bytes = CONTENT) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / FILE.name
    path.write_bytes(content)
    return path


def test_order_is_named_folders_then_environment_then_torch_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_cache: Path
) -> None:
    cached = put(no_cache)
    assert WeightStore().find(FILE).path == cached
    listed = put(tmp_path / "listed")
    monkeypatch.setenv(ENVIRONMENT, f"{tmp_path / 'nothing'}:{tmp_path / 'listed'}")
    assert WeightStore().find(FILE).path == listed
    named = put(tmp_path / "named")
    assert WeightStore([tmp_path / "named"]).find(FILE).path == named
    assert WeightStore([tmp_path / "named"]).find(FILE).official


def test_torch_cache_is_where_torch_puts_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variables in ({"TORCH_HOME": str(tmp_path)}, {"XDG_CACHE_HOME": str(tmp_path)}, {}):
        for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert WeightStore().folders[-1] == Path(torch.hub.get_dir()) / "checkpoints"


def test_missing_file_says_which_where_and_how(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights) as caught:
        WeightStore([tmp_path / "named"]).find(FILE)
    message = str(caught.value)
    assert "\n" not in message
    for part in (FILE.name, str(tmp_path / "named"), str(tmp_path / "torch"), FILE.origin, "--weights", ENVIRONMENT):
        assert part in message


def test_wrong_hash_is_refused_with_both_hashes_and_a_good_file_further_on_is_used(
    tmp_path: Path, no_cache: Path
) -> None:
    put(tmp_path / "bad", b"other bytes")
    store = WeightStore([tmp_path / "bad"])
    with pytest.raises(MissingWeights) as caught:
        store.find(FILE)
    for part in (str(tmp_path / "bad" / FILE.name), FILE.sha256, hashlib.sha256(b"other bytes").hexdigest()):
        assert part in str(caught.value)
    good = put(no_cache)
    assert store.find(FILE).path == good


def test_other_weights_only_where_their_hash_is_vouched_for_and_never_as_official(tmp_path: Path) -> None:
    path = put(tmp_path / "own", b"my own trunk")
    digest = hashlib.sha256(b"my own trunk").hexdigest()
    beside = path.with_name(path.name + ".sha256")
    store = WeightStore([tmp_path / "own"])
    beside.write_text("0" * 64)
    with pytest.raises(MissingWeights, match=r"\.sha256 says 0000"):
        store.find(FILE)
    beside.write_text(f"{digest}  {path.name}\n")
    found = store.find(FILE)
    assert (found.path, found.sha256, found.official) == (path, digest, False)


def test_changed_file_is_hashed_again(tmp_path: Path) -> None:
    path = put(tmp_path / "named")
    store = WeightStore([tmp_path / "named"])
    assert store.find(FILE).official
    path.write_bytes(b"cut")
    with pytest.raises(MissingWeights):
        store.find(FILE)


def test_published_hashes_agree_with_the_digits_in_the_names() -> None:
    named = [file for name, file in KNOWN.items() if "-" in name]
    assert len(named) == 3
    for file in named:
        assert Path(file.name).stem.rsplit("-", 1)[1] == file.sha256[:8]
    assert all(len(file.sha256) == 64 for file in KNOWN.values())


def test_rows_name_every_file_and_say_what_is_wrong(no_cache: Path) -> None:
    assert [row["file"] for row in list_rows()] == list(KNOWN)
    (no_cache / INCEPTION.name).write_bytes(b"cut short")
    rows = {row["file"]: row for row in check_rows(WeightStore())}
    assert rows.keys() == KNOWN.keys()
    assert {row["status"] for row in rows.values()} == {"absent"}
    assert INCEPTION.sha256 in rows[INCEPTION.name]["detail"]


def test_importing_the_resolver_does_not_import_torch() -> None:
    code = "import sys, harness.weights, harness.metrics.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_reasons_do_not_tell_whose_home_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = next(iter(KNOWN.values()))
    with pytest.raises(MissingWeights) as missing:
        WeightStore([tmp_path / "mine"]).find(file)
    assert "~/mine" in str(missing.value)
    assert str(tmp_path) not in str(missing.value)
