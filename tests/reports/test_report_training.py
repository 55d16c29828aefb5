"""Pages of trainings and ablations: what is read, what is drawn, what is refused."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_runs import make_run
from fake_trainings import EXPERIMENTS, GAN, IMAGES, STAGES, entry, make_gan, make_scaling, make_training, write_record
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import BenchError
from reports import paper
from reports.build import Report, build
from reports.command import FORMATS, report, write
from reports.curves import HEIGHT, WIDTH
from reports.records import read_all
from reports.training import Span, Studies, read_studies
from reports.training_ablation import context, measured
from reports.training_charts import MOST_POINTS, Input, chart
from reports.training_page import JUDGEMENT, LOSSES, PACE, VALIDATION, curves_of, facts, mishaps
from reports.training_printed import printed
from reports.training_site import Site
from reports.training_stages import StageInput, stage_chart

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ablations, a training of its own that is going on, and a run that belongs to none."""
    runs = tmp_path_factory.mktemp("trainings") / "runs"
    make_gan(runs)
    make_scaling(runs)
    make_training(runs / "my-training", done=180)
    make_run(runs, "jpeg:75")
    return runs


@pytest.fixture(scope="module")
def made(template: Path) -> Report:
    return build(read_all(template), EXPERIMENTS, read_studies(template))


@pytest.fixture(scope="module")
def out(made: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report-of-trainings")
    write(made, folder, FORMATS)
    return folder


def text_of(path: Path) -> str:
    """Without tags, spaces single."""
    page = path.read_text(encoding="utf-8")
    return " ".join(re.sub(r"<[^>]+>", " ", page[page.index("<main") :]).split())


# Reading.


def test_steps_count_over_all_stages(template: Path) -> None:
    training = next(one for one in read_studies(template).trainings if one.name == "my-training")
    assert [(span.name, span.start, span.steps, span.done) for span in training.spans] == [
        ("image-foundation", 0, 100, 100),
        ("video-dynamics", 100, 150, 80),
        ("geometry", 250, 50, 0),
    ]
    raw = [json.loads(line) for line in (training.folder / "log.jsonl").read_text().splitlines()]
    wanted = [(line["step"] + 100 * (line["stage"] == 2), line["lr"]) for line in raw if "lr" in line]
    assert training.points("lr") == wanted
    assert [step for step, _ in training.points("val_clips_psnr")] == [125, 150, 175]
    assert training.points("no such") == []
    assert "task" not in training.logged()


def test_what_is_not_finite_and_what_was_replaced(tmp_path: Path) -> None:
    extra = [
        {"stage": 1, "step": 200, "image_recon/l1": "nan", "grad_norm": "inf", "skipped": 2, "replaced": 1},
        {"stage": 1, "step": 200, "replaced": "photo.png: truncated"},
    ]
    make_training(tmp_path / "run", stages=IMAGES, extra=extra)
    (training,) = read_studies(tmp_path).trainings
    assert math.isnan(training.points("image_recon/l1")[-1][1])
    assert training.points("grad_norm")[-1] == (200, math.inf)
    assert mishaps(training) == [
        "2 steps had no finite gradient and changed nothing",
        "1 sample could not be used and had another in its place",
    ]
    drawn = curves_of([("run", 0, training)])
    (norm,) = [one for one in drawn[PACE] if one.title.startswith("Length of the gradient")]
    assert norm.summary.endswith("; 1 value not finite")


def test_an_unfinished_last_line_is_left_out_and_a_broken_one_named(tmp_path: Path) -> None:
    folder = make_training(tmp_path / "run", stages=IMAGES)
    log = folder / "log.jsonl"
    whole = log.read_text()
    log.write_text(whole + '{"stage": 1, "ste')
    assert len(read_studies(tmp_path).trainings[0].lines) == len(whole.splitlines())
    log.write_text("{}\n" + whole)
    with pytest.raises(BenchError, match=r"log\.jsonl: line 1 is no line of a training's log"):
        read_studies(tmp_path)
    log.write_bytes(b"\xff\xfe")
    with pytest.raises(BenchError, match=r"log\.jsonl: cannot be read"):
        read_studies(tmp_path)


@pytest.mark.parametrize("content", [None, "no: stages", "[1]", "stages: {a: {steps: many}}", "{"])
def test_a_recipe_that_is_none_is_named(tmp_path: Path, content: str | None) -> None:
    folder = make_training(tmp_path / "run", stages=IMAGES)
    if content is None:
        (folder / "recipe.yaml").unlink()
    else:
        (folder / "recipe.yaml").write_text(content)
    with pytest.raises(BenchError, match=r"recipe\.yaml: not the recipe of a training"):
        read_studies(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"variants": [{"name": "l1"}]}, "damaged record .missing 'stages'"),
        ({"variants": [entry(GAN.variants[0], folder="../../elsewhere")]}, "is no folder beside it"),
        ({"schema": 99}, "newer version"),
        ({"schema": None}, "not the record of an ablation"),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    write_record(tmp_path, GAN, [])
    path = tmp_path / "ablation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BenchError, match=rf"ablation\.json: .*{said}"):
        read_studies(tmp_path)


