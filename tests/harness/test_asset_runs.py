"""3D assets through the runner: what is measured, bad ones that are named, and what always holds."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from atoken.assets.cameras import four_views
from atoken.assets.render import RenderSettings, render_views
from harness import asset_gallery, asset_work
from harness.asset_views import view_cache
from harness.asset_work import AssetWork
from harness.building import Measures
from harness.console import Advance, Console
from harness.data.catalog import open_assets
from harness.data.check import inspect
from harness.errors import BenchError
from harness.execution import execute, merge_only
from harness.plan import Plan, Share
from harness.protocol import AssetRules, MetricSpec
from harness.tokenizers.asset_contract import box
from harness.weights import WeightStore
from tests.harness import fakes
from tests.harness.asset_fakes import RULES, Box, Boxes, Dim, asset_plan

QUIET = Console(speaks=False)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Views are cached in the test's own folder, and galleries are small."""
    monkeypatch.setattr(asset_gallery, "TURN", 2)
    monkeypatch.setattr(asset_work, "SIDE", 32)
    folder = tmp_path / "views"
    monkeypatch.setenv("ATOKEN_BENCH_VIEWS", str(folder))
    monkeypatch.delenv("ATOKEN_BLENDER_PYTHON", raising=False)
    return folder


def done(made: Plan, runs: Path, *, share: Share | None = None) -> dict[str, Any]:
    record = execute(made, runs, share=share or Share(), workers=0, console=QUIET)
    assert record is not None
    return record


def measured(made: Plan, index: int = 0) -> Any:
    (part,) = AssetWork(made).measure([[index]], Advance())
    return part


# What a run measures.


def test_every_view_of_the_protocol_is_measured_once() -> None:
    part = measured(asset_plan())
    views = render_views(box(), four_views(), RenderSettings(height=RULES.size, width=RULES.size))
    alpha = views.colours[..., 3:] / 255
    black = views.colours[..., :3] * alpha
    expected = np.abs(np.rint(black) - np.rint(0.75 * black)).mean((1, 2, 3))
    np.testing.assert_allclose(part.frames["error"], expected, atol=0.05)  # ties of rounding
    assert part.columns["error"] == pytest.approx([part.frames["error"].mean()])
    (row,) = part.rows
    assert (row.frames, row.height, row.width) == (4, RULES.size, RULES.size)
    assert row.tokens == 2 * part.columns["error voxels"][0] == 2 * 480
    assert row.sha256 == box().content_hash
    assert row.encode_ms > 0
    assert row.decode_ms > 0


def test_a_sample_depends_on_its_own_seed() -> None:
    made = asset_plan(protocol={"latent": "sample"}, dataset=Boxes(Box(), Box()))
    one, two = (float(measured(made, index).columns["error"][0]) for index in (0, 1))
    assert one != two  # the same box under another id
    assert float(measured(made).columns["error"][0]) == one


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Box(broken="holds no geometry; export the mesh again"), "holds no geometry; export the mesh again"),
        (Box(broken="crash"), "OverflowError: too much"),
        (Box(refused=True), "too fine a mesh"),
    ],
)
def test_a_bad_asset_is_named_and_the_run_goes_on(tmp_path: Path, bad: Box, reason: str) -> None:
    record = done(asset_plan(dataset=Boxes(Box(), bad, Box((1, 1, 0.2)))), tmp_path)
    assert record["samples"]["failed"] == [{"id": "box/001.glb", "reason": reason}]
    assert record["samples"]["used"] == 2
    assert record["modality"] == "asset"


