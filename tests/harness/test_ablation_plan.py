"""What an ablation is asked for: options, data, trunks, folders; and what it trains on where nothing is given."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from atoken import config
from harness.ablation import Variant
from harness.ablation_plan import AblationPlan, kinds_of, plan_ablation
from harness.ablation_samples import material
from harness.data.catalog import open_dataset
from harness.errors import BenchError
from harness.plan import Share
from harness.request import Request
from harness.weights import VGG16
from tests.harness.ablation_fakes import RECIPE, TINY, TWO_STAGES, ablation

TRUNK = Variant(name="gram", title="Gram", changes=("losses.gram=1e3",), vgg=True)
PLAIN = Variant(name="a", title="A")


@pytest.fixture(autouse=True)
def _preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(config.PRESETS, TINY.name, TINY)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights on this machine."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    monkeypatch.delenv("ATOKEN_BENCH_WEIGHTS", raising=False)


def test_variants_change_the_recipe_in_what_they_say(recipe: Path) -> None:
    plan = plan_ablation(ablation(recipe), Request(options=("steps=7",)))
    a, b = (asked.recipe for asked in plan.variants)
    assert [stage.steps for stage in a.stages] == [7]
    assert b == replace(a, losses=replace(a.losses, l1=2.0))
    assert plan.kinds == ("images",)
    assert plan_ablation(ablation(recipe), Request()).variants[0].recipe.stages[0].steps == 4


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Request(options=("stpes=3",)), r"--option stpes=3: write KEY=VALUE with KEY steps, recipe$"),
        (Request(options=("steps=0",)), r"steps=0: give the optimiser steps of a stage, 1 or more"),
        (Request(options=("run=x",)), r"--option run=x: write KEY=VALUE with KEY steps, recipe$"),
        (Request(options=("recipe=nnao",)), r"nnao: no such recipe; did you mean nano"),
        (Request(tokenizers=("jpeg:75",)), r"--tokenizer: ablation-test trains what it measures; leave it out"),
        (Request(ckpt="x", protocol="paper", only=Path("f")), r"--ckpt: .*\n--list: .*\n--protocol: "),
        (
            Request(share=Share(index=0, count=2)),
            r"ablation-test trains on one process; leave out --shard and torchrun",
        ),
        (Request(data=("photos=x",)), r"--data photos=x: write images=PATH, videos=PATH, .* samples, imagenet-val, "),
        (Request(data=("images",)), r"--data images: write images=PATH"),
        (Request(data=("samples", "imagenet-val=x")), r"--data imagenet-val=x: .* one dataset of each experiment"),
    ],
)
def test_a_request_that_is_wrong(recipe: Path, request_: Request, said: str) -> None:
    with pytest.raises(BenchError, match=said):
        plan_ablation(ablation(recipe), request_)


def test_all_that_is_wrong_is_said_at_once(recipe: Path) -> None:
    with pytest.raises(BenchError) as raised:
        plan_ablation(ablation(recipe), Request(options=("steps=x",), data=("photos=x",), ckpt="y"))
    assert [line.partition(":")[0] for line in str(raised.value).splitlines()] == [
        *("--ckpt", "--option steps=x", "--data photos=x"),
    ]


def test_data_to_train_on_and_data_to_measure_on(recipe: Path) -> None:
    data = ("images=a", "images=b", "imagenet-val=/data/val", "davis=/data/davis")
    plan = plan_ablation(ablation(recipe, videos=True), Request(data=data))
    assert plan.given == {"images": ["a", "b"]}
    assert plan.measured == {"image-recon": "imagenet-val=/data/val", "video-recon": "davis=/data/davis"}


@pytest.mark.usefixtures("nowhere")
def test_without_a_trunk_a_variant_is_absent_with_its_reason(recipe: Path, tmp_path: Path) -> None:
    both = ablation(recipe, PLAIN, TRUNK)
    assert both.options == ("steps", "recipe", "vgg")
    plain, trunk = plan_ablation(both, Request()).variants
    assert plain.absent is None
    assert plain.folder == "a"
    assert f"no {VGG16.name} in " in str(trunk.absent)
    assert str(trunk.absent).endswith("or give it with --option vgg=FILE")
    with pytest.raises(BenchError, match=rf"vgg={tmp_path}/no: no such file; give torchvision's {VGG16.name}"):
        plan_ablation(both, Request(options=(f"vgg={tmp_path}/no",)))
    with pytest.raises(BenchError, match="--option vgg=x: write KEY=VALUE with KEY steps, recipe"):
        plan_ablation(ablation(recipe), Request(options=("vgg=x",)))


@pytest.mark.usefixtures("nowhere")
def test_a_trunk_names_the_variants_folder_and_moves_no_other(recipe: Path, tmp_path: Path) -> None:
    file = tmp_path / "trunk.pth"
    file.write_bytes(b"weights")
    both = ablation(recipe, PLAIN, TRUNK)
    without, with_ = (plan_ablation(both, Request(options=options)) for options in ((), (f"vgg={file}",)))
    plain, trunk = with_.variants
    assert trunk.vgg == file
    assert trunk.folder == f"gram--vgg-{hashlib.sha256(b'weights').hexdigest()[:8]}"
    assert plain.folder == "a"
    assert plain.vgg is None
    assert without.folder(tmp_path) == with_.folder(tmp_path)


def test_equal_requests_share_a_folder_and_others_do_not(recipe: Path, tmp_path: Path) -> None:
    def folder(options: tuple[str, ...] = (), data: tuple[str, ...] = (), limit: int | None = None) -> Path:
        return plan_ablation(ablation(recipe), Request(options=options, data=data, limit=limit)).folder(tmp_path)

    one = folder()
    assert one.parent == tmp_path / "ablation-test"
    assert one.name.startswith("steps-4--")
    assert folder() == one == folder(limit=3)
    assert len({one, folder(("steps=5",)), folder(data=("images=x",))}) == 3


def test_a_finished_training_stands_for_its_variant(recipe: Path, tmp_path: Path) -> None:
    takes = ablation(recipe, PLAIN, takes_run=True)
    with pytest.raises(BenchError, match=r"run=.*: no recipe.yaml in it; give a folder that atoken train wrote"):
        plan_ablation(takes, Request(options=(f"run={tmp_path}",)))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    plan = plan_ablation(takes, Request(options=(f"run={tmp_path}",)))
    assert plan.run == tmp_path
    assert plan.variants[0].recipe.model == TINY.name
    with pytest.raises(BenchError, match=r"is trained already; leave out steps="):
        plan_ablation(takes, Request(options=(f"run={tmp_path}", "steps=3")))


def test_kinds_are_those_of_the_tasks(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(TWO_STAGES)
    plan: AblationPlan = plan_ablation(ablation(path, PLAIN), Request())
    assert plan.kinds == ("images", "videos")
    assert kinds_of(plan.variants[0].recipe) == {"images", "videos"}


# Samples.


def test_half_of_the_samples_is_trained_on_and_the_other_half_measured(tmp_path: Path) -> None:
    made = material({}, ("images", "videos"), tmp_path)
    every = {sample.id for sample in open_dataset("image", "samples", None).samples}
    trained = {path.name for path in Path(made.data["images"][0]).iterdir()}
    listed = made.only["image"].read_text().split()
    assert trained | set(listed) == every
    assert not trained & set(listed)
    assert len(trained) == len(listed) == 8
    (held_out,) = made.val["images"]
    assert {path.name for path in Path(held_out).iterdir()} == set(listed)
    assert made.data["videos"] == [f"moving:{made.data['images'][0]}"]
    assert set(made.notes) == {"images", "videos"}


def test_what_the_user_gives_leaves_all_samples_to_be_measured(tmp_path: Path) -> None:
    made = material({"images": ["mine", "more"]}, ("images", "videos"), tmp_path)
    assert made.data == {"images": ["mine", "more"], "videos": ["moving:mine", "moving:more"]}
    assert made.only == {}
    assert sum(len(list(Path(folder).iterdir())) for folder in made.val["images"]) == 16
    assert made.notes["images"] == "trained on mine, more"
    # Only kinds that are trained on are given to the trainer.
    assert material({"images": ["mine"], "videos": ["clips"]}, ("images",), tmp_path).data == {"images": ["mine"]}


def test_assets_are_prepared_once_and_trained_on_where_they_are_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[str] = []

    def fake(mesh: object, path: Path, _: object) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * len(prepared))
        prepared.append(path.stem)

    monkeypatch.setattr("atoken.training.data.prepare.prepare", fake)
    monkeypatch.setattr(
        "atoken.training.data.prepared.load_prepared",
        lambda path: SimpleNamespace(coords=range(1000 * path.stat().st_size)),
    )
    said: list[str] = []
    made = material({}, ("assets",), tmp_path, said.append)
    listed = set(made.only["asset"].read_text().split())
    every = {sample.id for sample in open_dataset("asset", "samples", None).samples}
    assert listed < every
    assert len(prepared) == len(every) - len(listed) == 12
    assert not set(prepared) & {id_.replace("/", "_") for id_ in listed}
    (folder,) = made.data["assets"]
    assert {path.stem for path in Path(folder).iterdir()} == set(prepared[:9])  # of 0 to 8,000 voxels
    assert made.notes["assets"] == "trained on 9 of the sample assets, measured on 12 others"
    assert said == ["prepares 12 sample assets to train on"]
    material({}, ("assets",), tmp_path, said.append)
    assert len(prepared) == 12
    assert len(said) == 1
