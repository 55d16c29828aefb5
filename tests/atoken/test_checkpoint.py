"""Weights files: official keys, strictness, safety, memory."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from atoken import checkpoint, weights_file
from atoken.config import ATokenConfig, FSQConfig, TransformerConfig, preset
from atoken.errors import CheckpointError
from atoken.files import WriteError
from atoken.tokenizer import AToken


@pytest.mark.parametrize(("name", "file"), [("so-c", "soc"), ("so-c-s1", "soc-s1"), ("so-d", "sod")])
def test_released_shapes(shared, name, file):
    manifest = json.loads((shared / "reference" / "manifest" / f"atoken-{file}.json").read_text())
    with torch.device("meta"):
        model = AToken(preset(name))
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert shapes == {key: shape for key, (shape, _) in manifest["state_dict"].items()}
    assert sum(p.numel() for p in model.parameters()) == manifest["counts"]["total"]
    assert not list(model.buffers())


@pytest.fixture
def saved(tiny, tmp_path) -> Path:
    """A folder as `save_pretrained` writes it."""
    tiny.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def same_weights(a: AToken, b: AToken) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_save_and_load(tiny, saved, noise):
    loaded = AToken.from_pretrained(saved)
    assert loaded.config == tiny.config
    assert same_weights(loaded, tiny)
    assert not loaded.training
    assert all(p.requires_grad for p in loaded.parameters())
    assert sorted(p.name for p in saved.iterdir()) == ["config.json", "model.safetensors"]
    assert same_weights(AToken.from_pretrained(saved / "model.safetensors"), tiny)
    image = noise(20, 20)
    assert torch.equal(loaded.encode([image]).logvar, tiny.encode([image]).logvar)


def test_our_files_and_the_safetensors_packages_are_the_same_format(tiny, saved, tmp_path):
    theirs = load_file(saved / "model.safetensors")
    assert all(torch.equal(theirs[k], v) for k, v in tiny.state_dict().items())
    save_file({k: v.bfloat16() for k, v in tiny.state_dict().items()}, tmp_path / "x.safetensors")
    shutil.copy(saved / "config.json", tmp_path)
    loaded = AToken.from_pretrained(tmp_path / "x.safetensors")
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded.proj.weight, tiny.proj.weight.bfloat16().float())


def test_half_precision_on_disk(tiny, tmp_path):
    path = tiny.save_pretrained(tmp_path, dtype=torch.float16)
    assert path.stat().st_size < 2.2 * sum(p.numel() for p in tiny.parameters())
    loaded = AToken.from_pretrained(tmp_path)
    assert torch.equal(loaded.proj.weight, tiny.proj.weight.half().float())
    assert AToken.from_pretrained(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s, "step": 3}])
@pytest.mark.parametrize("zipped", [True, False])
def test_pt_files(tiny, saved, tmp_path, wrap, zipped):
    state = dict(tiny.state_dict()) | {"logit_scale": torch.tensor([4.8]), "logit_bias": torch.tensor([-15.5])}
    torch.save(wrap(state), saved / "atoken.pt", _use_new_zipfile_serialization=zipped)
    loaded = AToken.from_pretrained(saved / "atoken.pt")
    assert same_weights(loaded, tiny)
    with torch.no_grad():
        loaded.proj.weight.zero_()  # a mapped page is private: the file keeps its values
    assert same_weights(AToken.from_pretrained(saved / "atoken.pt"), tiny)


def test_weights_of_the_perceptual_loss_are_left_out(tiny, saved):
    state = dict(tiny.state_dict()) | {"lpips_loss.net.weight": torch.zeros(3)}
    torch.save(state, saved / "x.pt")
    assert same_weights(AToken.from_pretrained(saved / "x.pt"), tiny)


def loading(path: Path, message: str, **options) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        AToken.from_pretrained(path, **options)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_foreign_keys_are_listed(tiny, saved):
    state = dict(tiny.state_dict())
    for key in [k for k in state if "blocks.1" in k]:
        del state[key]
    state |= {"head.fc": torch.zeros(1), "proj.weight": torch.zeros(2, 2)}
    path = saved / "odd.safetensors"
    save_file(state, path)
    loading(path, r"missing: .*and 1\d more; 1 unexpected: head.fc; 1 misshapen: proj.weight \[2, 2\] instead of")


def test_values_must_be_finite_and_floating(tiny, saved):
    for value in (torch.nan, torch.inf):
        state = {k: v.clone() for k, v in tiny.state_dict().items()}
        state["decoder.out_layer.weight"][5, 5] = value
        save_file(state, saved / "model.safetensors")
        loading(saved / "model.safetensors", "decoder.out_layer.weight holds NaN or infinity")
    save_file(dict(tiny.state_dict()) | {"proj.weight": torch.zeros(96, 32, dtype=torch.int8)}, saved / "q.safetensors")
    loading(saved / "q.safetensors", "proj.weight is torch.int8")


@pytest.mark.parametrize("keep", [0, 5, 100, 9000, -1])
def test_cut_off_safetensors(saved, keep):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    loading(path, "cut short or damaged")


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, -8]},
        {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]},
        {"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 1 << 62]},
        {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1]},
        [],
    ],
)
def test_lying_headers(tmp_path, entry):
    header = json.dumps({"x": entry}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"1234")
    loading(path, "cut short or damaged")


class Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("save", [torch.save, lambda data, path: path.write_bytes(pickle.dumps(data))])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_nothing_in_a_pickle_is_run(tmp_path, save):
    path, target = tmp_path / "evil.pt", tmp_path / "owned"
    save({"proj.weight": torch.zeros(3), "x": Attack(target)}, path)
    loading(path, r"could run code.*\.safetensors")
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 half a zip archive"])
def test_no_torch_file(tmp_path, content):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    loading(path, "damaged")


def test_a_list_is_no_state_dict(tmp_path):
    torch.save([torch.zeros(3)], tmp_path / "x.pt")
    loading(tmp_path / "x.pt", "not a state dict")


def test_what_cannot_be_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loading(tmp_path / "no.pt", "no such file")
    loading(tmp_path, "holds no model.safetensors")
    (tmp_path / "x.ckpt").touch()
    loading(tmp_path / "x.ckpt", r"'\.ckpt'")
    with pytest.raises(CheckpointError, match=r"atoken-huge: no such path, and no packaged model.*packaged: "):
        AToken.from_pretrained("atoken-huge")


def test_packaged_models_are_found_by_name(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "MODELS", tmp_path)
    tiny.save_pretrained(tmp_path / "atoken-test")
    assert checkpoint.packaged_models() == ["atoken-test"]
    assert same_weights(AToken.from_pretrained("atoken-test"), tiny)


def test_bad_config_files(saved):
    path = saved / "config.json"
    data = json.loads(path.read_text())
    for text, message in [
        ("{", "not valid JSON"),
        ("[]", "JSON object"),
        (json.dumps(data | {"z": 1}), "unknown key 'z'"),
        (json.dumps(data | {"latent_channels": "many"}), "'many'"),
    ]:
        path.write_text(text)
        with pytest.raises(CheckpointError, match=message) as caught:
            AToken.from_pretrained(saved)
        assert str(path) in str(caught.value)


def shapes_of(config: ATokenConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in AToken(config).state_dict().items()}


def test_which_model_a_file_holds(tmp_path, saved):
    bare = checkpoint.Source(tmp_path / "x.pt", None)
    for name in ("so-c-s1", "base", "nano"):
        assert checkpoint.decide_config(bare, shapes_of(preset(name)), None) == preset(name)
    alike = shapes_of(preset("so-d"))
    with pytest.raises(CheckpointError, match="fit so-c or so-d alike"):
        checkpoint.decide_config(bare, alike, None)
    assert checkpoint.decide_config(bare, alike, "so-d") == preset("so-d")
    beside = checkpoint.Source(saved / "x.pt", saved / "config.json")
    assert checkpoint.decide_config(beside, {}, None).name == "tiny"
    with pytest.raises(CheckpointError, match="fit so-c or so-d alike"):
        checkpoint.decide_config(beside, alike, None)
    ours = checkpoint.Source(saved / "x.safetensors", saved / "config.json")
    assert checkpoint.decide_config(ours, alike, None).name == "tiny"
    with pytest.raises(CheckpointError, match="fit none of so-c"):
        checkpoint.decide_config(bare, {"a": (1,)}, None)
    loading(saved / "model.safetensors", "does not fit the model", preset="nano")


def test_a_quantized_model_keeps_its_kind(tiny_fsq, tmp_path):
    tiny_fsq.save_pretrained(tmp_path)
    assert AToken.from_pretrained(tmp_path).config.quantizer == FSQConfig()


def test_a_failed_write_leaves_the_old_file(tiny, saved, monkeypatch):
    before = (saved / "model.safetensors").read_bytes()
    monkeypatch.setattr("atoken.weights_file._bytes_of", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tiny.save_pretrained(saved)
    assert (saved / "model.safetensors").read_bytes() == before
    assert len(list(saved.iterdir())) == 2


def test_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert checkpoint.sha256_file(tmp_path / "x") == known


MEASURE = """
import sys, torch
from pathlib import Path
from atoken.tokenizer import AToken
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(l.split()[1]) for l in lines if l.startswith("VmHWM"))
before = peak()
model = AToken.from_pretrained(sys.argv[1], preset=sys.argv[2] or None)
print(before, peak())
"""


def peaks(path: Path, preset_name: str = "") -> tuple[int, int]:
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, path, preset_name], check=True, capture_output=True, text=True
    )
    before, peak = map(int, done.stdout.split())
    return before, peak


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_loading_never_holds_two_copies(tmp_path, kind):
    half = TransformerConfig(width=384, blocks=6, heads=6, mlp=1536)
    model = AToken(replace(preset("base"), encoder=half, decoder=half))
    path = model.save_pretrained(tmp_path)
    if kind == "pt":
        path = tmp_path / "model.pt"
        torch.save(model.state_dict(), path)
    before, peak = peaks(path)
    assert peak - before < 1.3 * path.stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_the_full_model_loads_in_1_3_times_its_file(tmp_path, kind):
    model = AToken(preset("so-c"))
    if kind == "pt":
        path = tmp_path / "so-c.pt"
        torch.save(model.state_dict(), path)
    else:
        path = model.save_pretrained(tmp_path)
    del model
    _, peak = peaks(path, "so-c")
    assert peak < 1.3 * path.stat().st_size


def test_a_model_that_cannot_be_saved_leaves_the_old_one(tiny, saved, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights_file, "_bytes_of", full)
    with pytest.raises(WriteError, match=r"model\.safetensors: No space left on device; nothing was written"):
        tiny.save_pretrained(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
