"""Ablations that run: trained by the ordinary trainer, measured by the ordinary runner, resumed, failing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atoken import config
from atoken.checkpoint import sha256_file
from atoken.training import session
from atoken.training.errors import TrainingError
from atoken.training.recipe_files import load_recipe
from harness import ablation_record
from harness.ablation_run import run
from harness.errors import BenchError
from harness.records import load
from harness.request import Request
from reports.training import read_studies
from tests.harness.ablation_fakes import RECIPE, TINY, TWO_STAGES, Variant, ablation, photographs


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(config.PRESETS, TINY.name, TINY)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no-weights"))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return path


def asked(tmp_path: Path, **values: Any) -> Request:
    folder = tmp_path / "photos"
    if not folder.exists():
        photographs(folder)
    settings = {"runs": tmp_path / "runs", "limit": 2, "device": "cpu", "threads": 1, "workers": 0}
    return Request(**{**settings, "data": (f"images={folder}",), **values})


def record_of(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    (path,) = (tmp_path / "runs").rglob(ablation_record.NAME)
    return path.parent, ablation_record.load(path)


def test_variants_are_trained_and_measured_and_a_record_holds_them(tmp_path: Path, recipe: Path) -> None:
    run(ablation(recipe), asked(tmp_path))
    folder, record = record_of(tmp_path)
    assert record["figure"] == "Figure 0"
    assert record["notes"] == {"images": f"trained on {tmp_path / 'photos'}"}
    a, b = record["variants"]
    assert [entry["absent"] for entry in (a, b)] == [None, None]
    assert a["recipe_sha256"] != b["recipe_sha256"]
    assert b["recipe"]["losses"] == {**a["recipe"]["losses"], "l1": 2.0}
    for entry in (a, b):
        (stage,) = entry["stages"]
        assert (stage["number"], stage["name"], stage["steps"]) == (1, "image-foundation", 4)
        weights = folder / entry["folder"] / "stage-1" / "model" / "model.safetensors"
        assert stage["model_sha256"] == sha256_file(weights)
        assert entry["log_sha256"] == sha256_file(folder / entry["folder"] / "log.jsonl")
        (measured,) = stage["measured"]
        ordinary = load(folder / measured["record"])
        assert ordinary["experiment"] == "image-recon"
        assert ordinary["protocol"]["name"] == "paper"
        assert ordinary["samples"]["used"] == 2
        assert ordinary["tokenizer"]["card"]["weights_sha256"] == {"model.safetensors": stage["model_sha256"]}
    assert a["stages"][0]["model_sha256"] != b["stages"][0]["model_sha256"]
    # What the reports read of it.
    (read,) = read_studies(tmp_path / "runs").ablations
    assert [variant.title for variant in read.trained] == ["A", "B"]
    assert [step for step, _ in read.trained[0].training.points("image_recon/l1")] == [1, 2, 3, 4]  # type: ignore[union-attr]
    assert [step for step, _ in read.trained[0].training.points("val_images_psnr")] == [2, 4]  # type: ignore[union-attr]


def test_a_variant_is_what_the_trainer_makes_of_its_recipe(tmp_path: Path, recipe: Path) -> None:
    run(ablation(recipe), asked(tmp_path))
    _, record = record_of(tmp_path)
    inputs = session.Inputs(
        data={"images": [str(tmp_path / "photos")]}, val={}, out=tmp_path / "own", cache=tmp_path / "cache", workers=0
    )
    session.run_session(
        load_recipe(recipe, overrides=["losses.l1=2"]), range(1), inputs, device="cpu", say=lambda _: None
    )
    own = sha256_file(tmp_path / "own" / "stage-1" / "model" / "model.safetensors")
    assert own == record["variants"][1]["stages"][0]["model_sha256"]


def test_started_again_what_stands_stands(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = session.run_session
    calls: list[str] = []

    def interrupted(made: Any, *arguments: Any, **settings: Any) -> bool:
        calls.append(str(made.losses.l1))
        if len(calls) == 2:
            # As Ctrl-C in the middle: the trainer saves, and the command ends.
            steps = iter(range(9))
            real(made, *arguments, **settings, stop=lambda: next(steps) == 3)
            raise KeyboardInterrupt
        return real(made, *arguments, **settings)

    monkeypatch.setattr(session, "run_session", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(ablation(recipe), asked(tmp_path))
    assert not list((tmp_path / "runs").rglob(ablation_record.NAME))
    (first,) = (tmp_path / "runs" / "ablation-test").glob("*/a/stage-1/model/model.safetensors")
    before = first.stat().st_mtime_ns
    capsys.readouterr()
    run(ablation(recipe), asked(tmp_path))
    said = capsys.readouterr().err
    assert calls == ["1.0", "2.0", "2.0"]
    assert "a: trained; its models stand" in said
    assert "step 3 of 4" in said
    assert first.stat().st_mtime_ns == before
    monkeypatch.setattr(session, "run_session", real)
    run(ablation(recipe), asked(tmp_path, runs=tmp_path / "whole"))
    whole = ablation_record.load(next((tmp_path / "whole").rglob(ablation_record.NAME)))
    _, record = record_of(tmp_path)
    assert models(record) == models(whole)


def models(record: dict[str, Any]) -> list[str]:
    return [stage["model_sha256"] for entry in record["variants"] for stage in entry["stages"]]


def test_a_training_that_fails_is_recorded_with_its_reason(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = session.run_session

    def failing(made: Any, *arguments: Any, **settings: Any) -> bool:
        if made.losses.l1 == 1:
            raise TrainingError("step 3: no finite loss in 3 steps in a row")
        return real(made, *arguments, **settings)

    monkeypatch.setattr(session, "run_session", failing)
    with pytest.raises(BenchError, match=r"^a failed; the reasons stand above, the same command tries again"):
        run(ablation(recipe), asked(tmp_path))
    _, record = record_of(tmp_path)
    a, b = record["variants"]
    assert a["absent"] == "failed: step 3: no finite loss in 3 steps in a row"
    assert (a["stages"], a["log_sha256"]) == ([], None)
    assert b["absent"] is None


def test_an_absent_variant_needs_no_training_and_strict_minds_it(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trunk = Variant(name="gram", title="Gram", changes=("losses.gram=1e3",), vgg=True)
    with pytest.raises(BenchError, match="--strict: absent are gram; the reasons stand above"):
        run(ablation(recipe, Variant(name="a", title="A"), trunk), asked(tmp_path, strict=True))
    assert "gram is absent: no vgg16-397923af.pth in " in capsys.readouterr().err
    _, record = record_of(tmp_path)
    assert [bool(entry["absent"]) for entry in record["variants"]] == [False, True]
    assert record["variants"][1]["stages"] == []


def test_a_trunk_of_the_users_is_named_by_its_hash_and_told_from_the_published_one(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "trunk.pth"
    file.write_bytes(b"weights")
    given: list[Any] = []

    def failing(made: Any, stages: Any, inputs: Any, **settings: Any) -> bool:
        given.append(inputs.vgg)
        raise TrainingError("not today")

    monkeypatch.setattr(session, "run_session", failing)
    trunk = Variant(name="gram", title="Gram", changes=("losses.gram=1e3",), vgg=True)
    with pytest.raises(BenchError, match="a, gram failed"):
        run(ablation(recipe, Variant(name="a", title="A"), trunk), asked(tmp_path, options=(f"vgg={file}",)))
    _, record = record_of(tmp_path)
    assert given == [None, file]
    assert record["variants"][0]["vgg"] is None
    assert record["variants"][1]["vgg"] == {"sha256": sha256_file(file), "official": False}


def test_stages_are_measured_on_what_they_have_learned_so_far(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(TWO_STAGES)
    study = ablation(path, Variant(name="a", title="A"), videos=True, takes_run=True)
    run(study, asked(tmp_path, limit=1))
    folder, record = record_of(tmp_path)
    first, second = record["variants"][0]["stages"]
    assert [one["experiment"] for one in first["measured"]] == ["image-recon"]
    assert [one["experiment"] for one in second["measured"]] == ["image-recon", "video-recon"]
    # The folder of the training stands for it; its models are the same, so are their records.
    run(study, asked(tmp_path, limit=1, runs=tmp_path / "again", options=(f"run={folder / 'a'}",)))
    again = ablation_record.load(next((tmp_path / "again").rglob(ablation_record.NAME)))
    assert again["notes"] == {"run": f"trained elsewhere, in {folder / 'a'}"}
    (entry,) = again["variants"]
    assert [stage["model_sha256"] for stage in entry["stages"]] == [first["model_sha256"], second["model_sha256"]]
    copied = next((tmp_path / "again").rglob("log.jsonl"))
    assert copied.read_bytes() == (folder / "a" / "log.jsonl").read_bytes()
    assert json.loads((folder / second["measured"][1]["record"]).read_text())["modality"] == "video"


def test_what_cannot_be_measured_is_absent_and_the_rest_is_there(tmp_path: Path, recipe: Path) -> None:
    run(
        ablation(recipe, Variant(name="a", title="A")),
        asked(tmp_path, data=(f"images={photographs(tmp_path / 'p')}", "imagenet-val=nowhere")),
    )
    _, record = record_of(tmp_path)
    (measured,) = record["variants"][0]["stages"][0]["measured"]
    assert measured["record"] is None
    assert "nowhere" in measured["absent"]


@pytest.mark.parametrize("content", ["", "[]", '{"schema": 1}', '{"schema": 2, "variants": []}'])
def test_a_record_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / ablation_record.NAME
    path.write_text(content)
    with pytest.raises(BenchError, match=r"ablation\.json: "):
        ablation_record.load(path)
