"""Recipes are read strictly, give themselves back, and the paper's is the paper's."""

from __future__ import annotations

import csv
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from atoken.config import PRESETS
from atoken.training.errors import TrainingError
from atoken.training.recipe import Losses, Optimizer, Recipe, Stage
from atoken.training.recipe_files import known_recipes, load_recipe, parse
from atoken.training.tasks import TASKS, AssetTask, ImageTask, VideoTask

SMALL: dict[str, Any] = {
    "model": "nano",
    "start": "random",
    "seed": 1,
    "precision": "float32",
    "text": "none",
    "pack_tokens": 64,
    "optimizer": {"lr": 1e-3, "final_lr": 1e-4},
    "stages": {
        "first": {
            "steps": 10,
            "latents": 8,
            "frames": 1,
            "tasks": {"image_recon": {"share": 1, "samples": 4, "resolution": [32, 64]}},
        },
        "second": {
            "steps": 20,
            "latents": 12,
            "frames": 4,
            "tasks": {
                "image_recon": {"share": 1, "samples": 4, "resolution": [32, 64]},
                "video_recon": {
                    "share": 2,
                    "samples": 2,
                    "resolution": [32, 32],
                    "frames": [8, 16],
                    "strides": [[1, 3], [4, 12]],
                },
            },
        },
    },
}


