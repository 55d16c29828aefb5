"""The command `atoken` from its own entry point: what it writes, what it says, how it ends."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

from atoken import cli, work
from atoken.media import read_image
from atoken.token_files import load_tokens
from atoken.tokenizer import AToken
from atoken.video import read_video, write_video
from tests.atoken.disk import largest_file

Item = np.ndarray[Any, Any]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `atoken` with arguments; gives exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["atoken", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture(scope="module")
def ckpt(tiny: AToken, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ckpt") / "tiny"
    tiny.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ckpt_fsq(tiny_fsq: AToken, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ckpt") / "tiny-fsq"
    tiny_fsq.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path, noise: Callable[..., Item]) -> Path:
    """Two images of one stem, one in a folder below, and a video."""
    root = tmp_path / "in"
    (root / "sub").mkdir(parents=True)
    Image.fromarray(noise(20, 33)).save(root / "a.png")
    Image.fromarray(noise(16, 16)).save(root / "a.bmp")
    Image.fromarray(noise(48, 17)).save(root / "sub" / "b.png")
    write_video(root / "c.mkv", noise(5, 16, 32), Fraction(24))
    return root


def pictures(folder: Path) -> dict[str, Item]:
    return {
        path.relative_to(folder).as_posix(): read_image(path) if path.suffix == ".png" else read_video(path)
        for path in sorted(folder.rglob("*.*"))
    }


@pytest.mark.parametrize("kind", ["mean", "sample", "codes"])
def test_encode_then_decode_gives_what_the_library_gives(
    run: Run, ckpt: Path, ckpt_fsq: Path, folder: Path, tiny: AToken, tiny_fsq: AToken, kind: str
) -> None:
    tokens, out = folder.parent / "t.safetensors", folder.parent / "out"
    options = {"mean": [], "sample": ["--latent", "sample", "--seed", 7], "codes": ["--codes"]}[kind]
    model, path = (tiny_fsq, ckpt_fsq) if kind == "codes" else (tiny, ckpt)
    code, _, err = run("encode", folder, "-o", tokens, "--model", path, "--device", "cpu", *options)
    assert code == 0, err
    assert "4 items" in err
    assert run("decode", tokens, "-o", out, "--device", "cpu")[0] == 0
    files = [folder / name for name in ("a.bmp", "a.png", "c.mkv", "sub/b.png")]
    items = [read_video(file) if file.suffix == ".mkv" else read_image(file) for file in files]
    latents = model.encode(items)
    expected = model.decode(
        {"mean": lambda: latents, "sample": lambda: latents.sample([7, 8, 9, 10]), "codes": lambda: latents}[kind]()
    )
    found = pictures(out)
    assert list(found) == ["a-2.png", "a.png", "c.mkv", "sub/b.png"]
    for name, wanted in zip(["a.png", "a-2.png", "c.mkv", "sub/b.png"], expected, strict=True):
        np.testing.assert_array_equal(found[name], wanted)
    kept = load_tokens(tokens)
    assert kept.packed.is_codes == (kind == "codes")
    assert (kept.settings["kept"], kept.settings["fit"], kept.settings["dtype"]) == (kind, "pad", "float32")


def test_another_process_decodes_to_the_same_pixels(run: Run, ckpt: Path, folder: Path) -> None:
    tokens, out = folder.parent / "t.safetensors", folder.parent
    run("encode", folder, "-o", tokens, "--model", ckpt, "--device", "cpu")
    run("decode", tokens, "-o", out / "here", "--device", "cpu")
    command = [sys.executable, "-m", "atoken.cli", "decode", tokens, "-o", out / "there", "--device", "cpu"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    here, there = pictures(out / "here"), pictures(out / "there")
    assert here.keys() == there.keys()
    for name, pixels in here.items():
        np.testing.assert_array_equal(pixels, there[name])


def test_packs_do_not_matter(run: Run, ckpt: Path, folder: Path) -> None:
    for budget in (1, 10_000):
        tokens = folder.parent / f"{budget}.safetensors"
        run("encode", folder, "-o", tokens, "--model", ckpt, "--token-budget", budget, "--device", "cpu")
    one, many = (load_tokens(folder.parent / f"{budget}.safetensors") for budget in (1, 10_000))
    torch.testing.assert_close(one.packed.features, many.packed.features, atol=1e-5, rtol=0)
    assert one.names == many.names


def test_crop_is_recorded_and_decodes_cropped(run: Run, ckpt: Path, folder: Path) -> None:
    tokens, out = folder.parent / "t.safetensors", folder.parent / "out"
    run("encode", folder, "-o", tokens, "--model", ckpt, "--fit", "crop")
    run("decode", tokens, "-o", out)
    assert {name: item.shape for name, item in pictures(out).items()} == {
        "a.png": (16, 16, 3),
        "a-2.png": (16, 32, 3),
        "c.mkv": (5, 16, 32, 3),
        "sub/b.png": (48, 16, 3),
    }


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_embed_writes_unit_vectors(run: Run, ckpt: Path, folder: Path, tiny: AToken, suffix: str) -> None:
    import pandas as pd

    output = folder.parent / f"e{suffix}"
    assert run("embed", folder, "-o", output, "--model", ckpt, "--device", "cpu")[0] == 0
    if suffix == ".npz":
        stored = np.load(output)
        paths, vectors = stored["paths"], stored["embeddings"]
    else:
        table = pd.read_parquet(output)
        paths, vectors = table["path"], np.stack(list(table["embedding"]))
    assert list(paths) == [(folder / name).as_posix() for name in ("a.bmp", "a.png", "c.mkv", "sub/b.png")]
    np.testing.assert_allclose(vectors[1], tiny.embed([read_image(folder / "a.png")])[0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_info_counts_as_the_model_does(run: Run, ckpt: Path, tiny: AToken) -> None:
    import hashlib

    code, out, _ = run("info", ckpt)
    assert code == 0
    rows = dict(re.split(r" {2,}", line, maxsplit=1) for line in out.splitlines())
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in tiny.named_children()}
    head = sum(p.numel() for p in tiny.encoder.head.parameters())
    assert rows["variant"] == "tiny"
    assert rows["parameters, pooling head"] == f"{head:,}"
    assert rows["parameters, encoder"] == f"{count['encoder'] - head:,}"
    assert rows["parameters, projection"] == f"{count['proj']:,}"
    assert rows["parameters, decoder"] == f"{count['decoder']:,}"
    assert rows["parameters"] == f"{sum(count.values()):,}"
    assert rows["file SHA-256"] == hashlib.sha256((ckpt / "model.safetensors").read_bytes()).hexdigest()
    assert rows["dtype"] == "float32"
    assert json.loads(rows["config"]) == tiny.config.to_dict()


def test_convert_keeps_the_weights_and_so_the_tokens(run: Run, ckpt: Path, folder: Path, tiny: AToken) -> None:
    root = folder.parent
    torch.save(tiny.state_dict(), root / "model.pt")
    (root / "config.json").write_text((ckpt / "config.json").read_text())
    run("encode", folder, "-o", root / "t.safetensors", "--model", root / "model.pt")
    for name in ("one/new.safetensors", "whole"):
        code, out, err = run("convert", root / "model.pt", root / name)
        assert (code, err) == (0, "")
        assert out.startswith("wrote ")
        assert run("decode", root / "t.safetensors", "-o", root / "out", "--model", root / name)[0] == 0
    halves = run("convert", root / "model.pt", root / "half", "--dtype", "float16")
    assert halves[0] == 0
    assert load_file(root / "half" / "model.safetensors")["proj.weight"].dtype == torch.float16
    # Rounded weights are another model.
    code, _, err = run("decode", root / "t.safetensors", "-o", root / "out", "--model", root / "half")
    assert code == 1
    assert "not by this model" in err


def test_convert_does_not_adopt_another_models_config(run: Run, ckpt: Path, ckpt_fsq: Path, tmp_path: Path) -> None:
    assert run("convert", ckpt, tmp_path / "a.safetensors")[0] == 0
    code, _, err = run("convert", ckpt_fsq, tmp_path / "b.safetensors")
    assert code == 1
    assert "belongs to another model" in err
    assert not (tmp_path / "b.safetensors").exists()


# -- Bad input ---------------------------------------------------------------------------------


def one_line(err: str) -> bool:
    return err.startswith("error: ") and err.count("\n") == 1


def test_broken_files_are_named_counted_and_left_out(run: Run, ckpt: Path, tmp_path: Path, noise: Any) -> None:
    files = tmp_path / "in"
    files.mkdir()
    for index in range(10):
        Image.fromarray(noise(16, 16, seed=index)).save(files / f"{index}.png")
    for index in (2, 5, 7):
        (files / f"{index}.png").write_bytes((files / f"{index}.png").read_bytes()[: 100 * (index - 2)])
    code, _, err = run("encode", files, "-o", tmp_path / "t.safetensors", "--model", ckpt)
    assert code == 0
    for index in (2, 5, 7):
        assert f"{files / f'{index}.png'}: " in err
    assert "3 of 10 files left out" in err
    assert load_tokens(tmp_path / "t.safetensors").names == tuple(f"{i}.png" for i in (0, 1, 3, 4, 6, 8, 9))


def test_nothing_usable_fails(run: Run, ckpt: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.mp4"):
        (tmp_path / name).touch()
    code, _, err = run("encode", tmp_path, "-o", tmp_path / "t.safetensors", "--model", ckpt)
    assert code == 1
    assert err.endswith("error: none of 2 files could be used\n")
    assert err.count("the file is empty") == 2
    assert not (tmp_path / "t.safetensors").exists()


def test_missing_and_empty_folders(run: Run, ckpt: Path, tmp_path: Path) -> None:
    for given, words in ((tmp_path / "gone", "no such file or folder"), (tmp_path, "holds no image and no video")):
        code, _, err = run("encode", given, "-o", tmp_path / "t", "--model", ckpt)
        assert code == 1
        assert one_line(err)
        assert f"{given}: " in err
        assert words in err


def test_an_image_smaller_than_a_patch(run: Run, ckpt: Path, tmp_path: Path, noise: Any) -> None:
    Image.fromarray(noise(5, 7)).save(tmp_path / "small.png")
    Image.fromarray(noise(16, 16)).save(tmp_path / "whole.png")
    files = [tmp_path / "small.png", tmp_path / "whole.png"]
    run("encode", *files, "-o", tmp_path / "t", "--model", ckpt)
    run("decode", tmp_path / "t", "-o", tmp_path / "out")
    assert read_image(tmp_path / "out" / "small.png").shape == (5, 7, 3)
    code, _, err = run("encode", *files, "-o", tmp_path / "t", "--model", ckpt, "--fit", "crop")
    assert code == 0
    assert "small.png: 5x7 is smaller than a 16x16 patch" in err
    assert load_tokens(tmp_path / "t").names == ("whole.png",)


@pytest.mark.parametrize("size", [(1, 40), (40, 1), (1, 1), (20, 20_000), (20_000, 20)])
def test_odd_sizes_come_back(run: Run, ckpt: Path, tmp_path: Path, noise: Any, size: tuple[int, int]) -> None:
    Image.fromarray(noise(*size)).save(tmp_path / "a.png")
    assert run("encode", tmp_path / "a.png", "-o", tmp_path / "t", "--model", ckpt)[0] == 0
    assert run("decode", tmp_path / "t", "-o", tmp_path / "out")[0] == 0
    assert read_image(tmp_path / "out" / "a.png").shape == (*size, 3)


@pytest.mark.parametrize("frames", [1, 3, 4, 17])
def test_any_number_of_frames_comes_back(run: Run, ckpt: Path, tmp_path: Path, noise: Any, frames: int) -> None:
    write_video(tmp_path / "a.mkv", noise(frames, 16, 16), Fraction(25))
    assert run("encode", tmp_path / "a.mkv", "-o", tmp_path / "t", "--model", ckpt)[0] == 0
    assert run("decode", tmp_path / "t", "-o", tmp_path / "out")[0] == 0
    assert read_video(tmp_path / "out" / "a.mkv").shape == (frames, 16, 16, 3)


class Payload:
    """Unpickled, it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("command", ["encode", "info", "convert"])
