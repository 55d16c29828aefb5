"""Fingerprints tell datasets apart and depend on nothing else."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from harness.data.fingerprint import content_sha256, ids_sha256

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
