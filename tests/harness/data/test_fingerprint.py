"""Fingerprints tell datasets apart and depend on nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data import fingerprint
from harness.data.fingerprint import clip_sha256, content_sha256, ids_sha256

# Any file name that Linux allows, undecodable bytes included.
names = st.binary(min_size=1, max_size=12).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
shas = st.binary(min_size=32, max_size=32).map(bytes.hex)
pairs = st.lists(st.tuples(names, shas), max_size=5)


@given(pairs, pairs)
def test_equal_iff_the_same_pairs(a: list[tuple[str, str]], b: list[tuple[str, str]]) -> None:
    assert (content_sha256(a) == content_sha256(b)) == (a == b)
    ids_a, ids_b = [i for i, _ in a], [i for i, _ in b]
    assert (ids_sha256(ids_a) == ids_sha256(ids_b)) == (ids_a == ids_b)


def test_a_generator_gives_what_a_list_gives() -> None:
    rows = [("a/b.png", "00"), ("c.png", "11")]
    assert content_sha256(row for row in rows) == content_sha256(rows)


def test_the_format_is_fixed() -> None:
    """A record written today must compare with one of next year: the hashed text is part of the schema."""
    assert ids_sha256(["a.png", "é\n"]) == hashlib.sha256(b'"a.png"\n"\\u00e9\\n"\n').hexdigest()
    assert content_sha256([("a.png", "ff")]) == hashlib.sha256(b'["a.png","ff"]\n').hexdigest()


def test_a_clip_is_its_bytes(tmp_path: Path) -> None:
    clip, folder = tmp_path / "a.mp4", tmp_path / "frames"
    clip.write_bytes(b"moov")
    assert clip_sha256(clip) == hashlib.sha256(b"moov").hexdigest()
    folder.mkdir()
    for name in ("1.png", "0.png", ".hidden.png", "notes.txt"):
        (folder / name).write_bytes(name.encode())
    rows = [(name, hashlib.sha256(name.encode()).hexdigest()) for name in ("0.png", "1.png")]
    assert clip_sha256(folder) == content_sha256(rows)
    (folder / "1.png").rename(folder / "2.png")
    assert clip_sha256(folder) != content_sha256(rows)


def test_of_a_huge_clip_the_size_and_both_ends_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = tmp_path / "a.mp4"
    clip.write_bytes(b"0123456789")
    monkeypatch.setattr(fingerprint, "WHOLE_CLIP_BYTES", 8)
    whole = hashlib.sha256(b"10\n01236789").hexdigest()
    assert clip_sha256(clip) == whole
    clip.write_bytes(b"0123xx6789")
    assert clip_sha256(clip) == whole
    clip.write_bytes(b"0123456780")
    assert clip_sha256(clip) != whole
    clip.write_bytes(b"01234x56789")
    assert clip_sha256(clip) != whole


def test_a_huge_clip_is_hashed_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 3 * 4096  # 3 MiB: more than one piece from each end
    (tmp_path / "a.mp4").write_bytes(data)
    monkeypatch.setattr(fingerprint, "WHOLE_CLIP_BYTES", 2**21 + 2000)
    half = 2**20 + 1000
    wanted = hashlib.sha256(b"%d\n" % len(data) + data[:half] + data[-half:]).hexdigest()
    assert clip_sha256(tmp_path / "a.mp4") == wanted