def test_a_pickle_that_wants_to_run_code_is_not_run(run: Run, folder: Path, command: str) -> None:
    evil, trap = folder.parent / "evil.pt", folder.parent / "trap"
    torch.save({"model": Payload(trap)}, evil)
    arguments = {"encode": [folder, "-o", "t", "--model", evil], "info": [evil], "convert": [evil, folder / "out"]}
    code, _, err = run(command, *arguments[command])
    assert code == 1
    assert one_line(err)
    assert "evil.pt" in err
    assert not trap.exists()


def bad_checkpoint(ckpt: Path, folder: Path, fault: str) -> Path:
    folder.mkdir()
    weights = load_file(ckpt / "model.safetensors")
    (folder / "config.json").write_text((ckpt / "config.json").read_text())
    path = folder / "model.safetensors"
    if fault == "truncated":
        path.write_bytes((ckpt / "model.safetensors").read_bytes()[:-100])
        return folder
    if fault == "nan":
        weights["proj.weight"][0, 0] = float("nan")
    elif fault == "wrong":
        weights = {"layer.weight": torch.zeros(3)}
    elif fault == "missing":
        del weights["proj.weight"]
    save_file(weights, path)
    return folder


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("truncated", "cut short or damaged"),
        ("nan", "proj.weight holds NaN"),
        ("wrong", "does not fit the model"),
        ("missing", "1 missing: proj.weight"),
    ],
)
def test_bad_checkpoints_end_in_one_line(run: Run, ckpt: Path, folder: Path, fault: str, words: str) -> None:
    path = bad_checkpoint(ckpt, folder.parent / fault, fault)
    code, _, err = run("encode", folder, "-o", folder.parent / "t", "--model", path)
    assert code == 1
    assert one_line(err)
    assert words in err
    assert not (folder.parent / "t").exists()