@pytest.mark.parametrize(("official", "title"), [(True, "L1"), (False, "L1 (unofficial weights)")])
def test_a_trunk_that_is_not_the_published_one_is_in_the_name(tmp_path: Path, official: bool, title: str) -> None:
    write_record(tmp_path, GAN, [entry(GAN.variants[0], vgg={"sha256": "cd" * 32, "official": official})])
    (run,) = read_studies(tmp_path).ablations
    assert [variant.title for variant in run.variants] == [title]


# Charts.

SPANS = (Span(number=1, name="one", start=0, steps=100, done=100),)


def places(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path)]


@given(
    st.lists(
        st.tuples(st.integers(1, 100), st.floats(-1e12, 1e12, allow_subnormal=False)),
        min_size=2,
        unique_by=lambda p: p[0],
    )
)
def test_a_curve_lies_within_its_chart_and_its_labels_tell_its_values(points: list[tuple[int, float]]) -> None:
    made = chart("x", [Input(name="a", points=sorted(points))], SPANS)
    assert made is not None
    drawn = places(made.series[0].path)
    assert all(0 <= x <= WIDTH and -0.01 <= y <= HEIGHT + 0.01 for x, y in drawn)
    assert [round(x / WIDTH * 100) for x, _ in drawn] == [step for step, _ in sorted(points)]
    # The higher the value, the higher it stands.
    order = sorted(zip((value for _, value in sorted(points)), (y for _, y in drawn), strict=True))
    assert all(lower[1] >= upper[1] - 0.011 for lower, upper in itertools.pairwise(order))
    heights = [place for place, _ in made.y]
    assert heights == sorted(heights)
    assert len({text for _, text in made.y}) == len(made.y)


def test_a_wide_range_is_drawn_by_its_logarithm() -> None:
    points = [(step, 10.0 ** (step / 25)) for step in (25, 50, 75, 100)]
    made = chart("x", [Input(name="a", points=points)], SPANS)
    assert made is not None
    assert [y for _, y in places(made.series[0].path)] == pytest.approx([100, 66.67, 33.33, 0], abs=0.01)
    assert [text for _, text in made.y] == ["10", "100", "1,000", "10,000"]


def test_a_long_log_is_drawn_as_means() -> None:
    points = [(step, float(step % 2)) for step in range(1, 10 * MOST_POINTS + 1)]
    spans = (Span(number=1, name="one", start=0, steps=len(points), done=0),)
    made = chart("x", [Input(name="a", points=points)], spans)
    assert made is not None
    data = json.loads(made.data)
    assert len(data["steps"]) == MOST_POINTS
    assert data["values"] == [[0.5] * MOST_POINTS]


