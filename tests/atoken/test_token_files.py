"""A token file gives back what was put in, whole, or says in one line why not."""

import json
import os
import struct
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from atoken.checkpoint import locate, open_weights
from atoken.config import ATokenConfig, FSQConfig, TransformerConfig
from atoken.errors import InputError
from atoken.files import WriteError, replacing
from atoken.token_files import TokenFile, TokenFileError, load_tokens, save_tokens, weights_sha256
from atoken.token_stream import TokenReader, open_tokens
from atoken.tokenizer import AToken
from atoken.tokens import Latents
from tests.atoken.disk import largest_file

HALF = TransformerConfig(width=16, blocks=1, heads=2, mlp=16)
CONFIG = ATokenConfig(
    name="tiny", encoder=HALF, decoder=HALF, latent_channels=6, quantizer=FSQConfig(levels=(4, 4, 4), codebooks=2)
)


@pytest.fixture(scope="module")
def model() -> AToken:
    torch.manual_seed(0)
    return AToken(CONFIG).eval()


@pytest.fixture(scope="module")
def posterior(model: AToken) -> Latents:
    noise = np.random.default_rng(0)
    return model.encode(
        [noise.integers(0, 256, (20, 33, 3), dtype=np.uint8), noise.integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)]
    )


def content(tokens: object) -> TokenFile:
    return TokenFile(
        tokens=tokens,
        names=("a.png", "sub/b.mp4"),
        rates=(None, Fraction(30000, 1001)),
        model="tiny",
        weights_sha256="0" * 64,
        config=CONFIG,
        settings={"fit": "pad"},
    )


@pytest.fixture
def written(tmp_path: Path, posterior: Latents) -> Path:
    save_tokens(tmp_path / "t.safetensors", content(posterior))
    return tmp_path / "t.safetensors"