@pytest.mark.parametrize("fault", ["wrong", "missing"])
def test_info_does_not_describe_what_would_not_load(run: Run, ckpt: Path, folder: Path, fault: str) -> None:
    code, out, err = run("info", bad_checkpoint(ckpt, folder.parent / fault, fault))
    assert (code, out) == (1, "")
    assert one_line(err)
    assert "does not fit the model" in err


def test_overflow_in_half_precision_is_not_written(run: Run, tiny: AToken, folder: Path) -> None:
    weights = tiny.state_dict() | {"proj.weight": tiny.proj.weight.detach() * 1e5}
    path = folder.parent / "loud"
    tiny.save_pretrained(path)
    save_file(weights, path / "model.safetensors")
    code, _, err = run("encode", folder, "-o", folder.parent / "t", "--model", path, "--dtype", "float16")
    assert code == 1
    assert not (folder.parent / "t").exists()
    assert "float32" in err or "infinity" in err


def test_the_wrong_model_cannot_decode(run: Run, ckpt: Path, ckpt_fsq: Path, folder: Path) -> None:
    run("encode", folder, "-o", folder.parent / "t", "--model", ckpt)
    code, _, err = run("decode", folder.parent / "t", "-o", folder.parent / "out", "--model", ckpt_fsq)
    assert code == 1
    assert one_line(err)
    assert "made by" in err
    assert not (folder.parent / "out").exists()