def test_what_the_script_reads_is_what_is_drawn() -> None:
    one, other = [(10, 1.0), (20, math.nan), (30, 3.0)], [(10, 5.0), (40, 6.0)]
    made = chart("x", [Input(name="a", points=one), Input(name="b", points=other, slot=7, dashed=True)], SPANS)
    assert made is not None
    assert json.loads(made.data) == {"x": [10, 30, 40], "steps": [10, 30, 40], "values": [[1, 3, None], [5, None, 6]]}
    assert [(s.name, s.slot, s.dashed, s.last) for s in made.series] == [
        ("a", 0, False, "3.000"),
        ("b", 1, True, "6.000"),
    ]
    assert made.summary == "a 3.000 at step 30, b 6.000 at step 40; 1 value not finite"


def test_nothing_finite_is_no_chart() -> None:
    assert chart("x", [Input(name="a", points=[(1, math.nan)])], SPANS) is None
    assert chart("x", [], SPANS) is None


def test_figures_over_stages_stand_with_their_intervals() -> None:
    values = [(0, 20.0, (19.0, 21.0)), (1, 24.0, None)]
    made = stage_chart("PSNR↑", [StageInput(name="nano", slot=1, values=values)], ["1 a", "2 b"], unit="dB", decimals=2)
    assert made is not None
    first, second = made.marks
    assert (first.left, second.left) == (25, 75)
    low, high = made.y[0][1], made.y[-1][1]
    for mark, value in ((first.bottom, 20), (first.low, 19), (first.high, 21), (second.bottom, 24)):
        assert mark == pytest.approx(100 * (value - float(low)) / (float(high) - float(low)))
    assert second.low is second.high is None
    assert first.text == "nano, 1 a: 20.00 dB [19.00, 21.00]"
    single = [StageInput(name="nano", slot=0, values=values[:1])]
    assert stage_chart("PSNR↑", single, ["1 a"], unit="dB", decimals=2) is None


# What a page says.


def test_all_that_was_logged_has_a_chart(template: Path) -> None:
    trainings = {one.name: one for one in read_studies(template).trainings}
    whole = curves_of([("nano", 0, trainings["nano"])])
    assert [one.title for one in whole[VALIDATION]] == [
        *("PSNR of images", "PSNR of clips", "PSNR of assets", "PSNR of bikes"),
    ]
    assert [one.title for one in whole[LOSSES]][:3] == ["images: weighted sum", "images: L1", "images: KL"]
    assert {one.title for one in whole[LOSSES]} > {"videos: L1", "assets: KL"}
    assert JUDGEMENT not in whole
    judged = curves_of([("l1", 0, trainings["l1"]), ("gan", 1, trainings["l1-gan"])])
    logits, losses = judged[JUDGEMENT]
    assert [(one.name, one.slot, one.dashed) for one in logits.series] == [
        ("gan: real", 1, False),
        ("gan: rebuilt", 1, True),
    ]
    assert losses.series[0].last == "0.100"
    assert [one.name for one in judged[VALIDATION][0].series] == ["l1", "gan"]


def test_borders_stand_where_stages_begin(template: Path) -> None:
    training = next(one for one in read_studies(template).trainings if one.name == "nano")
    (first, *_) = curves_of([("nano", 0, training)])[VALIDATION]
    names = [name for name, _, _ in STAGES]
    assert [name for _, name in first.borders] == names
    assert [place for place, _ in first.borders] == pytest.approx([0, 100 / 3, 250 / 3])