def test_files_that_are_no_meshes_are_named_and_the_run_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    cube = "\n".join(f"v {' '.join(map(str, vertex))}" for vertex in box().vertices.tolist())
    faces = "\n".join(f"f {a + 1} {b + 1} {c + 1}" for a, b, c in box().faces.tolist())
    files = {
        "good.obj": f"{cube}\n{faces}\n",
        "empty.obj": "",
        "nan.obj": f"{cube}\n{faces}\n".replace("v -0.5", "v nan", 1),
        "points.obj": f"{cube}\n",
        "point.obj": "v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n",
        "scene.blend": "BLENDER",
        "film.fbx": "Kaydara",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    made = asset_plan(dataset=open_assets("folder", folder))
    record = done(made, tmp_path / "runs")
    failed = {entry["id"]: entry["reason"] for entry in record["samples"]["failed"]}
    assert record["samples"]["used"] == 1
    assert failed.keys() == files.keys() - {"good.obj"}
    words = {
        "empty.obj": "is empty",
        "nan.obj": "not finite",
        "points.obj": "no faces",
        "point.obj": "one point",
        "scene.blend": "Blender alone reads",
        "film.fbx": "convert it to one of",
    }
    for name, word in words.items():
        assert word in failed[name]
        assert str(folder) not in failed[name]


def test_what_a_model_asks_for_and_has_not_is_said_and_kept(tmp_path: Path) -> None:
    mesh = box()
    lines = [
        "mtllib gone.mtl",
        "usemtl wood",
        *(f"v {' '.join(map(str, vertex))}" for vertex in mesh.vertices.tolist()),
    ]
    faces = [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in mesh.faces.tolist()]
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "bare.obj").write_text("\n".join([*lines, *faces]))
    (folder / "plain.obj").write_text("\n".join([*lines[2:], *faces]))
    made, said = asset_plan(dataset=open_assets("folder", folder)), io.StringIO()
    record = execute(made, tmp_path / "runs", share=Share(), workers=0, console=Console(speaks=False, stream=said))
    assert record is not None
    noted = record["samples"]["noted"]
    assert [entry["id"] for entry in noted] == ["bare.obj", "bare.obj"]
    assert noted[0]["note"].startswith("material library gone.mtl is missing")
    assert noted[1]["note"] == "material wood is in no library: grey"
    assert f"bare.obj: {noted[0]['note']}" in said.getvalue()
    assert inspect(open_assets("folder", folder)).lines()[2:4] == [
        f"noted: {entry['id']}: {entry['note']}" for entry in noted
    ]
    other = done(asset_plan(), tmp_path / "others")
    assert "noted" not in other["samples"]
    # What reads and draws assets is among what a record holds the versions of.
    assert {"trimesh", "embreex", "numba"} <= other["environment"]["packages"].keys()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nan", "a view of box/000.glb holds NaN or infinite values"),
        ("size", r"comes as torch.float32 \(11, 12, 4\), not float32 \(12, 12, 4\); the adapter is wrong"),
        ("dtype", "comes as torch.float64"),
    ],
)
def test_a_broken_adapter_is_named(fault: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        measured(asset_plan(tokenizer=Dim(fault=fault)))


def test_an_asset_that_cannot_be_drawn_is_named() -> None:
    part = measured(asset_plan(tokenizer=Dim(fault="refuses")))
    assert [(failed.id, failed.reason) for failed in part.failed] == [("box/000.glb", "cannot be drawn")]


def test_kinds_are_not_mixed_up(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="blur-4: a tokenizer of image, not of assets"):
        done(asset_plan(tokenizer=fakes.Blur()), tmp_path)
    with pytest.raises(BenchError, match="protocol tiny: does not say from where assets are seen"):
        done(asset_plan(asset=None), tmp_path)
    with pytest.raises(BenchError, match=r"prepare is 'rgb\|native'; of assets there are: unit_cube\|unlit and"):
        done(asset_plan(protocol={"prepare": "rgb|native"}), tmp_path)


# A tokenizer without its decoder.


def test_nothing_is_drawn_where_the_decoder_is_missing(tmp_path: Path) -> None:
    tokenizer = Dim(unrendered="the model has no Gaussian decoder")
    specs = (
        MetricSpec(metric="psnr", name="PSNR"),
        MetricSpec(metric="voxels", name="voxels"),
        MetricSpec(metric="gaussians", name="Gaussians"),
        MetricSpec(metric="tokens", name="tokens per asset"),
    )
    protocol = asset_plan(protocol={"metrics": specs}).protocol
    measures = Measures("asset", WeightStore(()), "cpu")
    metrics, absent = measures.of(protocol, tokenizer)
    made = asset_plan(tokenizer=tokenizer, metrics=metrics, absent=absent, protocol={"metrics": specs})
    record = done(made, tmp_path)
    cells = {cell["name"]: cell for cell in record["cells"]}
    assert list(cells) == ["PSNR", "voxels", "Gaussians", "tokens per asset"]
    for name in ("PSNR", "Gaussians"):
        assert cells[name]["value"] is None
        assert cells[name]["absent"] == "the model has no Gaussian decoder"
        assert cells[name]["applies"]
    assert cells["tokens per asset"]["value"] == 2 * cells["voxels"]["value"] > 0
    assert tokenizer.decoded == 0
    assert record["gallery"] == []
    # A row beside it that can be drawn has its pictures.
    assert [metric.columns for metric in measures.of(protocol, Dim())[0]] == [
        ("PSNR",),
        ("voxels",),
        ("Gaussians",),
        ("tokens per asset",),
    ]


# What always holds.


def figures(record: dict[str, Any]) -> Any:
    return record["cells"], record["samples"], record["dataset"], record["gallery"]


def tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    samples = pd.read_parquet(folder / "samples.parquet").drop(columns=["encode_ms", "decode_ms"])
    return samples, pd.read_parquet(folder / "frames.parquet")


def same(one: Path, other: Path) -> None:
    for left, right in zip(tables(one), tables(other), strict=True):
        pd.testing.assert_frame_equal(left, right, check_exact=True)


MIXED = (Box(), Box(broken="is empty"), Box((0.4, 1, 0.9)), Box((1, 1, 0.2)), Box((0.1, 0.2, 1)))


def mixed() -> Plan:
    return asset_plan(dataset=Boxes(*MIXED), protocol={"latent": "sample"})


def test_one_process_and_two_give_the_same_bits(tmp_path: Path) -> None:
    whole = done(mixed(), tmp_path / "one")
    for index in (0, 1):
        share = Share(index=index, count=2, merges=False)
        assert execute(mixed(), tmp_path / "two", share=share, workers=0, console=QUIET) is None
    folder = mixed().folder(tmp_path / "two")
    assert figures(merge_only(mixed(), folder, QUIET)) == figures(whole)
    same(mixed().folder(tmp_path / "one"), folder)


def test_a_resume_measures_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = done(mixed(), tmp_path / "whole")
    calls: list[int] = []
    measure = AssetWork._measure

    def stops(work: AssetWork, index: int, advance: Advance) -> Any:
        calls.append(index)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return measure(work, index, advance)

    monkeypatch.setattr(AssetWork, "_measure", stops)
    with pytest.raises(KeyboardInterrupt):
        done(mixed(), tmp_path / "cut")
    assert figures(done(mixed(), tmp_path / "cut")) == figures(whole)
    assert calls == [0, 1, 2, 3, 3, 4]
    same(mixed().folder(tmp_path / "whole"), mixed().folder(tmp_path / "cut"))


def test_views_have_a_table_of_their_own(tmp_path: Path) -> None:
    made = asset_plan()
    done(made, tmp_path)
    samples, views = tables(made.folder(tmp_path))
    assert list(views.columns) == ["id", "frame", "error"]
    assert views.groupby("id")["frame"].agg(list).tolist() == [[0, 1, 2, 3]] * 3
    np.testing.assert_allclose(views.groupby("id")["error"].mean(), samples["error"])


def test_originals_are_rendered_once_for_all_rows(tmp_path: Path, small: Path) -> None:
    first = done(asset_plan(), tmp_path / "one")
    stored = {path: path.stat().st_mtime_ns for path in small.iterdir()}
    assert len(stored) == 6  # the protocol's views and the gallery's, of three assets
    second = done(asset_plan(tokenizer=Dim(0.5)), tmp_path / "two")
    assert {path: path.stat().st_mtime_ns for path in small.iterdir()} == stored
    assert second["cells"][0]["value"] > first["cells"][0]["value"]


def test_a_damaged_view_is_rendered_anew(tmp_path: Path, small: Path) -> None:
    whole = done(asset_plan(), tmp_path / "one")
    for path in small.iterdir():
        path.write_bytes(path.read_bytes()[:-20])
    assert figures(done(asset_plan(), tmp_path / "two")) == figures(whole)


def test_where_views_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small: Path) -> None:
    assert view_cache() == small
    monkeypatch.setenv("ATOKEN_BENCH_VIEWS", "off")
    assert view_cache() is None
    assert measured(asset_plan()).rows
    assert not small.exists()
    monkeypatch.delenv("ATOKEN_BENCH_VIEWS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert view_cache() == tmp_path / "atoken-bench" / "views"


def test_the_gallery_shows_worst_median_and_best_and_nothing_stale(tmp_path: Path) -> None:
    made = asset_plan()
    record = done(made, tmp_path)
    assert [entry["rank"] for entry in record["gallery"]] == ["worst", "median", "best"]
    folder = made.folder(tmp_path)
    for entry in record["gallery"]:
        assert (folder / entry["video"]).stat().st_size > 0
        assert (folder / entry["poster"]).stat().st_size > 0
        assert entry["tokens"] == 2 * entry["voxels"]
        assert (entry["splat"], entry["gaussians"], entry["views"]) == (None, None, 2)
    (folder / "gallery" / "old.webm").touch()
    done(asset_plan(software={"source": "2"}), tmp_path)
    assert not (folder / "gallery" / "old.webm").exists()


def test_rules_are_part_of_what_a_run_is() -> None:
    rules = [
        RULES,
        AssetRules(input_views=3, input_size=8, views="four", size=12),
        AssetRules(input_views=2, input_size=9, views="four", size=12),
        AssetRules(input_views=2, input_size=8, views="thirty", size=12),
        AssetRules(input_views=2, input_size=8, views="four", size=13),
    ]
    assert len({asset_plan(asset=rule).key for rule in rules}) == 5
