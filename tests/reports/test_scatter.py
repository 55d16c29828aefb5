"""The points of Figure 8: every sample where it was laid out, every class told apart on light and dark paper."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from harness.errors import BenchError
from reports.scatter import HUES, SHAPES, SIZE, scatter

PAPERS = ("#fdfdfb", "#121518")


def written(place: Path, classes: int = 3, **changes: Any) -> Path:
    figure = {
        "schema": 1,
        "classes": [f"class <{index}>" for index in range(classes)],
        "labels": [index % classes for index in range(2 * classes)],
        "ids": [f"a/{index}&.png" for index in range(2 * classes)],
        "panels": [
            {
                "name": "pooled",
                "title": "pooled encoder features",
                "width": 8,
                "perplexity": 5.0,
                "points": [[index / classes - 1, 0.5] for index in range(2 * classes)],
            },
            {"name": "mean", "title": "mean", "width": 8, "perplexity": None, "points": None},
        ],
    } | changes
    path = place / "figure.json"
    path.write_text(json.dumps(figure))
    return path


def test_every_sample_is_where_it_was_laid_out(tmp_path: Path) -> None:
    drawn = scatter(written(tmp_path))
    pooled, mean = drawn.panels
    assert (mean.picture, mean.perplexity, pooled.width) == (None, None, 8)
    assert pooled.picture is not None
    root = ElementTree.fromstring(pooled.picture)  # names with < and & must not break it
    assert root.get("aria-label") == "t-SNE of pooled encoder features: 6 samples of 3 classes"
    assert [group.get("data-class") for group in root] == ["0", "1", "2"]
    places = {}
    for group in root:
        for path in group:
            x, y = re.findall(r"[\d.]+", str(path.get("transform")))
            places[path[0].text] = (float(x), float(y), int(str(group.get("data-class"))))
    assert sorted(places) == [f"a/{index}&.png" for index in range(6)]
    xs = [places[f"a/{index}&.png"][0] for index in range(6)]
    assert xs == sorted(xs)
    assert all(0 < x < SIZE and 0 < y < SIZE / 2 for x, y, _ in places.values())  # above the middle is up
    assert [places[f"a/{index}&.png"][2] for index in range(6)] == [0, 1, 2, 0, 1, 2]
    assert [name for _, name in drawn.legend] == ["class <0>", "class <1>", "class <2>"]


def test_no_two_classes_look_alike(tmp_path: Path) -> None:
    drawn = scatter(written(tmp_path, classes=len(HUES) * len(SHAPES)))
    marks = [str(mark) for mark, _ in drawn.legend]
    assert len(set(marks)) == len(marks) == 28


def _linear(colour: str) -> list[float]:
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]


def _luminance(colour: str) -> float:
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), _linear(colour), strict=True))


@pytest.mark.parametrize("paper", PAPERS)
@pytest.mark.parametrize("hue", HUES)
def test_points_stand_out_from_the_paper(hue: str, paper: str) -> None:
    light, dark = sorted((_luminance(hue), _luminance(paper)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) > 2


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
BLIND = {
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
}


@pytest.mark.parametrize("kind", BLIND)
def test_hues_are_told_apart_without_red_or_green(kind: str) -> None:
    seen = {hue: [sum(w * v for w, v in zip(row, _linear(hue), strict=True)) for row in BLIND[kind]] for hue in HUES}
    for one, other in combinations(HUES, 2):
        gap = sum((a - b) ** 2 for a, b in zip(seen[one], seen[other], strict=True)) ** 0.5
        assert gap > 0.08, (one, other, gap)


@pytest.mark.parametrize("changes", [{"labels": [0]}, {"labels": [9] * 6}, {"panels": [{}]}, {"ids": 3}])
def test_what_is_no_figure(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(BenchError, match=r"figure\.json: no figure can be read there .*; run it again"):
        scatter(written(tmp_path, **changes))
    with pytest.raises(BenchError, match="no figure can be read"):
        scatter(tmp_path / "nowhere.json")