def test_a_table_for_each_experiment_with_its_best_and_its_reasons(made: Report) -> None:
    records = {(record.folder / "record.json").resolve(): record for record in made.records}
    runs = {run.name: run for run in made.studies.ablations}
    (images,) = measured(runs["ablation-gan-vs-gram"], records, EXPERIMENTS)
    assert [metric.name for metric in images.metrics] == ["PSNR", "SSIM", "LPIPS", "rFID"]
    assert [(row.variant, row.record is None) for row in images.rows] == [
        ("L1", False),
        ("L1 + GAN", False),
        ("L1 + LPIPS + Gram", True),
    ]
    psnr = [row.figures[0] for row in images.rows]
    assert [figure.best for figure in psnr] == [True, False, False]
    assert psnr[2].cell is not None
    assert psnr[2].cell.absent == "no vgg16-397923af.pth; give it"
    assert images.rows[0].figures[3].cell is not None
    assert "pt_inception" in str(images.rows[0].figures[3].cell.absent)
    assert not images.several
    assert images.charts == ()

    photos, clips, assets = measured(runs["ablation-scaling"], records, EXPERIMENTS)
    assert [row.stage for row in photos.rows[:3]] == ["1 image-foundation", "2 video-dynamics", "3 geometry"]
    assert [one.title for one in photos.charts] == ["PSNR↑", "SSIM↑", "LPIPS↓"]
    assert {row.place for row in clips.rows} == {1, 2}
    assert assets.metrics == ()
    assert [row.absent for row in assets.rows] == ["needs a renderer"] * 2


def test_a_record_whose_folder_is_gone_is_absent(made: Report) -> None:
    (run,) = [run for run in made.studies.ablations if run.name == GAN.name]
    (images,) = measured(run, {}, EXPERIMENTS)
    assert "is gone" in str(images.rows[0].absent)


