"""A run that drew its vectors has the picture on its page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_guesses import WITH_CLASSES, make_guess_run

from harness.errors import BenchError
from reports.build import build
from reports.command import write
from reports.records import read_all


def drawn(runs: Path, file: str = "figure.json") -> None:
    folder = make_guess_run(runs)
    panel = {"name": "features", "title": "encoder features", "width": 384, "perplexity": 5.0}
    panels = [
        {**panel, "points": [[-1.0, 0.5], [0.25, 0.0]]},
        {**panel, "name": "latents", "title": "latents", "width": 48, "points": None, "perplexity": None},
    ]
    figure = {"schema": 1, "classes": ["tench", "<i>shark</i>"], "labels": [0, 1], "ids": ["a", "b"], "panels": panels}
    (folder / "figure.json").write_text(json.dumps(figure))
    record = json.loads((folder / "record.json").read_text())
    record["figure"] = {"file": file, "sha256": "00"}
    (folder / "record.json").write_text(json.dumps(record))


def test_the_picture_and_its_classes_are_on_the_page(tmp_path: Path) -> None:
    drawn(tmp_path / "runs")
    out = tmp_path / "out"
    out.mkdir()
    write(build(read_all(tmp_path / "runs"), WITH_CLASSES), out, ("html",))
    (page,) = (out / "runs").glob("*.html")
    text = page.read_text()
    assert text.count('<svg class="scatter"') == 1
    assert "Encoder features</b> 384 numbers, perplexity 5" in text
    assert "Too few images for t-SNE." in text
    assert "&lt;i&gt;shark&lt;/i&gt;" in text
    assert "<i>shark" not in text


@pytest.mark.parametrize(
    ("file", "said"), [("../figure.json", "outside the run's folder"), ("none.json", "run it again")]
)
def test_a_figure_that_is_not_there_is_said(file: str, said: str, tmp_path: Path) -> None:
    drawn(tmp_path / "runs", file)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(BenchError, match=said):
        write(build(read_all(tmp_path / "runs"), WITH_CLASSES), out, ("html",))