@pytest.mark.parametrize("kind", ["posterior", "sample", "codes"])
def test_round_trip_is_exact(tmp_path: Path, model: AToken, posterior: Latents, kind: str) -> None:
    tokens = {"posterior": posterior, "sample": posterior.sample(3), "codes": model.quantize(posterior)}[kind]
    path = tmp_path / "new" / "t.safetensors"
    save_tokens(path, content(tokens))
    back = load_tokens(path)
    before = content(tokens)
    assert type(back.tokens) is type(tokens)
    assert torch.equal(back.packed.features, before.packed.features)
    assert back.packed.features.dtype == before.packed.features.dtype
    assert torch.equal(back.packed.coords, before.packed.coords)
    if isinstance(tokens, Latents):
        assert torch.equal(back.tokens.logvar, tokens.logvar)
    for name in ("names", "rates", "model", "weights_sha256", "config", "settings"):
        assert getattr(back, name) == getattr(before, name)
    assert (back.packed.items, back.packed.lengths) == (before.packed.items, before.packed.lengths)
    for ours, theirs in zip(model.decode(back.tokens), model.decode(tokens), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_same_tokens_give_the_same_bytes(tmp_path: Path, posterior: Latents) -> None:
    for name in ("a", "b"):
        save_tokens(tmp_path / name, content(posterior))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_another_model_is_refused(written: Path) -> None:
    tokens = load_tokens(written)
    tokens.check_model(CONFIG, "0" * 64)
    with pytest.raises(TokenFileError, match=r"made by tiny .*weights 000000000000.* not by this model"):
        tokens.check_model(CONFIG, "1" * 64)
    # The same weights read as another variant decode to something else, too.
    with pytest.raises(TokenFileError, match="not by this model"):
        tokens.check_model(replace(CONFIG, quantizer=None), "0" * 64)


def test_items_names_and_rates_must_match(posterior: Latents) -> None:
    with pytest.raises(InputError, match="2 items with 1 names"):
        replace(content(posterior), names=("a",))
    with pytest.raises(InputError, match=r"b\.mp4: a frame rate of None for video"):
        replace(content(posterior), rates=(None, None))


def rewritten(path: Path, header: object = None, **tensors: torch.Tensor | None) -> Path:
    """The file with a changed header (a function on the dict) or with other tensors (None drops one)."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    values = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["atoken_tokens"])
    if callable(header):
        header(values)
    stored = load_file(path) | tensors
    save_file({k: v for k, v in stored.items() if v is not None}, path, {"atoken_tokens": json.dumps(values)})
    return path


Load = Callable[[Path], object]


@pytest.fixture(params=[load_tokens, open_tokens])
def load(request: pytest.FixtureRequest) -> Load:
    """Both readers must refuse what is no good token file."""
    return request.param  # type: ignore[no-any-return]


def test_foreign_and_missing_files(load: Load, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(TokenFileError, match=r"other\.safetensors: it holds no tokens; `atoken encode`"):
        load(tmp_path / "other.safetensors")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(TokenFileError, match=r"text: not a \.safetensors file, or truncated"):
        load(tmp_path / "text")
    with pytest.raises(TokenFileError, match=r"gone: no such file$"):
        load(tmp_path / "gone")
    with pytest.raises(TokenFileError, match="a folder, not a token file"):
        load(tmp_path)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
def test_truncated_files(load: Load, written: Path, part: float) -> None:
    data = written.read_bytes()
    written.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(TokenFileError, match="truncated"):
        load(written)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: h.update(version=3), "format 3 is not 1 or 2, which this version reads; update atoken"),
        (lambda h: h.pop("config"), "header is damaged"),
        (lambda h: h["config"].update(surprise=1), "unknown key 'surprise'"),
        (lambda h: h["items"].pop(), "header is damaged"),
        (lambda h: h["items"][0].update(rate="1/0"), "header is damaged"),
        (lambda h: h["items"][0].update(height=20.0), "sizes are not whole numbers"),
        (lambda h: h["items"][0].update(out_height=10**12, height=10**12), "do not fill"),
        (lambda h: h["items"][0].update(kind="hologram"), "'image', 'video' or 'asset'"),
    ],
)
def test_headers_that_contradict_the_tensors(load: Load, written: Path, change: object, words: str) -> None:
    with pytest.raises(TokenFileError, match=words) as caught:
        load(rewritten(written, change))
    assert str(caught.value).startswith(f"{written}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"logvar": None}, "coords, lengths, mean, which is no kind of tokens"),
        ({"coords": None}, "no kind of tokens"),
        ({"extra": torch.zeros(1)}, "no kind of tokens"),
        ({"mean": torch.zeros(8, 6).half()}, "mean is torch.float16, not torch.float32"),
        ({"mean": torch.zeros(7, 6)}, r"(features|mean) must be \[8"),
        ({"logvar": torch.zeros(8, 5)}, "logvar"),
        ({"lengths": torch.tensor([9, -1])}, "9 tokens do not fill 20 x 33"),
        ({"coords": torch.full((8, 4), 2**30, dtype=torch.int32)}, "coordinates"),
    ],
)
def test_tensors_that_contradict_the_header(
    load: Load, written: Path, tensors: dict[str, torch.Tensor], words: str
) -> None:
    with pytest.raises(TokenFileError, match=words):
        load(rewritten(written, None, **tensors))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_damaged_bytes_are_refused_or_read(load: Load, written: Path, data: st.DataObject) -> None:
    file = bytearray(written.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    damaged = written.with_name("damaged")
    damaged.write_bytes(file)
    # Any other exception fails the test.
    with suppress(TokenFileError):
        opened = load(damaged)
        if isinstance(opened, TokenReader):
            for index in range(len(opened.header.items)):
                list(opened.parts(index, 4))


def test_a_models_hash_is_of_its_values_not_its_file(tmp_path: Path, model: AToken) -> None:
    model.save_pretrained(tmp_path / "folder")
    official = {"model": {**model.state_dict(), "logit_scale": torch.tensor(4.8)}}
    torch.save(official, tmp_path / "official.pt")
    hashes = {weights_sha256(open_weights(locate(tmp_path / name))) for name in ("folder", "official.pt")}
    assert len(hashes) == 1
    with torch.no_grad():
        official["model"]["proj.weight"] = model.proj.weight + 1e-6
    torch.save(official, tmp_path / "official.pt")
    assert weights_sha256(open_weights(locate(tmp_path / "official.pt"))) not in hashes


def test_a_failed_write_leaves_the_old_file_and_no_part(written: Path, posterior: Latents) -> None:
    before = written.read_bytes()
    with largest_file(1000), pytest.raises(WriteError, match=r"t\.safetensors: .*; nothing was written"):
        save_tokens(written, content(posterior))
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]


def test_a_full_disk(tmp_path: Path, model: AToken) -> None:
    large = model.encode([np.zeros((256, 256, 3), np.uint8), np.zeros((1, 16, 16, 3), np.uint8)])
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k", "none", disk], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mount.stderr.strip()}")
    try:
        with pytest.raises(WriteError, match="nothing was written"):
            save_tokens(disk / "t.safetensors", content(large))
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_an_interrupt_leaves_no_part(tmp_path: Path) -> None:
    def write() -> None:
        with replacing(tmp_path / "a.png") as aside:
            aside.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_folder(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        parent = Path("/proc")  # where even root may not write
    else:
        parent = tmp_path / "locked"
        parent.mkdir(mode=0o500)
    with pytest.raises(WriteError, match="nothing was written"), replacing(parent / "new" / "t") as aside:
        aside.touch()