def test_gram_against_lpips_is_told_at_both_ends(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "ablation-x" / "a"
    terms, losses = ("l1", "lpips", "gram"), {"lpips": 10.0, "gram": 1000.0}
    make_training(folder / "gram", stages=IMAGES, terms=terms, losses=losses)
    write_record(folder, GAN, [entry(GAN.variants[2])])
    make_training(folder / "l1", stages=IMAGES)
    write_record(folder, GAN, [entry(GAN.variants[2]), entry(GAN.variants[0])])
    (run,) = read_studies(tmp_path / "runs").ablations
    gram, plain = context(run, {}, {})["variants"]
    lines = [json.loads(line) for line in (folder / "gram" / "log.jsonl").read_text().splitlines()]
    ratios = [100 * line["image_recon/gram"] / line["image_recon/lpips"] for line in lines if "task" in line]
    assert gram["gram"] == pytest.approx((ratios[0], ratios[-1]))
    assert plain["gram"] is None


def test_printed_figures_name_their_place_and_tables_agree() -> None:
    assert {one.text for one in printed("ablation-scaling")} >= {"0.258", "0.323", "0.483", "0.209", "32.51", "33.11"}
    assert [one.text for one in printed("ablation-gan-vs-gram")] == ["≈13.4%", "≈86.6%"]
    assert printed("no such ablation") == ()
    stages = printed("ablation-stages")
    table = paper.load("table04")
    column = table.column("ImageNet", "rFID↓")
    rows = {row.method: row.values[column] for row in table.rows if row.family == "AToken-So/C"}
    told = {one.what.rpartition(", ")[2]: one.text for one in stages if one.what.startswith("ImageNet rFID")}
    assert told == rows
    assert told["Stage 1"] == next(one.text for one in printed("ablation-scaling") if one.what.endswith("So400m"))


def test_a_recipe_is_told_whole(template: Path) -> None:
    training = next(one for one in read_studies(template).trainings if one.name == "nano")
    told = {fact["title"]: dict(fact["rows"]) for fact in facts(training)}
    assert told["Recipe"]["model"] == "nano"
    assert told["Losses"]["gram_form"] == "G1"
    assert told["Stage 2: video-dynamics"]["video_recon"] == {"samples": 8}


# The report.


def test_every_page_is_written_and_linked(made: Report, out: Path) -> None:
    site = Site(made)
    index = (out / "index.html").read_text()
    for run in made.studies.ablations:
        assert f'href="{site.page_of(run)}"' in index
        page = (out / site.page_of(run)).read_text()
        for variant in run.trained:
            assert variant.training is not None
            assert f'href="../{site.page_of(variant.training)}"' in page
        copied = (out / site.page_of(run)).with_suffix(".json").read_text()
        assert copied == (run.folder / "ablation.json").read_text()
    own = [one for one in made.studies.trainings if one.name == "my-training"]
    assert f'href="{site.page_of(own[0])}"' in index
    assert "l1-gan" not in index[index.index("Other trainings") :]
    for path in (*(out / "ablations").glob("*.html"), *(out / "trainings").glob("*.html")):
        for href in re.findall(r'(?:href|src)="([^"#:]+)"', path.read_text()):
            assert (path.parent / href).exists(), f"{path.name}: {href}"
    assert len(list((out / "trainings").glob("*.jsonl"))) == len(made.studies.trainings)


def test_an_ablation_says_what_it_redoes_with_the_papers_figures_apart(out: Path) -> None:
    text = text_of(next((out / "ablations").glob("ablation-scaling*.html")))
    assert "Ablation, after the paper's Figure 7" in text
    assert "100 + 150 + 50 steps" in text
    assert "Trained on every second sample photograph, measured on the others." in text
    told = text[text.index("What the paper prints") : text.index("Curves")]
    assert "ImageNet rFID, Stage 1, Base 0.323 section 4.5 (Figure 7b prints 0.328)" in told
    assert "0.323" not in text.replace(told, "")
    assert "pico : needs a renderer" in text.replace(" , 3 geometry", "")


def test_models_of_an_ablation_have_its_names_in_other_tables(made: Report) -> None:
    titles = {record.title for record in made.records}
    assert titles >= {"AToken nano (aa): L1", "AToken nano (bb): L1 + GAN", "AToken nano (pico2): pico, stage 2"}
    assert "JPEG, quality 75" in titles


def test_a_report_of_trainings_alone(tmp_path: Path) -> None:
    make_training(tmp_path / "runs" / "mine", stages=IMAGES)
    said: list[str] = []
    report(tmp_path / "runs", tmp_path / "report", FORMATS, said.append)
    assert (tmp_path / "report" / "trainings" / "mine.html").is_file()
    assert "Training runs" in (tmp_path / "report" / "index.html").read_text()


def test_ablations_are_no_tables_of_the_first_page(made: Report, out: Path) -> None:
    assert GAN.name not in {comparison.experiment.name for comparison in made.comparisons}
    assert 'id="ablation-gan-vs-gram"' not in (out / "index.html").read_text()
    assert build([], {}).studies == Studies()


def test_reading_trainings_needs_no_torch() -> None:
    program = "import sys, reports.training_site, reports.html; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# In a browser.


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium on the PATH (Debian: apt install chromium)")
    with playwright.sync_playwright() as tools:
        started = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_chart_tells_its_values_under_the_pointer(out: Path, browser: Any, width: int, scheme: str) -> None:
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.goto(next((out / "ablations").glob("ablation-gan*.html")).as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    chart = page.locator(".curve[data-chart]", has_text="PSNR of images")
    before = chart.locator(".last").all_inner_texts()
    area = chart.locator(".plot-area")
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    data = json.loads(chart.get_attribute("data-chart"))
    place = data["steps"].index(100)
    page.mouse.move(box["x"] + box["width"] * data["x"][place] / 100, box["y"] + 30)
    assert chart.locator(".at-step").inner_text() == "step 100"
    assert [float(text) for text in chart.locator(".last").all_inner_texts()] == [row[place] for row in data["values"]]
    page.mouse.move(5, 5)
    assert chart.locator(".last").all_inner_texts() == before
    # Two series can be told apart, and both from the ground.
    colours = page.eval_on_selector_all("path.series", "all => [...new Set(all.map(p => getComputedStyle(p).stroke))]")
    assert len(colours) == 2
    assert wrong == []
    page.close()
