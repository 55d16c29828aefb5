"""Who draws a protocol's originals: the protocol's word for it, and Cycles through the runner, with a program in
Blender's place."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.asset_recon import EXPERIMENT
from harness import asset_gallery, asset_work, runner
from harness.asset_views import Lit, Timed, Unlit, drawing_software, drawn_by
from harness.asset_work import AssetWork
from harness.building import protocols_of
from harness.console import Advance
from harness.errors import BenchError
from harness.protocol import load
from harness.records import load as load_record
from harness.request import Request
from harness.tokenizers.asset_contract import box
from harness.tokenizers.voxel_colour import VoxelColour
from tests.atoken.assets import fake_blender
from tests.harness.asset_fakes import asset_plan

PROTOCOL = """
schema: 1
name: tiny-cycles
experiment: asset-recon
version: 1
title: tests
source: tests
prepare: unit_cube|cycles(3)
latent: mean
seed: 0
eight_bit: half-even
bootstrap: 10
expected: {}
asset: {input_views: 2, input_size: 8, views: four, size: 16}
metrics:
  - {metric: psnr, name: PSNR, mse: view, background: black}
  - {metric: tokens, name: tokens per asset}
"""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(asset_gallery, "TURN", 2)
    monkeypatch.setattr(asset_work, "SIDE", 32)
    monkeypatch.setenv("ATOKEN_BENCH_VIEWS", str(tmp_path / "views"))
    monkeypatch.delenv("ATOKEN_BLENDER_PYTHON", raising=False)
    return tmp_path


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Two boxes as OBJ files, and a file that Blender refuses where ours does not."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name, sides in (("a", (1, 0.8, 0.6)), ("b", (0.4, 1, 0.9)), ("odd", (1, 1, 1))):
        mesh = box(sides=sides)
        lines = [f"v {' '.join(map(str, vertex))}" for vertex in mesh.vertices.tolist()]
        lines += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in mesh.faces.tolist()]
        (folder / f"{name}.obj").write_text("\n".join(lines) + "\n")
    return folder


def test_the_time_of_drawing_is_known() -> None:
    def slow(mesh: Any, cameras: Any, size: int) -> Any:
        time.sleep(0.05)
        if size == 0:
            raise ValueError("nothing")
        return size

    draw = Timed(slow)
    assert [draw(None, [], 1), draw(None, [], 2)] == [1, 2]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nothing"):
        draw(None, [], 0)  # type: ignore[arg-type]
    assert 0.15 <= draw.seconds < 5


def test_a_tokenizers_time_is_without_the_views(monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(draw: Unlit, mesh: Any, cameras: Any, size: int) -> Any:
        time.sleep(3)
        return drawn(draw, mesh, cameras, size)

    drawn = Unlit.__call__
    monkeypatch.setattr(Unlit, "__call__", slowly)
    made = asset_plan(tokenizer=VoxelColour("cpu"))
    (part,) = AssetWork(made).measure([[0]], Advance())
    assert 0 < part.rows[0].encode_ms < 3000


def test_what_a_protocol_says_is_what_draws() -> None:
    drawn = {name: drawn_by(load("asset-recon", name).prepare, name) for name in EXPERIMENT.protocols}
    lit = {name for name in drawn if drawn[name] == Lit(128)}
    assert lit == {name for name in drawn if name.endswith("-cycles")} == {"paper-cycles", "trellis-cycles"}
    assert {type(draw) for name, draw in drawn.items() if name not in lit} == {Unlit}


@pytest.mark.parametrize("name", ["paper", "trellis"])
def test_lit_protocols_differ_in_nothing_but_the_light(name: str) -> None:
    plain, lit = (load("asset-recon", each).content() for each in (name, f"{name}-cycles"))
    differing = {key for key in plain if plain[key] != lit[key]}
    assert differing == {"name", "title", "source", "prepare"}


@pytest.mark.parametrize(
    "prepare", ["rgb|native", "unit_cube", "unit_cube|cycles", "unit_cube|cycles(0)", "unit_cube|cycles(x)", ""]
)
def test_other_ways_are_refused(prepare: str) -> None:
    with pytest.raises(BenchError, match=r"there are: unit_cube\|unlit and unit_cube\|cycles\(SAMPLES\)"):
        drawn_by(prepare, "mine")


def test_a_missing_blender_is_said_before_work_starts(models: Path, tmp_path: Path) -> None:
    request = Request(
        data=(f"folder={models}", "toys4k=/nowhere"),
        protocol="all",
        tokenizers=("identity", "nonsuch"),
        runs=tmp_path / "runs",
    )
    with pytest.raises(BenchError) as caught:
        runner.run(EXPERIMENT, request)
    lines = str(caught.value).splitlines()
    assert sum("need a Python with bpy" in line for line in lines) == 2
    assert all(
        any(word in line for line in lines) for word in ("/nowhere", "nonsuch", "paper-cycles", "trellis-cycles")
    )
    assert not list((tmp_path / "runs").glob("*"))


def test_other_protocols_ask_for_no_blender(models: Path) -> None:
    problems: list[str] = []
    assert len(protocols_of(EXPERIMENT, "samples", "paper", problems)) == 1
    assert problems == []
    assert drawing_software("unit_cube|unlit", "paper") == {}


def run(models: Path, runs: Path, *tokenizers: str) -> list[dict[str, Any]]:
    (runs.parent / "tiny.yaml").write_text(PROTOCOL)
    request = Request(
        data=(f"folder={models}",),
        protocol=str(runs.parent / "tiny.yaml"),
        tokenizers=tokenizers,
        device="cpu",
        runs=runs,
    )
    runner.run(EXPERIMENT, request)
    return [load_record(path) for path in sorted((runs / "asset-recon").glob("*/record.json"))]


def test_originals_are_drawn_by_cycles_and_kept(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    act = f"""
with open({str(log)!r}, "a") as file:
    file.write(json.dumps([job["task"], job.get("samples"), job.get("width"), len(colours)]) + "\\n")
