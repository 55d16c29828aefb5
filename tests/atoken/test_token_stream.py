"""Token files written and read part by part are those that are written and read whole."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from atoken import join_video, split_video
from atoken.errors import InputError
from atoken.files import WriteError
from atoken.token_files import TokenFile, TokenSource, load_tokens, save_tokens
from atoken.token_stream import TokenWriter, open_tokens
from atoken.tokenizer import AToken
from atoken.tokens import Latents, SparseTokens
from tests.atoken.disk import largest_file

NAMES = ("a.png", 'sub/"b" \\ é.mp4', "c.mp4")
RATES = (None, Fraction(30000, 1001), Fraction(24))


def source(model: AToken) -> TokenSource:
    return TokenSource(
        model="tiny", weights_sha256="0" * 64, config=model.config, settings={"fit": "pad", "é": [1, None]}
    )


def tokens_of(model: AToken, noise: Any, kind: str) -> Latents | SparseTokens:
    latents = model.encode([noise(20, 33), noise(21, 16, 33), noise(2, 16, 16)])
    return {
        "posterior": lambda: latents,
        "sample": lambda: latents.sample(3),
        "codes": lambda: model.quantize(latents),
    }[kind]()


def write(path: Path, model: AToken, tokens: Latents | SparseTokens, steps: int) -> None:
    with TokenWriter(path, source(model)) as writer:
        for item, name, rate in zip(tokens.split(), NAMES, RATES, strict=True):
            with writer.item(name, rate) as add:
                for part in split_video(item, steps=steps):
                    add(part)


@pytest.mark.parametrize("kind", ["posterior", "sample", "codes"])
def test_the_bytes_are_those_of_safetensors(tmp_path: Path, tiny_fsq: AToken, noise: Any, kind: str) -> None:
    tokens = tokens_of(tiny_fsq, noise, kind)
    made = source(tiny_fsq)
    whole = TokenFile(
        tokens=tokens, names=NAMES, rates=RATES, model=made.model, weights_sha256=made.weights_sha256,
        config=made.config, settings=made.settings,
    )  # fmt: skip
    save_tokens(tmp_path / "whole", whole)
    for steps in (1, 4, 9):
        write(tmp_path / "parts", tiny_fsq, tokens, steps)
        assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts", "whole"]
    assert load_file(tmp_path / "parts")["coords"].shape == (sum(whole.packed.lengths), 4)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.integers(1, 12), kind=st.sampled_from(["posterior", "sample", "codes"]))
def test_parts_read_are_the_parts_of_the_item(
    tmp_path: Path, tiny_fsq: AToken, noise: Any, steps: int, kind: str
) -> None:
    tokens = tokens_of(tiny_fsq, noise, kind)
    write(tmp_path / "t", tiny_fsq, tokens, 3)
    reader = open_tokens(tmp_path / "t")
    assert (reader.header.names, reader.header.rates) == (NAMES, RATES)
    for index, item in enumerate(tokens.split()):
        parts = list(reader.parts(index, steps))
        for got, want in zip(parts, split_video(item, steps=steps), strict=True):
            assert (got.mean if isinstance(got, Latents) else got).items == (
                want.mean if isinstance(want, Latents) else want
            ).items
        joined = join_video(parts)
        assert type(joined) is type(item)
        pair = [(x.mean if isinstance(x, Latents) else x) for x in (joined, item)]
        assert torch.equal(pair[0].features, pair[1].features)
        assert torch.equal(pair[0].coords, pair[1].coords)
        if isinstance(joined, Latents) and isinstance(item, Latents):
            assert torch.equal(joined.logvar, item.logvar)


def break_off(writer: TokenWriter, item: Latents) -> None:
    with writer.item("broken", Fraction(1)) as add:
        for part in split_video(item, steps=4):
            add(part)
        raise InputError("tail")


def test_an_item_that_breaks_off_leaves_no_trace(tmp_path: Path, tiny: AToken, noise: Any) -> None:
    tokens = tokens_of(tiny, noise, "posterior")
    write(tmp_path / "want", tiny, tokens, 4)
    with TokenWriter(tmp_path / "got", source(tiny)) as writer:
        for item, name, rate in zip(tokens.split(), NAMES, RATES, strict=True):
            with pytest.raises(InputError, match="tail"):
                break_off(writer, tiny.encode([noise(40, 16, 32)]))
            with writer.item(name, rate) as add:
                add(item)
    assert (tmp_path / "got").read_bytes() == (tmp_path / "want").read_bytes()


def test_what_does_not_belong_is_refused(tmp_path: Path, tiny: AToken, noise: Any) -> None:
    tokens = tokens_of(tiny, noise, "posterior")
    first, second, _ = tokens.split()
    with TokenWriter(tmp_path / "t", source(tiny)) as writer:
        with writer.item("a", None) as add:
            add(first)
        with (
            pytest.raises(InputError, match="latents, coords after tokens with mean, logvar, coords"),
            writer.item("b", Fraction(1)) as add,
        ):
            add(second.mean)
        with pytest.raises(InputError, match="b: a frame rate of None for video"), writer.item("b", None) as add:
            add(second)
        with pytest.raises(InputError, match="no parts"), writer.item("b", Fraction(1)):
            pass
    assert load_tokens(tmp_path / "t").names == ("a",)
    with pytest.raises(InputError, match="no tokens to write"), TokenWriter(tmp_path / "none", source(tiny)):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_leaves_the_old_file_and_no_part(tmp_path: Path, tiny: AToken, noise: Any, error: type) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with TokenWriter(path, source(tiny)) as writer, writer.item("a", Fraction(1)) as add:
            add(tiny.encode([noise(16, 16, 16)]))
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("size", [1000, 30_000, 60_000])
def test_a_full_disk_leaves_the_old_file_and_no_part(tmp_path: Path, tiny: AToken, noise: Any, size: int) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"old")
    latents = tiny.encode([noise(160, 16, 64)])  # 31 KB of means, 67 KB in all

    def fill() -> None:
        with TokenWriter(path, source(tiny)) as writer, writer.item("a", Fraction(1)) as add:
            for part in split_video(latents):
                add(part)

    with largest_file(size), pytest.raises(WriteError, match=r"t: .*; nothing was written"):
        fill()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_cut_short_after_it_was_opened_is_said(tmp_path: Path, tiny: AToken, noise: Any) -> None:
    write(tmp_path / "t", tiny, tokens_of(tiny, noise, "posterior"), 4)
    reader = open_tokens(tmp_path / "t")
    (tmp_path / "t").write_bytes((tmp_path / "t").read_bytes()[:-50])
    with pytest.raises(InputError, match=r"t: truncated while it was read"):
        _ = [list(reader.parts(index, 4)) for index in range(3)]


def test_decoding_from_the_file_is_decoding(tmp_path: Path, tiny: AToken, noise: Any) -> None:
    tokens = tokens_of(tiny, noise, "posterior")
    write(tmp_path / "t", tiny, tokens, 4)
    blocks = tiny.decode_video(open_tokens(tmp_path / "t").parts(1, 4), output="float", stride_frames=8, cache_frames=4)
    want = tiny.decode(tokens.split()[1], output="float", stride_frames=8, cache_frames=4)[0]
    np.testing.assert_allclose(np.concatenate(list(blocks)), want, rtol=0, atol=5e-6)