@pytest.mark.parametrize("name", ["../out.png", "/etc/out.png", "a/../../b.png", ".."])
def test_a_token_file_cannot_write_elsewhere(run: Run, ckpt: Path, folder: Path, name: str) -> None:
    from dataclasses import replace

    from atoken.token_files import save_tokens

    tokens = folder.parent / "t"
    run("encode", folder, "-o", tokens, "--model", ckpt)
    kept = load_tokens(tokens)
    save_tokens(tokens, replace(kept, names=(name, *kept.names[1:])))
    before = sorted(folder.parent.rglob("*"))
    code, _, err = run("decode", tokens, "-o", folder.parent / "out")
    assert code == 1
    assert "leads out of the output folder" in err
    assert sorted(folder.parent.rglob("*")) == before


def test_a_disk_that_fills_up_while_decoding(run: Run, ckpt: Path, folder: Path) -> None:
    tokens, out = folder.parent / "t", folder.parent / "out"
    run("encode", folder, "-o", tokens, "--model", ckpt)
    with largest_file(500):
        code, _, err = run("decode", tokens, "-o", out)
    assert code == 1
    assert one_line(err)
    assert "nothing was written" in err
    assert not [path for path in out.rglob("*") if path.is_file()]


def test_an_unknown_device_is_one_line(run: Run, ckpt: Path, folder: Path) -> None:
    code, _, err = run("encode", folder, "-o", "t", "--model", ckpt, "--device", "cuda:99")
    assert code == 1
    assert one_line(err)
    assert "cuda:99" in err


def test_codes_need_a_quantizer(run: Run, ckpt: Path, folder: Path) -> None:
    code, _, err = run("encode", folder, "-o", "t", "--model", ckpt, "--codes")
    assert code == 1
    assert "it has no codes" in err
    assert run("encode", folder, "-o", "t", "--model", ckpt, "--codes", "--latent", "sample")[0] == 2
    code, _, err = run("encode", folder, "-o", "t", "--model", ckpt, "--search", 3)
    assert code == 2
    assert "add --codes" in err
    assert run("embed", folder, "-o", "e.txt", "--model", ckpt)[0] == 2