@pytest.fixture
def write(tmp_path: Path):
    """Writes a recipe file: a text, or plain values with changes of dotted keys."""

    def write(content: str | dict[str, Any], name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        return path

    return write


def changed(values: dict[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """A deep copy with one key set."""
    name, _, rest = dotted.partition(".")
    return values | {name: changed(values.get(name, {}), rest, value) if rest else value}


# -- There and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", known_recipes())
def test_shipped_recipes_give_themselves_back(name: str, write) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.model in PRESETS
    assert parse(recipe.to_dict(), where="there") == recipe
    assert load_recipe(write(recipe.to_dict(), "another.yaml")) == recipe


@st.composite
def _tasks(draw: st.DrawFn, frames: int) -> dict[str, Any]:
    names = [name for name in TASKS if name.endswith("_recon") and (frames == 4 or not name.startswith("video"))]
    tasks: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(names), min_size=1, unique=True)):
        low, high = sorted(draw(st.tuples(st.integers(1, 99), st.integers(1, 99))))
        common = {"samples": draw(st.integers(1, 9999)), "share": draw(st.floats(0.001, 100))}
        sizes = {"resolution": (16 * low, 16 * high), "view": draw(st.sampled_from(["whole", "crop", "resized-crop"]))}
        if TASKS[name] is AssetTask:
            sizes = {"renders": draw(st.integers(1, 9)), "render_size": draw(st.integers(16, 512))}
        if TASKS[name] is VideoTask:
            sizes["frames"] = (4 * low, 4 * high)
            by_rate = draw(st.booleans())
            sizes |= {"fps": draw(st.floats(0.1, 60))} if by_rate else {"strides": ((low, high), (1, 1))}
        tasks[name] = TASKS[name](**common, **sizes)
    return tasks


@st.composite
def _recipes(draw: st.DrawFn) -> Recipe:
    stages = []
    latents, frames = 1, 1
    for index in range(draw(st.integers(1, 3))):
        latents, frames = latents + draw(st.integers(0, 9)), max(frames, draw(st.sampled_from([1, 4])))
        steps, tasks = draw(st.integers(1, 10**6)), draw(_tasks(frames))
        blocks = {f"{half}_blocks": draw(st.none() | st.just(3 + index)) for half in ("encoder", "decoder")}
        stages.append(Stage(name=f"stage {index}", steps=steps, latents=latents, frames=frames, tasks=tasks, **blocks))
    lr = draw(st.floats(1e-8, 1))
    optimizer = Optimizer(lr=lr, final_lr=lr * draw(st.floats(0.01, 1)), betas=(draw(st.floats(0, 0.99)), 0.5))
    return Recipe(
        name=draw(st.text("abc-", min_size=1)),
        model="nano",
        start=draw(st.sampled_from(["random", "pca", "siglip2"])),
        seed=draw(st.integers(0, 2**31)),
        precision=draw(st.sampled_from(["float32", "bfloat16"])),
        text="none",
        pack_tokens=draw(st.integers(1, 10**6)),
        stages=tuple(stages),
        optimizer=optimizer,
    )


@given(_recipes())
def test_every_recipe_gives_itself_back(recipe: Recipe) -> None:
    assert parse(recipe.to_dict(), where="there") == recipe
    assert parse(yaml.safe_load(yaml.safe_dump(recipe.to_dict(), sort_keys=False)), where="there") == recipe


@pytest.mark.parametrize("kind", [ImageTask, VideoTask, AssetTask, Stage, Optimizer, Losses, Recipe])
def test_every_key_is_documented(kind: type) -> None:
    documented = " ".join(base.__doc__ or "" for base in kind.__mro__)
    # Parts with keys of their own are documented there.
    own = [part.name for part in fields(kind) if not is_dataclass(part.default_factory)]
    assert [name for name in own if name not in documented] == []


# -- What is refused -------------------------------------------------------------------------------------------------

TASK = "stages.second.tasks.video_recon"


@pytest.mark.parametrize(
    ("dotted", "value", "message"),
    [
        ("learning", 1, r"unknown key 'learning'; known there: name, model"),
        ("optimizer.lrr", 1, r"unknown key 'optimizer.lrr'; did you mean lr\?"),
        ("stages.second.task", 1, r"unknown key 'stages.second.task'; did you mean tasks\?"),
        (f"{TASK}.stride", 1, rf"unknown key '{TASK}.stride'; did you mean strides\?"),
        (
            "stages.second.tasks.video_recn",
            {},
            r"unknown key 'stages.second.tasks.video_recn'; did you mean video_recon",
        ),
        ("optimizer.lr", "fast", r"optimizer.lr must be a number, got 'fast'"),
        ("optimizer.lr", True, r"optimizer.lr must be a number, got True"),
        ("optimizer.betas", [0.9], r"optimizer.betas must be a list of 2, got \[0.9\]"),
        ("optimizer.betas", 0.9, r"optimizer.betas must be a list, got 0.9"),
        ("optimizer.final_lr", 1.0, r"optimizer.final_lr must be positive and at most lr, got 1.0"),
        ("optimizer.cooldown", 0, r"optimizer.cooldown must be in \(0, 1\]"),
        ("compile", 1, r"compile must be true or false, got 1"),
        ("start", "pcaa", r"start must be one of random, pca, siglip2, atoken, got 'pcaa'"),
        ("model", 3, r"model must be a text, got 3"),
        ("optimizer.matrices", "sgd", r"optimizer.matrices must be one of adamw, muon, got 'sgd'"),
        ("optimizer", 3, r"optimizer: must hold keys and values"),
        ("stages", [], r"stages: must hold keys and values"),
        ("stages", {}, r"stages must be at least one"),
        ("stages.second.tasks", 3, r"stages.second.tasks: must hold keys and values"),
        ("gathering", "mean", r"gathering must be one of nearest, average, visible, got 'mean'"),
        ("stages.second.trained", "decoder", r"second.trained must be one of all, gaussian-decoder, got 'decoder'"),
        ("stages.second.trained", "gaussian-decoder", r"second.tasks must be asset_recon alone where the Gaussian"),
        ("stages.second.after", "third", r"stages.second.after must be the name of an earlier stage, got 'third'"),
        ("stages.second.changes", {"seed": 1}, r"unknown key 'stages.second.changes.seed'; .*optimizer, losses"),
        (
            "stages.second.changes",
            {"optimizer": {"lrr": 1}},
            r"unknown key 'stages.second.changes.optimizer.lrr'; did you mean lr\?",
        ),
        (
            "stages.second.changes",
            {"optimizer": {"lr": "fast"}},
            r"stages.second.changes.optimizer.lr must be a number, got 'fast'",
        ),
        (
            "stages.second.changes",
            {"optimizer": {"cooldown": 0.0}},
            r"stages.second.changes.optimizer.cooldown must be in \(0, 1\]",
        ),
        ("stages.second.changes", {"log_every": 0}, r"stages.second.changes.log_every must be 1 or more, got 0"),
        (
            "stages.second.changes",
            {"losses": {"lpips": 1.0}},
            r"stages.second.changes.losses.lpips must be left out: it is the same in all stages, got 1.0",
        ),
        (
            "stages.second.changes",
            {"gaussian_decoder": {"width": 8}},
            r"stages.second.changes.gaussian_decoder.width must be left out: it is the same in all",
        ),
        ("stages.second.steps", 0, r"stages.second.steps must be 1 or more, got 0"),
        ("stages.second.steps", 1.5, r"stages.second.steps must be a whole number, got 1.5"),
        ("stages.second.latents", 4, r"stages.second.latents must be no fewer latents and frames than before, got 4"),
        (
            "stages.second.encoder_blocks",
            2,
            r"stages.second.encoder_blocks must be 3 or more, as many as before, got 2",
        ),
        ("stages.first.decoder_blocks", 0, r"stages.first.decoder_blocks must be 1 or more, got 0"),
        ("stages.second.decoder_blocks", 3.5, r"stages.second.decoder_blocks must be a whole number, got 3.5"),
        ("stages.second.frames", 1, r"stages.second.frames must be 4 where there are videos, got 1"),
        (f"{TASK}.resolution", [40, 64], rf"{TASK}.resolution must be .* multiples of 16"),
        (f"{TASK}.frames", [8, 4], rf"{TASK}.frames must be"),
        (f"{TASK}.samples", 0, rf"{TASK}.samples must be 1 or more, got 0"),
        (f"{TASK}.share", 0, rf"{TASK}.share must be positive"),
        (f"{TASK}.fps", 1, rf"{TASK}.strides must be given, or fps, not both"),
        (f"{TASK}.fps", "one", rf"{TASK}.fps must be a number, got 'one'"),
        (f"{TASK}.view", "hole", rf"{TASK}.view must be one of whole, crop, resized-crop, got 'hole'"),
        ("gaussian_decoder.width", 0, r"gaussian_decoder.width must be 1 or more"),
        ("losses.gram_form", "G4", r"losses.gram_form must be one of G1, G2, G3, got 'G4'"),
        ("pack_tokens", 0, r"pack_tokens must be 1 or more"),
    ],
)
def test_a_bad_value_is_one_line_that_names_file_and_key(write, dotted: str, value: object, message: str) -> None:
    path = write(changed(SMALL, dotted, value))
    with pytest.raises(TrainingError, match=message) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_blocks_stay_until_a_later_stage_says_more() -> None:
    recipe = parse({"name": "small"} | changed(SMALL, "stages.first.encoder_blocks", 5), where="there")
    assert [recipe.shape(index).encoder.blocks for index in range(2)] == [5, 5]
    assert [recipe.shape(index).decoder.blocks for index in range(2)] == [PRESETS["nano"].decoder.blocks] * 2
    assert [recipe.shape(index).latent_channels for index in range(2)] == [8, 12]
    assert [recipe.shape(index).patch for index in range(2)] == [(1, 16, 16), (4, 16, 16)]
    # After an earlier stage, its blocks count.
    nano = load_recipe("nano")
    assert [nano.shape(index).encoder.blocks for index in range(5)] == [3, 3, 3, 7, 3]


@pytest.mark.parametrize("dotted", ["model", "stages.first.steps", f"{TASK}.frames", f"{TASK}.samples"])
def test_a_missing_key_is_named(write, dotted: str) -> None:
    above, _, name = dotted.rpartition(".")
    values = yaml.safe_load(yaml.safe_dump(SMALL))
    held = values
    for part in filter(None, above.split(".")):
        held = held[part]
    del held[name]
    with pytest.raises(TrainingError, match=f"missing key '{dotted}'"):
        load_recipe(write(values))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("- 1", "must hold keys and values"),
        ("seed: 1\nseed: 2", "key 'seed' comes twice"),
        ("1: 2", "a key must be a text, got 1"),
        ("model: !!python/object:os.system {}", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_recipe(write, text: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        load_recipe(write(text))


def test_an_unknown_name_lists_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"so400: no such recipe; did you mean so400m\? give one of .*base, "):
        load_recipe("so400")
    with pytest.raises(TrainingError, match=r"none.yaml: no such recipe"):
        load_recipe(tmp_path / "none.yaml")


# -- Files that change others, and changes at the command ------------------------------------------------------------


def test_numbers_are_those_of_json(write) -> None:
    path = write(changed(SMALL, "optimizer", {}))
    text = path.read_text().replace("optimizer: {}", "optimizer: {lr: 1e-3, final_lr: 1E-4, weight_decay: 2}")
    optimizer = load_recipe(write(text)).optimizer
    assert (optimizer.lr, optimizer.final_lr, optimizer.weight_decay) == (1e-3, 1e-4, 2.0)
    assert isinstance(optimizer.weight_decay, float)


def test_a_file_changes_what_it_extends(write) -> None:
    base = load_recipe(write(SMALL))
    # Beside it, by path; and a third in a row, which takes stages and tasks out.
    write("extends: mine.yaml\noptimizer: {lr: 2e-3}\nstages: {second: {tasks: {video_recon: {samples: 9}}}}", "a.yaml")
    third = write("extends: a.yaml\nseed: 5\nstages: {first: null, second: {tasks: {image_recon: null}}}", "b.yaml")
    recipe = load_recipe(third)
    assert (recipe.name, recipe.seed, recipe.optimizer.lr, recipe.optimizer.final_lr) == ("b", 5, 2e-3, 1e-4)
    (stage,) = recipe.stages
    assert list(stage.tasks) == ["video_recon"]
    assert stage.tasks["video_recon"].samples == 9
    assert stage.tasks["video_recon"].resolution == base.stages[1].tasks["video_recon"].resolution
    # By name, and the keys given are the only ones that differ.
    named = load_recipe(write("extends: so400m\nmodel: base\n", "c.yaml")).to_dict()
    assert named == load_recipe("so400m").to_dict() | {"name": "c", "model": "base"}


def test_a_stage_has_its_own_settings_and_another_stage_before_it(write) -> None:
    values = yaml.safe_load(yaml.safe_dump(SMALL))
    last = values["stages"]["second"] | {
        "after": "first",
        "changes": {"optimizer": {"lr": 1}, "losses": {"l1": 0.5}, "log_every": 3},
    }
    values["stages"]["third"] = last
    recipe = load_recipe(write(values))
    assert [recipe.before(index) for index in range(3)] == [None, 0, 0]
    assert recipe.in_stage(1) == recipe
    own = recipe.in_stage(2)
    assert (own.optimizer.lr, own.losses.l1, own.log_every) == (1.0, 0.5, 3)
    assert replace(own, optimizer=recipe.optimizer, losses=recipe.losses, log_every=recipe.log_every) == recipe
    assert parse(recipe.to_dict(), where="there") == recipe
    # What is changed for all stages reaches those that have their own value of something else.
    wider = load_recipe(write(values), overrides=["optimizer.ema=0.5", "stages.third.changes.losses.l1=0.25"])
    assert (wider.in_stage(2).optimizer.ema, wider.in_stage(2).optimizer.lr) == (0.5, 1.0)
    assert wider.in_stage(2).losses.l1 == 0.25


def test_extending_in_a_circle_ends(write) -> None:
    write("extends: b.yaml", "a.yaml")
    path = write("extends: a.yaml", "b.yaml")
    with pytest.raises(TrainingError, match=r"a.yaml: extends b.yaml, which extends it in turn"):
        load_recipe(path)
    with pytest.raises(TrainingError, match=r"mine.yaml: sow: no such recipe"):
        load_recipe(write("extends: sow"))


def test_changes_at_the_command(write) -> None:
    path = write(SMALL)
    changes = ["stages.first.steps=100", "optimizer.lr=2e-3", f"{TASK}.resolution=[64, 96]", "stages.first.frames=4"]
    recipe = load_recipe(path, overrides=changes)
    assert recipe.stages[0].steps == 100
    assert recipe.optimizer.lr == 2e-3
    assert recipe.stages[1].tasks["video_recon"].resolution == (64, 96)
    assert list(load_recipe(path, overrides=["stages.first=null"]).stages) == [load_recipe(path).stages[1]]
    # A default that the file does not name can be changed too, and both of a pair at once.
    rates = load_recipe(path, overrides=["optimizer.lr=1e-5", "optimizer.final_lr=1e-6", "losses.kl=0"])
    assert (rates.optimizer.final_lr, rates.losses.kl) == (1e-6, 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optimizer.lr", "as key=value"),
        ("optimizer.lrr=1", r"optimizer.lrr=1: unknown key 'optimizer.lrr'; did you mean lr\?"),
        ("stages.frist.steps=1", r"unknown key 'stages.frist'; did you mean first\?"),
        ("seed.a=1", "seed has no keys below it"),
        ("seed=[", r"'\[' is not valid YAML"),
        ("seed=x", "seed must be a whole number, got 'x'"),
        ("optimizer.final_lr=1", "optimizer.final_lr must be positive and at most lr"),
    ],
)
def test_a_bad_change_is_named(write, change: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        load_recipe(write(SMALL), overrides=[change])
    assert change in str(caught.value)


# -- The paper's training --------------------------------------------------------------------------------------------

COLUMNS = {"I r": "image_recon", "V u": "video_text", "V r": "video_recon", "3D u": "asset_text", "3D r": "asset_recon"}


@pytest.mark.parametrize("name", ["so400m", "base"])
def test_table_2_cell_by_cell(repository: Path, name: str) -> None:
    with (repository / "reports/paper/table02.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    recipe = load_recipe(name)
    assert len(rows) == len(recipe.stages) == 4
    for row, stage in zip(rows, recipe.stages, strict=True):
        assert stage.steps == int(row["#Steps"].removesuffix("k")) * 1000
        total = sum(task.share for task in stage.tasks.values())
        for head, task in COLUMNS.items():
            cell = row[f"Task Sampling Ratios / {head}"]
            assert (cell != "-") == (task in stage.tasks), (stage.name, task)
            if cell != "-":
                # The table cuts ninths off: 66.6 and 11.1.
                assert 0 <= 100 * stage.tasks[task].share / total - float(cell.removesuffix("%")) < 0.1
        for head, modality in {"Image Res.": "image", "Video Res.": "video"}.items():
            tasks = [task for key, task in stage.tasks.items() if key.startswith(modality)]
            ranges = {f"[{task.resolution[0]} → {task.resolution[1]}]" for task in tasks}
            assert ranges == ({row[head]} if row[head] != "-" else set())
        assert (row["3D Size"] == "[64, 64, 64]") == ("asset_recon" in stage.tasks)
        assert stage.discrete == ("Discrete" in row["Training Stage"])


@pytest.mark.parametrize("name", ["so400m", "base"])
def test_section_3_5(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.optimizer == Optimizer(
        lr=3e-4, final_lr=3e-5, warmup_steps=2000, cooldown=1.0, encoder_lr_ratio=0.1, betas=(0.9, 0.95),
        weight_decay=0.1, ema=0.9999,
    )  # fmt: skip
    losses = recipe.losses
    assert (losses.reconstruction, losses.semantic, losses.kl) == (0.2, 1.0, 1e-8)
    assert (losses.l1, losses.lpips, losses.gram, losses.clip, losses.temperature) == (1.0, 10.0, 1e3, 1.0, 2.0)
    # Nothing beside the paper's terms.
    assert (losses.log_mse, losses.voxels, losses.adversarial) == (0.0, 0.0, 0.0)
    assert [stage.latents for stage in recipe.stages] == [32, 48, 48, 48]
    ranges = {
        "image_text": (8192, 8192),
        "image_recon": (1024, 4096),
        "video_recon": (512, 1024),
        "asset_recon": (256, 512),
    }
    for stage in recipe.stages:
        assert "image_text" in stage.tasks
        for task, (low, high) in ranges.items():
            assert task not in stage.tasks or low <= stage.tasks[task].samples <= high
    videos = [stage.tasks for stage in recipe.stages[1:]]
    assert {tasks["video_recon"].frames for tasks in videos} == {(16, 32)}
    assert {tasks["video_recon"].strides for tasks in videos} == {((1, 3), (4, 12))}
    assert {(tasks["video_text"].fps, tasks["video_text"].frames[1]) for tasks in videos} == {(1.0, 64)}
