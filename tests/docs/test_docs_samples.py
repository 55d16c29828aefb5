"""The documentation's Python runs: a page's blocks in order, a block with a title as the file of that name."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.docs.pages import PAGES, ROOT, TEXTS, blocks

RUN = [path for path in TEXTS if path.is_relative_to(PAGES) and any(one.language == "python" for one in blocks(path))]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the samples name."""
    import av
    import trimesh

    rows, columns = np.mgrid[:48, :64]
    picture = np.stack([rows * 4, columns * 3, rows + columns], 2).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "photo.jpg")
    # A thin rod has few voxels, and attention costs their square.
    trimesh.creation.box((1, 0.02, 0.02)).export(tmp_path / "chair.glb")
    with av.open(str(tmp_path / "clip.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(8))
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for step in range(5):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, step, 1), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("path", RUN, ids=lambda path: path.relative_to(PAGES).as_posix())
def test_samples_run(path: Path, here: Path) -> None:
    modules = set(sys.modules)
    names: dict[str, object] = {"__name__": "sample"}
    try:
        for block in blocks(path):
            if block.language != "python":
                continue
            # Lines are those of the page, so that a traceback names them.
            code = compile("\n" * (block.line - 1) + block.code, str(path), "exec")
            if block.title is not None:
                (here / block.title).parent.mkdir(exist_ok=True)
                (here / block.title).write_text(block.code)
            else:
                exec(code, names)
    finally:
        for name in set(sys.modules) - modules:
            if (here / f"{name.replace('.', '/')}.py").is_file() or name == "my_package":
                del sys.modules[name]


def test_the_readme_is_python() -> None:
    found = [one for one in blocks(ROOT / "README.md") if one.language == "python"]
    assert found
    for block in found:
        compile(block.code, "README.md", "exec")


def test_the_tokenizer_of_the_worked_example_is_measured(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from harness.cli import app

    (example,) = (one for one in blocks(PAGES / "add-a-tokenizer.md") if one.title)
    (here / "my_package").mkdir()
    (here / str(example.title)).write_text(example.code)
    common = ["--workers", "0", "--threads", "1", "--device", "cpu", "--data", "folder=.", "--protocol", "native"]
    with pytest.raises(SystemExit) as ended:
        app(["run", "image-recon", "--tokenizer", "my_package.box_tokenizer:create", *common])
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    assert "mean colour of 16 x 16 boxes" in said.out
    for name in ("my_package", "my_package.box_tokenizer"):
        sys.modules.pop(name, None)


def test_the_protocol_of_the_worked_example_is_one(here: Path) -> None:
    from harness.protocol import load

    (example,) = (one for one in blocks(PAGES / "add-an-experiment.md") if one.language == "yaml")
    (here / "small.yaml").write_text(example.code)
    made = load("my-recon", str(here / "small.yaml"))
    assert [metric.name for metric in made.metrics] == ["PSNR", "SSIM"]
