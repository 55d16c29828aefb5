"""What `sensitivity` says of records: spreads, differences, what cannot be compared, the paper's gaps, the files."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from fake_runs import EXPERIMENTS, IMAGE_RECON, cell, make_run
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.sensitivity import Outcome
from reports.sensitivity import Gaps, MetricSpread, Sensitivity, build, gaps
from reports.sensitivity_files import FIELDS, gap_sentence, rows, terminal, write
from reports.sensitivity_plot import WIDTH, plot

SVG = "{http://www.w3.org/2000/svg}"


def outcomes(runs: Path, spec: str, shifts: dict[str, float], **more: Any) -> list[Outcome]:
    """A run for each protocol but the last, which could not be measured."""
    made = [
        Outcome(protocol=name, folder=make_run(runs, spec, protocol=name, shift=shift, **more))
        for name, shift in shifts.items()
    ]
    return [*made, Outcome(protocol="native", folder=None, reason="Blender is <not> here")]


@pytest.fixture
def made(tmp_path: Path) -> Sensitivity:
    return build(IMAGE_RECON, outcomes(tmp_path, "jpeg:75", {"paper": 0.0, "lightningdit": 1.25, "adm": -0.5}))


def metric(made: Sensitivity, name: str) -> MetricSpread:
    return next(one for one in made.metrics if one.metric.name == name)


def test_spread_and_differences_to_the_default(made: Sensitivity) -> None:
    psnr = metric(made, "PSNR")
    assert [row.protocol for row in psnr.rows] == ["paper", "lightningdit", "adm", "native"]
    assert psnr.spread == pytest.approx(1.75)
    assert [row.difference for row in psnr.rows] == [None, pytest.approx(1.25), pytest.approx(-0.5), None]
    assert [row.apart for row in psnr.rows] == [None, None, None, "not measured"]
    assert made.unmeasured == {"native": "Blender is <not> here"}
    assert made.absent == {
        "needs pt_inception-2015-12-05.pth; put it into a folder and pass --weights FOLDER": ["rFID"],
        "the code of a continuous latent has no rate": ["bits per pixel"],
    }
    assert set(made.definitions) == {"paper", "lightningdit", "adm"}


def test_other_samples_and_other_names_are_said_and_not_compared(tmp_path: Path) -> None:
    few = make_run(tmp_path, "dct:48", protocol="adm", n=6, shift=9.0)
    failed = make_run(tmp_path, "dct:48", protocol="native", shift=5.0)
    record = json.loads((failed / "record.json").read_text())
    record["samples"]["failed"] = [{"id": "photo/012.jpg", "reason": "truncated"}]
    record["cells"] = [one if one["name"] != "SSIM" else {**one, "name": "SSIM (other)"} for one in record["cells"]]
    (failed / "record.json").write_text(json.dumps(record))
    made = build(
        IMAGE_RECON,
        [
            *outcomes(tmp_path, "dct:48", {"paper": 0.0, "lightningdit": 1.0})[:-1],
            Outcome(protocol="adm", folder=few),
            Outcome(protocol="native", folder=failed),
        ],
    )
    psnr = metric(made, "PSNR")
    assert psnr.spread == pytest.approx(1.0)
    assert [row.apart for row in psnr.rows] == [None, None, "of other samples (n = 6)", "of other samples (n = 12)"]
    assert [row.difference for row in psnr.rows][2:] == [None, None]
    assert metric(made, "SSIM").rows[3].apart == "has no metric of this name"
    assert [row.apart for row in metric(made, "SSIM (other)").rows[:3]] == ["has no metric of this name"] * 3
    assert metric(made, "SSIM (other)").spread is None


def test_parameters_that_differ_are_told(tmp_path: Path) -> None:
    folders = {name: make_run(tmp_path, "dct:48", protocol=name) for name in ("paper", "adm")}
    path = folders["adm"] / "record.json"
    record = json.loads(path.read_text())
    record["cells"][1] = cell("SSIM", 0.8, 12, True, parameters={"flavour": "uniform"})
    path.write_text(json.dumps(record))
    made = build(IMAGE_RECON, [Outcome(protocol=name, folder=folder) for name, folder in folders.items()])
    assert [row.settings for row in metric(made, "SSIM").rows] == ["flavour gaussian", "flavour uniform"]
    assert [row.settings for row in metric(made, "PSNR").rows] == ["", ""]


def test_what_is_infinite_has_no_spread(tmp_path: Path) -> None:
    made = build(IMAGE_RECON, outcomes(tmp_path, "identity", {"paper": 0.0, "adm": 0.0}))
    psnr = metric(made, "PSNR")
    assert (psnr.spread, {row.apart for row in psnr.rows[:2]}) == (None, {"not finite"})
    assert plot(made, psnr, alone=True) is None
    assert "No spread: fewer than two protocols" in terminal(made, color=False, width=110)
    assert metric(made, "SSIM").spread == 0.0


def test_the_papers_gaps_are_those_of_neighbours_in_its_table(repository: Path) -> None:
    (table4, table3) = gaps(IMAGE_RECON, "imagenet-val", "PSNR")
    with (repository / "reports" / "paper" / "table04.csv").open(newline="") as file:
        printed = [
            (row["group"], float(row["ImageNet / PSNR↑"]))
            for row in csv.DictReader(file)
            if row["ImageNet / PSNR↑"] != "-"
        ]
    expected = []
    for group in dict.fromkeys(group for group, _ in printed):
        figures = sorted(value for other, value in printed if other == group)
        expected += [round(figures[place + 1] - figures[place], 2) for place in range(len(figures) - 1)]
    assert table4.values == tuple(sorted(expected))
    assert (table4.table, table3.table) == ("Table 4", "Table 3")
    assert gaps(IMAGE_RECON, "samples", "PSNR") == []
    assert gaps(IMAGE_RECON, "imagenet-val", "KID") == []


def test_gaps_are_set_beside_the_spread_on_the_papers_data_alone(tmp_path: Path, made: Sensitivity) -> None:
    assert metric(made, "PSNR").gaps == ()
    on = outcomes(tmp_path, "atoken:so-c.pt", {"paper": 0.0, "adm": 1.0}, dataset="imagenet-val", expected=50_000)
    there = build(IMAGE_RECON, on)
    psnr = metric(there, "PSNR")
    said = gap_sentence(there, psnr, psnr.gaps[0])
    below = sum(gap < 1.0 for gap in psnr.gaps[0].values)
    assert said.startswith(
        f"{below} of {len(psnr.gaps[0].values)} gaps between neighbours in Table 4 (ImageNet / PSNR↑;"
    )
    assert "on 12 of 50,000 samples" in said


def test_a_gap_as_large_as_the_spread_is_not_smaller() -> None:
    gap = Gaps(table="Table 4", column="PSNR", values=(0.0, 0.5, 0.5, 2.0))
    assert (gap.below(0.5), gap.below(0.51), gap.median) == (1, 3, 0.5)


def test_files_say_the_same(made: Sensitivity, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    write(made, out)
    write(made, out)  # again, over what is there
    with (out / "sensitivity.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    figures = list(rows(made))
    assert json.loads((out / "sensitivity.json").read_text()) == figures
    assert list(read[0]) == list(FIELDS)
    assert [row["measured"] for row in read] == [
        "" if row["measured"] is None else repr(row["measured"]) for row in figures
    ]
    page = (out / "index.html").read_text()
    assert "Blender is &lt;not&gt; here" in page
    assert "<not>" not in page
    assert not re.search(r'(?:src|href)="(?!sensitivity\.|#|data:,)', page)
    assert "| paper (default) |" in (out / "sensitivity.md").read_text()
    for link in re.findall(r'href="(sensitivity\.\w+)"', page):
        assert (out / link).is_file()
    drawn = ElementTree.parse(out / "plots" / "psnr.svg").getroot()
    assert len(drawn.findall(f".//{SVG}circle")) == 3
    assert not (out / "plots" / "rfid.svg").exists()


def test_the_terminal_has_a_line_for_each_protocol(made: Sensitivity) -> None:
    text = terminal(made, color=False, width=110)
    assert "JPEG, quality 75 on Sample photographs (12 samples) under the protocols of image-recon" in text
    assert "Spread 1.75 dB over 3 protocols." in text
    assert "+1.25" in text
    assert "native: not measured: Blender is <not> here" in text
    assert "absent rFID: needs pt_inception" in text


@settings(deadline=None, max_examples=25)  # each writes a few files
@given(st.lists(st.floats(-1e5, 1e5), min_size=1, max_size=4))
def test_a_plot_stays_in_its_frame(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    runs = tmp_path_factory.mktemp("plots")
    record = json.loads((make_run(runs, "dct:48", n=3) / "record.json").read_text())
    found = []
    for place, (name, value) in enumerate(zip(IMAGE_RECON.protocols, values, strict=False)):
        folder = runs / str(place)
        folder.mkdir()
        record["cells"] = [cell("PSNR", value, 3, True, interval=[value - 1, value + 1])]
        record["protocol"]["name"] = name
        (folder / "record.json").write_text(json.dumps(record))
        found.append(Outcome(protocol=name, folder=folder))
    made = build(EXPERIMENTS["image-recon"], found)
    drawn = plot(made, made.metrics[0], alone=True)
    assert drawn is not None
    root = ElementTree.fromstring(drawn)
    places = [float(dot.attrib["cx"]) for dot in root.iter(f"{SVG}circle")]
    assert len(places) == len(values)
    assert all(0 <= x <= WIDTH for x in places)
    order = sorted(range(len(values)), key=values.__getitem__)
    assert [places[i] for i in order] == sorted(places)
    assert all(
        math.isfinite(float(one.attrib["x1"])) and 0 <= float(one.attrib["x1"]) <= WIDTH
        for one in root.iter(f"{SVG}line")
    )
