"""Table 4 from records and the paper: what stands where, what is bold, what a name says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from fake_runs import EXPERIMENTS, IMAGE_RECON, cell, make_run

from harness.experiment import Experiment
from reports.build import Report, build
from reports.model import Comparison, Figure, Line, Panel
from reports.protocols import spreads
from reports.records import read_all
from reports.tables import compare


def table4(runs: Path) -> Comparison:
    return compare(IMAGE_RECON, read_all(runs))[0]


def panel(comparison: Comparison, dataset: str) -> Panel:
    return next(panel for panel in comparison.panels if panel.dataset == dataset)


def line(panel: Panel, name: str, section: str = "") -> Line:
    return next(line for line in panel.lines if line.name == name and section in line.section)


def figure(panel: Panel, name: str, metric: str, section: str = "") -> Figure:
    place = [m.name for m in panel.metrics].index(metric)
    return line(panel, name, section).figures[place]


def test_a_measured_row_of_the_paper_stands_beside_its_printed_figures(made: Report) -> None:
    imagenet = panel(made.comparisons[0], "imagenet-val")
    psnr = figure(imagenet, "AToken-So/C / Stage 3", "PSNR")
    assert psnr.printed is not None
    assert psnr.value is not None
    assert psnr.printed.text == "29.72"
    assert psnr.difference == psnr.value - 29.72
    stage3 = line(imagenet, "AToken-So/C / Stage 3")
    assert stage3.n == "12 / 50,000"
    assert stage3.badges == ("n = 12 of 50,000",)
    assert sum(row.record is not None for row in imagenet.lines) == 2
    assert len(imagenet.lines) == 21


def test_two_rows_of_one_name_are_told_apart_by_token_type(made: Report) -> None:
    imagenet = panel(made.comparisons[0], "imagenet-val")
    assert line(imagenet, "OmniTokenizer", "Discrete").record is not None
    assert line(imagenet, "OmniTokenizer", "Continuous").record is None
    assert figure(imagenet, "OmniTokenizer", "PSNR", "Discrete").printed_best is False


def test_a_second_table_gets_the_last_stage_and_no_other_data(made: Report) -> None:
    table3 = made.comparisons[1]
    assert table3.table is not None
    assert table3.table.name == "table03"
    assert [p.dataset for p in table3.panels] == ["imagenet-val"]
    psnr = figure(table3.panels[0], "AToken-So/C", "PSNR")
    assert (psnr.value is not None, psnr.printed and psnr.printed.text) == (True, "29.72")


def test_other_data_never_stands_in_the_papers_columns(made: Report) -> None:
    comparison = made.comparisons[0]
    assert [p.dataset for p in comparison.panels] == ["imagenet-val", "samples", "coco-val2017"]
    for shown in comparison.panels:
        assert all(record.dataset["name"] == shown.dataset for record in shown.measured)
    samples = panel(comparison, "samples")
    assert samples.printed is None
    assert all(f.printed is None and f.difference is None for row in samples.lines for f in row.figures)


def test_a_card_that_claims_a_paper_row_on_other_data_gets_no_printed_figure(tmp_path: Path) -> None:
    make_run(tmp_path, "atoken:so-c.pt", dataset="samples")
    samples = panel(table4(tmp_path), "samples")
    assert [row.name for row in samples.lines] == ["AToken-So/C"]
    assert samples.lines[0].figures[0].printed is None


def test_tokenizers_that_the_paper_does_not_print_come_below_it(tmp_path: Path) -> None:
    make_run(tmp_path, "jpeg:75", dataset="coco-val2017", expected=12)
    coco = panel(table4(tmp_path), "coco-val2017")
    assert coco.lines[-1].name == "JPEG, quality 75"
    assert coco.lines[-1].section == "Measured here, not in the paper: Reference rows"
    assert coco.lines[-1].badges == ()


def test_a_card_that_names_no_row_of_the_table_is_said(tmp_path: Path) -> None:
    make_run(tmp_path, "x", dataset="coco-val2017", expected=12, card={"title": "mine", "paper_row": "SD VAE"})
    coco = panel(table4(tmp_path), "coco-val2017")
    assert coco.notes == ("mine names the paper's row 'SD VAE', which table 4 does not have.",)
    assert coco.lines[-1].section == "Measured here, not in the paper: Continuous tokenizers"


def test_unofficial_weights_fill_no_column_of_the_paper(tmp_path: Path) -> None:
    cells = [cell("PSNR", 29.0, 12, True), cell("LPIPS (unofficial weights)", 0.05, 12, False)]
    make_run(tmp_path, "atoken:so-c.pt", dataset="imagenet-val", expected=12, changes={"cells": cells})
    imagenet = panel(table4(tmp_path), "imagenet-val")
    lpips = figure(imagenet, "AToken-So/C / Stage 3", "LPIPS")
    assert (lpips.value, lpips.difference, lpips.printed and lpips.printed.text) == (None, None, "0.085")
    assert lpips.cell is not None
    assert lpips.cell.absent == "measured with other weights than the published ones: see LPIPS (unofficial weights)"
    place = [m.name for m in imagenet.further].index("LPIPS (unofficial weights)")
    assert line(imagenet, "AToken-So/C / Stage 3").further[place].value == 0.05


def part(n: int, ids: str) -> dict[str, object]:
    dataset = {"name": "samples", "title": "Photographs", "count": 16, "expected": 16}
    samples = {"expected": 16, "selected": n, "used": n, "failed": []}
    return {"dataset": {**dataset, "ids_sha256": ids * 64, "content_sha256": ids * 64}, "samples": samples}


def test_parts_of_a_dataset_have_panels_of_their_own(tmp_path: Path) -> None:
    make_run(tmp_path, "dct:48", n=6, changes=part(6, "a"))
    make_run(tmp_path, "dct:48", n=16, changes=part(16, "f"))
    make_run(tmp_path, "dct:48", n=6, changes=part(6, "b"))
    panels = table4(tmp_path).panels[:3]
    assert [p.title for p in panels] == [
        "Photographs",
        "Photographs, 6 of 16 aaaaaaaa",
        "Photographs, 6 of 16 bbbbbbbb",
    ]
    slugs = [p.slug.removeprefix("image-recon-") for p in panels]
    assert slugs == ["samples", "samples-aaaaaaaa", "samples-bbbbbbbb"]


def test_without_runs_the_paper_stands_alone() -> None:
    comparison = compare(IMAGE_RECON, [])[0]
    assert [(p.dataset, len(p.lines), p.measured) for p in comparison.panels] == [
        ("imagenet-val", 21, ()),
        ("coco-val2017", 21, ()),
    ]


def test_rows_of_samples_are_grouped_and_identity_leads_the_reference_rows(made: Report) -> None:
    rows = [(row.section, row.name) for row in panel(made.comparisons[0], "samples").lines]
    assert rows == [
        ("Continuous tokenizers", "atoken-nano"),
        ("Reference rows", "identity"),
        ("Reference rows", "DCT, 48 of 768"),
        ("Reference rows", "JPEG, quality 10"),
        ("Reference rows", "JPEG, quality 75"),
    ]


def best(panel: Panel, metric: str) -> list[str]:
    return [row.name for row in panel.lines if figure(panel, row.name, metric).best]


def tokenizer(title: str) -> dict[str, object]:
    return {"name": title, "title": title, "token_type": "VAE"}


def test_best_is_by_direction_among_comparable_tokenizers(tmp_path: Path) -> None:
    make_run(tmp_path, "identity")
    make_run(tmp_path, "a", card=tokenizer("low"), shift=-5)
    make_run(tmp_path, "b", card=tokenizer("high"))
    samples = panel(table4(tmp_path), "samples")
    assert best(samples, "PSNR") == ["high"]
    assert set(best(samples, "LPIPS")) == {"low", "high"}  # equal figures are best together
    assert best(samples, "rFID") == []


@pytest.mark.parametrize("other", [{"n": 6}, {"protocol": "adm"}, {"card": tokenizer("vq") | {"token_type": "VQ"}}])
def test_what_does_not_compare_is_not_ranked(tmp_path: Path, other: dict[str, object]) -> None:
    make_run(tmp_path, "a", card=tokenizer("low"), shift=-5)
    make_run(tmp_path, "b", **({"card": tokenizer("high")} | other))  # type: ignore[arg-type]
    assert best(panel(table4(tmp_path), "samples"), "PSNR") == []


def test_reference_rows_are_never_best(made: Report) -> None:
    for comparison in made.comparisons:
        for shown in comparison.panels:
            for row in shown.lines:
                if row.record is not None and row.record.kind == "reference":
                    assert not any(f.best for f in row.figures + row.further)


def test_another_protocol_is_said_in_the_name_and_gives_way_to_the_default(tmp_path: Path) -> None:
    make_run(tmp_path, "dct:48", protocol="adm")
    samples = panel(table4(tmp_path), "samples")
    assert samples.lines[0].badges == ("protocol adm",)
    make_run(tmp_path, "dct:48")
    samples = panel(table4(tmp_path), "samples")
    assert [row.badges for row in samples.lines] == [()]
    assert samples.notes == ("1 further run under other protocols: see Protocols and Runs.",)


def test_the_run_with_most_samples_stands(tmp_path: Path) -> None:
    make_run(tmp_path, "dct:48", n=4, dataset="imagenet-val", expected=20)
    make_run(tmp_path, "dct:48", n=8, dataset="imagenet-val", expected=20)
    imagenet = panel(table4(tmp_path), "imagenet-val")
    assert imagenet.lines[-1].n == "8 / 20"
    assert imagenet.notes == (
        "1 further run of the same tokenizer and protocol with fewer samples or earlier: see Runs.",
    )


def test_precision_is_said_in_the_name(tmp_path: Path) -> None:
    settings = {"device": "cuda", "dtype": "bfloat16", "threads": 2, "token_budget": 1, "shards": 1, "seed": 0}
    make_run(tmp_path, "atoken")
    make_run(tmp_path, "atoken", changes={"settings": settings})
    assert [row.badges for row in panel(table4(tmp_path), "samples").lines] == [(), ("bfloat16",)]


def test_two_checkpoints_of_one_name_are_told_apart(tmp_path: Path) -> None:
    make_run(tmp_path, "atoken")
    make_run(tmp_path, "atoken", card={"weights_sha256": {"model.safetensors": "ef" * 32}})
    badges = {row.badges for row in panel(table4(tmp_path), "samples").lines}
    assert badges == {("weights abababab",), ("weights efefefef",)}


def test_two_settings_of_one_tokenizer_are_told_apart(tmp_path: Path) -> None:
    for basis in ("ab" * 32, "cd" * 32):
        make_run(tmp_path, "dct:48", card={"settings": {"padding": "reflect", "basis_sha256": basis}})
    badges = {row.badges for row in panel(table4(tmp_path), "samples").lines}
    assert badges == {("basis_sha256 abababababab",), ("basis_sha256 cdcdcdcdcdcd",)}


def test_a_tokenizer_that_loses_to_a_transform_of_its_size_says_so(tmp_path: Path) -> None:
    make_run(tmp_path, "dct:48", shift=20)
    make_run(tmp_path, "atoken")
    nano = line(panel(table4(tmp_path), "samples"), "atoken-nano")
    assert nano.badges == ("loses to DCT, 48 of 768 in PSNR, SSIM",)


@pytest.mark.parametrize("other", [{"protocol": "adm"}, {"n": 5}, {"card": {"latent_size": 64}}, {"shift": -20}])
def test_only_a_comparable_better_transform_is_named(tmp_path: Path, other: dict[str, object]) -> None:
    make_run(tmp_path, "dct:48", **({"shift": 20} | other))  # type: ignore[arg-type]
    make_run(tmp_path, "atoken")
    assert line(panel(table4(tmp_path), "samples"), "atoken-nano").badges == ()


def test_two_versions_of_a_protocol_are_told_apart_by_hash(tmp_path: Path) -> None:
    make_run(tmp_path, "dct:48")
    other = {"name": "paper", "version": 2, "sha256": "f" * 64, "content": {"prepare": "rgb"}}
    make_run(tmp_path, "jpeg:75", changes={"protocol": other})
    badges = [row.badges for row in panel(table4(tmp_path), "samples").lines]
    assert ("protocol paper ffffffff",) in badges
    assert all(len(said) == 1 for said in badges)


def test_every_other_cell_is_further(made: Report) -> None:
    names = [metric.name for metric in panel(made.comparisons[0], "samples").further]
    assert names[:2] == ["SSIM (scikit-image)", "bits per pixel"]
    assert "encode" in names


def test_an_experiment_without_a_table_shows_all_its_cells(tmp_path: Path) -> None:
    make_run(tmp_path, "dct:48")
    made = build(read_all(tmp_path), {})
    assert made.comparisons[0].table is None
    assert "not installed here" in made.comparisons[0].experiment.title
    assert [m.name for m in made.comparisons[0].panels[0].metrics][:2] == ["PSNR", "SSIM"]


def test_planned_experiments_make_no_comparison(made: Report) -> None:
    assert {comparison.experiment.name for comparison in made.comparisons} == {"image-recon"}


def spread(runs: Path, metric: str, experiment: Experiment = IMAGE_RECON) -> dict[str, float | None]:
    shown = spreads(experiment, read_all(runs))
    return {row.name: row.spread for s in shown[0].spreads if s.metric.name == metric for row in s.rows}


def test_the_spread_over_protocols(runs: Path) -> None:
    found = spread(runs, "PSNR")
    assert found["atoken-nano"] == pytest.approx(0.25)
    assert found["DCT, 48 of 768"] == pytest.approx(0.5)
    assert "JPEG, quality 75" not in found  # one protocol only
    shown = spreads(IMAGE_RECON, read_all(runs))[0]
    assert shown.spreads[0].protocols == ("paper", "adm")


def test_no_spread_between_different_numbers_of_samples(tmp_path: Path) -> None:
    make_run(tmp_path, "dct:48", n=4)
    make_run(tmp_path, "dct:48", n=6, protocol="adm")
    assert spread(tmp_path, "PSNR") == {"DCT, 48 of 768": None}


def test_slugs_are_unique(tmp_path: Path) -> None:
    for part in ("a", "b"):
        make_run(tmp_path / part, "dct:48")
    slugs = list(build(read_all(tmp_path), EXPERIMENTS).slugs.values())
    assert len(set(slugs)) == 2


def test_records_order_does_not_matter(runs: Path) -> None:
    def shown(records: Sequence[object]) -> object:
        return [
            [(row.name, row.badges, row.figures) for row in p.lines] for p in compare(IMAGE_RECON, records)[0].panels
        ]  # type: ignore[arg-type]

    records = read_all(runs)
    assert shown(records) == shown(records[::-1])