rows = np.arange(shape[0] * shape[1]).reshape(shape)
for n, colour in enumerate(colours):
    colour[...] = np.stack([rows % 251, rows % 13 + n, rows % 7, np.full(shape, 255)], -1).astype(np.uint8)
if job["task"] == "render" and "odd" in job["model"]:
    reply = {{"error": "shows no surface"}}
"""
    fake_blender.put(tmp_path, monkeypatch, act)
    (record,) = run(models, tmp_path / "runs", "identity")
    # What is given back is what came from Blender, and not our renderer's picture.
    cells = {cell["name"]: cell for cell in record["cells"]}
    assert cells["PSNR"]["value"] == np.inf
    assert record["samples"]["used"] == 2
    assert [(one["id"], "shows no surface" in one["reason"]) for one in record["samples"]["failed"]] == [
        ("odd.obj", True)
    ]
    assert str(tmp_path) not in record["samples"]["failed"][0]["reason"].replace(str(models), "")
    assert record["code"]["measured_with"]["cycles"] == "Blender fake on CPU"
    jobs = [json.loads(line) for line in log.read_text().splitlines()]
    # One look; four views of each model, once for original and reconstruction, and the gallery's two.
    assert sorted(map(tuple, jobs)) == sorted(
        [("look", None, None, 0), *[("render", 3, 16, 4)] * 3, *[("render", 3, 32, 2)] * 2],
        key=lambda job: (job[0], job[2] or 0),
    )
    log.unlink()
    # The floor wants its own input views, and finds the others kept.
    records = run(models, tmp_path / "runs", "identity", "voxel-colour")
    assert len(records) == 2
    jobs = [json.loads(line) for line in log.read_text().splitlines()]
    assert all(job[2] == 8 for job in jobs)


def test_another_blender_measures_anew(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (models / "odd.obj").unlink()
    shades = []
    for version, shade in (("5.0", 50), ("5.1", 90)):
        act = f"reply['blender'] = {version!r}; colours = [np.full((*shape, 4), {shade}, np.uint8) for _ in colours]"
        fake_blender.put(tmp_path, monkeypatch, act)
        (record,) = run(models, tmp_path / "runs", "voxel-colour")
        assert record["code"]["measured_with"]["cycles"] == f"Blender {version} on CPU"
        shades.append(record["cells"][0]["value"])
    assert shades[0] != shades[1]