def test_searched_codes_are_the_librarys(run: Run, ckpt_fsq: Path, folder: Path, tiny_fsq: AToken) -> None:
    tokens = folder.parent / "t.safetensors"
    options = ["--model", ckpt_fsq, "--device", "cpu", "--codes", "--search", 3]
    code, _, err = run("encode", folder, "-o", tokens, *options, "--token-budget", 1)
    assert code == 0, err
    kept = load_tokens(tokens)
    assert kept.settings["search"] == 3
    item = next(part for name, part in zip(kept.names, kept.packed.split(), strict=True) if name == "sub/b.png")
    found = tiny_fsq.quantize(tiny_fsq.encode([read_image(folder / "sub/b.png")], search=3))
    assert torch.equal(item.features, found.features)
    assert not torch.equal(
        found.features, tiny_fsq.quantize(tiny_fsq.encode([read_image(folder / "sub/b.png")])).features
    )
    code, _, err = run("encode", folder, "-o", tokens, *options, "--tile-size", 256)
    assert (code, one_line(err)) == (1, True)
    assert "leave out the search or the tiles" in err


def test_ctrl_c_ends_with_130_and_leaves_nothing(
    run: Run, ckpt: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path) -> Item:
        raise KeyboardInterrupt

    monkeypatch.setattr(work, "open_video", interrupted)
    tokens = folder.parent / "t"
    assert run("encode", folder, "-o", tokens, "--model", ckpt)[0] == 130
    assert not tokens.exists()


def long_video(path: Path, noise: Callable[..., Item], frames: int = 40) -> Item:
    write_video(path, clip := noise(frames, 16, 32), Fraction(24))
    return clip


def test_videos_stream_in_their_place(run: Run, ckpt: Path, folder: Path, tiny: AToken, noise: Any) -> None:
    clip = long_video(folder / "aa.mkv", noise)
    tokens, out = folder.parent / "t", folder.parent / "out"
    options = ["--stride-frames", 12, "--cache-frames", 20, "--device", "cpu"]
    assert (
        run("encode", folder, "-o", tokens, "--model", ckpt, "--latent", "sample", "--seed", 3, *options[-2:])[0] == 0
    )
    assert load_tokens(tokens).names == ("a.bmp", "a.png", "aa.mkv", "c.mkv", "sub/b.png")
    code, _, err = run("decode", tokens, "-o", out, *options)
    assert code == 0, err
    sample = tiny.encode([clip]).sample(3 + 2)
    torch.testing.assert_close(load_tokens(tokens).packed.split()[2].features, sample.features, rtol=0, atol=5e-6)
    want = tiny.decode(sample, stride_frames=12, cache_frames=20)[0]
    np.testing.assert_allclose(read_video(out / "aa.mkv").astype(int), want, rtol=0, atol=1)
    assert (read_video(out / "aa.mkv") == want).mean() > 0.999


def test_a_broken_tail_loses_that_video_only(run: Run, ckpt: Path, folder: Path, noise: Any) -> None:
    long_video(folder / "aa.mp4", noise, 60)
    data = (folder / "aa.mp4").read_bytes()
    (folder / "aa.mp4").write_bytes(data[: len(data) * 2 // 3])
    tokens = folder.parent / "t"
    code, _, err = run("encode", folder, "-o", tokens, "--model", ckpt)
    assert code == 0
    lines = err.splitlines()
    assert len([line for line in lines if line.startswith(f"{folder / 'aa.mp4'}: ")]) == 1
    assert "1 of 5 files left out" in err
    assert load_tokens(tokens).names == ("a.bmp", "a.png", "c.mkv", "sub/b.png")
    assert run("encode", folder / "aa.mp4", "-o", folder.parent / "u", "--model", ckpt)[0] == 1
    assert sorted(path.name for path in folder.parent.iterdir()) == ["in", "t"]


def test_ctrl_c_amid_a_video_leaves_nothing(
    run: Run, ckpt: Path, folder: Path, noise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_video(folder / "aa.mkv", noise)
    usual = AToken.encode_video

    def interrupted(self: AToken, *given: Any, **options: Any) -> Any:
        yield next(usual(self, *given, **options))
        raise KeyboardInterrupt

    monkeypatch.setattr(AToken, "encode_video", interrupted)
    tokens = folder.parent / "t"
    tokens.write_bytes(b"old")
    assert run("encode", folder, "-o", tokens, "--model", ckpt)[0] == 130
    assert tokens.read_bytes() == b"old"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["in", "t"]


def test_ctrl_c_while_decoding_keeps_what_is_done(
    run: Run, ckpt: Path, folder: Path, noise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_video(folder / "d.mkv", noise)
    tokens, out = folder.parent / "t", folder.parent / "out"
    run("encode", folder, "-o", tokens, "--model", ckpt)
    usual = AToken.decode_video

    def interrupted(self: AToken, *given: Any, **options: Any) -> Any:
        for number, block in enumerate(usual(self, *given, **options)):
            yield block
            if number:
                raise KeyboardInterrupt

    monkeypatch.setattr(AToken, "decode_video", interrupted)
    assert run("decode", tokens, "-o", out)[0] == 130
    assert sorted(pictures(out)) == ["a-2.png", "a.png", "c.mkv", "sub/b.png"]


def test_spatial_tiles_are_used_and_recorded(run: Run, ckpt: Path, folder: Path, tiny: AToken, noise: Any) -> None:
    from atoken import SpaceTiles, join_video

    write_video(folder / "w.mkv", clip := noise(20, 32, 80), Fraction(24))
    Image.fromarray(picture := noise(48, 80)).save(folder / "p.png")
    tokens, out = folder.parent / "t", folder.parent / "out"
    tiles = ["--tile-size", "32x48", "--tile-overlap", 16]
    assert run("encode", folder / "w.mkv", folder / "p.png", "-o", tokens, "--model", ckpt, *tiles)[0] == 0
    assert load_tokens(tokens).settings["space_tiles"] == {"height": 32, "width": 48, "overlap": 16}
    assert run("decode", tokens, "-o", out, *tiles)[0] == 0
    space = SpaceTiles(32, 48, 16)
    for name, item in (("w.mkv", clip), ("p.png", picture[None])):
        latents = join_video(tiny.encode_video([item], space=space))
        want = np.concatenate(list(tiny.decode_video([latents], space=space)))
        np.testing.assert_allclose(pictures(out)[name].reshape(want.shape).astype(int), want, rtol=0, atol=1)
    assert [spec.kind for spec in load_tokens(tokens).packed.items] == ["video", "image"]
    run("encode", folder, "-o", tokens, "--model", ckpt)
    assert load_tokens(tokens).settings["space_tiles"] is None


@pytest.mark.parametrize(
    "tiles", [["--tile-size", "40"], ["--tile-size", 64, "--tile-overlap", 64], ["--tile-size", 64]]
)
def test_wrong_tiles_are_no_files_fault(run: Run, ckpt: Path, folder: Path, tiles: list[object]) -> None:
    tokens = folder.parent / "t"
    code, _, err = run("encode", folder, "-o", tokens, "--model", ckpt, *tiles)
    assert code == 1
    assert one_line(err)
    assert "spatial tiles of" in err
    run("encode", folder, "-o", tokens, "--model", ckpt)
    assert run("decode", tokens, "-o", folder.parent / "out", *tiles)[0] == 1


def test_options_that_make_no_sense(run: Run, ckpt: Path, folder: Path) -> None:
    tokens = folder.parent / "t"
    assert run("encode", folder, "-o", tokens, "--model", ckpt, "--tile-overlap", 16)[0] == 2
    assert run("encode", folder, "-o", tokens, "--model", ckpt, "--tile-size", "big")[0] == 2
    run("encode", folder, "-o", tokens, "--model", ckpt)
    code, _, err = run("decode", tokens, "-o", folder.parent / "out", "--stride-frames", 3)
    assert code == 1
    assert "stride_frames must be 4 or more" in err


def test_logs_hold_no_progress_bar(run: Run, ckpt: Path, folder: Path) -> None:
    _, out, err = run("encode", folder, "-o", folder.parent / "t", "--model", ckpt)
    assert out == ""
    assert err.splitlines() == [f"wrote {folder.parent / 't'}: 4 items, 17 tokens"]


def test_on_a_terminal_the_bar_counts_every_file_and_frame(
    run: Run, ckpt: Path, folder: Path, noise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(work, "Console", lambda **_: Console(file=screen, force_terminal=True))
    (folder / "broken.png").touch()
    long_video(folder / "long.mkv", noise, 39)
    run("encode", folder, "-o", folder.parent / "t", "--model", ckpt)
    assert "6/6" in screen.getvalue()
    assert "broken.png" in screen.getvalue()
    run("decode", folder.parent / "t", "-o", folder.parent / "out")
    assert re.search(r"long\.mkv .* \d+/39", screen.getvalue())


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['atoken', '--help']\nfrom atoken.cli import app\ntry: app()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'PIL', 'av', 'pandas'} & sys.modules.keys(); sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("encode", "decode", "embed", "info", "convert", "train"):
        assert f" {command} " in done.stdout
