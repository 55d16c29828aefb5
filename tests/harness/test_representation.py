"""Figure 8: which samples are laid out, how far apart classes lie, and runs from a folder to a picture's data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from harness import protocol as protocols
from harness import registry
from harness.data.base import Sample
from harness.errors import BenchError
from harness.protocol import MetricSpec, Protocol
from harness.understanding.inner import KINDS, inner_vectors, kinds_of
from harness.understanding.measures import LABELS
from harness.understanding.representation_run import chosen
from harness.understanding.separability import Separability, build_structure_metrics, neighbours, silhouette
from tests.harness.conftest import Bench
from tests.harness.embedding_fakes import Colours, Tinted
from tests.harness.fakes import Noise

pytest.importorskip("sklearn", reason="needs scikit-learn, which is compared with")


def clusters(classes: int = 3, each: int = 8, spread: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    return np.eye(6)[labels] + spread * random.normal(size=(len(labels), 6)), labels


# -- Numbers ---------------------------------------------------------------------------------------


def test_silhouette_by_hand() -> None:
    """Two classes on two axes, one sample of the first at 45 degrees: as near to the one as to the other."""
    vectors = np.array([[1, 0], [2, 0], [1, 1], [0, 1], [0, 3]], np.float32)
    labels = np.array([0, 0, 0, 1, 1])
    near = 1 - np.sqrt(0.5)
    a = np.array([near / 2, near / 2, near, 0, 0])
    b = np.array([1, 1, near, (1 + 1 + near) / 3, (1 + 1 + near) / 3])
    assert silhouette(vectors, labels) == pytest.approx(float(np.mean((b - a) / np.maximum(a, b))), abs=1e-6)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_neighbours_are_those_of_leaving_one_out(k: int) -> None:
    from sklearn.model_selection import LeaveOneOut, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    vectors, labels = clusters(2, 20, spread=0.6)  # of two classes an odd k has no ties
    theirs = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
    wanted = cross_val_score(theirs, vectors, labels, cv=LeaveOneOut())
    assert 0.5 < wanted.mean() < 1
    assert np.array_equal(neighbours(vectors, labels, k), wanted == 1)


def test_a_tie_counts_against() -> None:
    vectors = np.array([[1, 0], [1, 0.1], [1, 0.2], [0, 1]])
    assert neighbours(vectors, np.array([0, 0, 1, 1]), 2).tolist() == [False] * 4
    assert neighbours(vectors, np.array([0, 0, 0, 1]), 2).tolist() == [True] * 3 + [False]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1.5))
def test_numbers_know_no_order_and_no_scale(seed: int, spread: float) -> None:
    vectors, labels = clusters(spread=spread, seed=seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    moved, names = 3 * vectors[order], 7 - labels[order]
    assert silhouette(moved, names) == pytest.approx(silhouette(vectors, labels), abs=1e-9)
    assert np.array_equal(neighbours(moved, names, 5), neighbours(vectors, labels, 5)[order])


def test_numbers_fall_as_classes_mix() -> None:
    found = [(silhouette(*clusters(spread=s)), neighbours(*clusters(spread=s), 5).mean()) for s in (0.01, 0.4, 3)]
    assert found == sorted(found, reverse=True)
    assert found[0] > (0.99, 0.99)
    assert found[-1][0] < 0.05


SPECS = (
    MetricSpec(metric="silhouette", name="s", options={"vectors": "pooled"}),
    MetricSpec(metric="neighbours", name="n", options={"vectors": "pooled", "k": 5}),
    MetricSpec(metric="silhouette", name="z", options={"vectors": "latent"}),
)


def test_cells_say_why_they_are_absent() -> None:
    vectors, labels = clusters()
    metric = Separability(SPECS)
    s, n, z = metric.cells({}, {"pooled": vectors, LABELS: labels}, seed=0)
    assert (s.n, n.value, n.unit, n.parameters["k"]) == (24, 100, "%", 5)
    assert (z.value, z.applies, z.absent) == (None, False, "this model has no latents, mean over tokens")
    s, n, _ = metric.cells({}, {"pooled": vectors[:5], LABELS: labels[:5]}, seed=0)
    assert s.absent is not None
    assert s.absent.startswith("5 samples of 1 classes")
    assert s.applies
    _, n, _ = metric.cells({}, {"pooled": vectors[6:10], LABELS: labels[6:10]}, seed=0)
    assert n.absent == "4 samples have no 5 neighbours each"


# -- Protocols -------------------------------------------------------------------------------------


def native(**rules: Any) -> Protocol:
    found = protocols.load("representation", "native")
    assert found.structure is not None
    return replace(found, structure=replace(found.structure, **rules))


def test_shipped_protocols_are_sound() -> None:
    experiment = registry.experiment("representation")
    assert set(experiment.protocols) == set(protocols.names("representation"))
    for name in experiment.protocols:
        protocol = protocols.load("representation", name)
        metrics, absent = build_structure_metrics(protocol)
        assert (len(metrics), absent) == (1, [])
        assert {spec.options["vectors"] for spec in protocol.metrics} == set(KINDS)
        assert Protocol.from_content(protocol.content(), name) == protocol


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"metric": "top-k"}, "no metric family 'top-k' of classes"),
        ({"options": {}}, "needs the options vectors, k and no others"),
        ({"options": {"vectors": "codes", "k": 1}}, "vectors is 'codes', not pooled or"),
        ({"options": {"vectors": "mean", "k": 0}}, "k is 0, not a whole number from 1 on"),
    ],
)
def test_a_metric_that_is_none(change: dict[str, Any], line: str) -> None:
    spec = MetricSpec(**{"metric": "neighbours", "name": "n", "options": {"vectors": "mean", "k": 1}, **change})
    with pytest.raises(BenchError, match=line):
        build_structure_metrics(replace(native(), metrics=(spec,)))
    with pytest.raises(BenchError, match="two metrics are called s"):
        build_structure_metrics(replace(native(), metrics=SPECS[:1] * 2))


@pytest.mark.parametrize(
    ("name", "value"),
    [("classes", 1), ("per_class", True), ("side", 0), ("steps", 10), ("perplexity", "30"), ("classes", None)],
)
def test_rules_that_are_none(name: str, value: Any) -> None:
    content = native().content()
    content["structure"][name] = value
    with pytest.raises(BenchError, match=rf"structure\.{name} is {value!r}"):
        Protocol.from_content(content, "x")
    del content["structure"][name]
    with pytest.raises(BenchError, match="structure needs the keys"):
        Protocol.from_content(content, "x")


# -- Samples ---------------------------------------------------------------------------------------


class Labelled(Noise):
    def __init__(self, samples: Sequence[Sample]) -> None:
        super().__init__(len(samples))
        self._samples = list(samples)


def set_of(*sizes: int) -> list[Sample]:
    return [Sample(f"{label}/{place}", label) for label, size in enumerate(sizes) for place in range(size)]


def test_the_choice_is_the_seeds_alone() -> None:
    samples = set_of(9, 9, 1, 9, 9, 9)
    protocol = native(classes=3, per_class=4)
    ids = chosen(Labelled(samples), protocol)
    assert ids == sorted(ids)
    counts = {label: sum(id_.startswith(f"{label}/") for id_ in ids) for label in range(6)}
    assert sorted(counts.values()) == [0, 0, 0, 4, 4, 4]
    assert counts[2] == 0  # of one sample nothing can be said
    assert chosen(Labelled(samples[::-1]), protocol) == ids
    others = {tuple(chosen(Labelled(samples), replace(protocol, seed=seed))) for seed in range(8)}
    assert len(others) > 4
    # Fewer classes are some of them, not others.
    assert set(chosen(Labelled(samples), native(classes=2, per_class=4))) < set(ids)


def test_sets_that_cannot_be_laid_out() -> None:
    with pytest.raises(BenchError, match="1 of its 3 classes have two samples"):
        chosen(Labelled(set_of(1, 1, 5)), native())
    with pytest.raises(BenchError, match=r"a has no label .*classes=FOLDER"):
        chosen(Labelled([Sample("a")]), native())
    with pytest.raises(BenchError, match="does not say which classes are taken"):
        chosen(Labelled(set_of(2, 2)), replace(native(), structure=None))


# -- Vectors ---------------------------------------------------------------------------------------


def test_a_models_vectors_are_its_own() -> None:
    import torch
    from torch.nn import functional as F

    from atoken import AToken

    embedder = registry.create_embedder("atoken", ckpt=None, preset=None, device="cpu", dtype="float32")
    model, images = AToken.from_pretrained("atoken-nano"), [Tinted(6).read(index).pixels for index in range(3)]
    found = inner_vectors(embedder, images)
    assert tuple(found) == kinds_of(embedder)
    assert np.array_equal(found["pooled"], embedder.embed_images(images))
    last = found[kinds_of(embedder)[-1]]
    for index, image in enumerate(images):
        dense = model.features([image]).features
        np.testing.assert_allclose(found["mean"][index], dense.mean(0).numpy(), atol=1e-5)
        np.testing.assert_allclose(last[index], model.encode([image]).mean.features.mean(0).numpy(), atol=1e-5)
        pooled = F.normalize(model.pool(dense, (len(dense),)).float(), dim=-1)
        torch.testing.assert_close(torch.from_numpy(found["pooled"][index]), pooled[0], atol=1e-5, rtol=0)
        for kind, rows in inner_vectors(embedder, [image]).items():
            np.testing.assert_allclose(rows[0], found[kind][index], atol=1e-5)
    assert kinds_of(Colours()) == ("pooled",)


# -- Runs ------------------------------------------------------------------------------------------

FAKE = "tests.harness.embedding_fakes:create_textless"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three colours, nine pictures each."""
    root, data = tmp_path_factory.mktemp("colours"), Tinted(27)
    for index in range(27):
        place = root / ("red", "green", "blue")[index % 3]
        place.mkdir(exist_ok=True)
        Image.fromarray(data.read(index).pixels).save(place / f"{index:02d}.png")
    return root


def run(bench: Bench, folder: Path, runs: Path, *more: object, spec: str = FAKE) -> dict[str, Any]:
    outcome = bench(
        *("run", "representation", "--tokenizer", spec, "--data", f"classes={folder}", "--protocol", "native"),
        *("--runs", runs, "--workers", "0", "--device", "cpu", "--threads", "1", *more),
    )
    assert outcome.code == 0, outcome.err
    found = sorted((runs / "representation").glob("*/record.json"))
    return json.loads(found[0].read_text()) | {"folder": found[0].parent} if found else {}


def test_a_run_from_folder_to_figure(bench: Bench, folder: Path, tmp_path: Path) -> None:
    record = run(bench, folder, tmp_path, "--shard-size", 4)
    cells = {cell["name"]: cell for cell in record["cells"]}
    assert cells["silhouette of pooled"]["value"] > 0.5
    assert cells["5 neighbours of pooled"]["value"] == 100
    assert cells["silhouette of latents"]["applies"] is False
    data = (record["folder"] / record["figure"]["file"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == record["figure"]["sha256"]
    figure = json.loads(data)
    assert sorted(figure["classes"]) == ["blue", "green", "red"]
    assert len(figure["ids"]) == len(figure["labels"]) == 27
    named = [figure["classes"][label] for label in figure["labels"]]
    assert named == [id_.split("/")[0] for id_ in figure["ids"]]
    (panel,) = figure["panels"]
    points = np.array(panel["points"])
    assert points.shape == (27, 2)
    assert 0.99 < np.abs(points).max() <= 1
    # Classes that lie far apart lie apart in the picture.
    gaps = np.linalg.norm(points[:, None] - points[None], axis=2) + 10 * np.eye(27)
    assert (np.array(figure["labels"])[gaps.argmin(1)] == figure["labels"]).all()
    assert bench("audit", "run", record["folder"], "--rerun", 3).code == 0
    drawing = record["folder"] / "figure.json"
    drawing.write_bytes(drawing.read_bytes().replace(b"0", b"1", 1))
    changed = bench("audit", "run", record["folder"])
    assert changed.code == 1
    assert "figure.json: states sha256" in changed.out + changed.err


def test_runs_are_alike_resumed_and_shared_out(bench: Bench, folder: Path, tmp_path: Path) -> None:
    whole = run(bench, folder, tmp_path / "a", "--shard-size", 4)
    shard = sorted((whole["folder"] / "shards").iterdir())[2]
    before = {path: path.stat().st_mtime_ns for path in (whole["folder"] / "shards").iterdir()}
    shard.unlink()
    (whole["folder"] / "record.json").unlink()
    again = run(bench, folder, tmp_path / "a", "--shard-size", 4)
    assert {path for path in before if path.stat().st_mtime_ns != before[path]} == {shard}
    for part in (0, 1):
        run(bench, folder, tmp_path / "b", "--shard-size", 4, "--shard", f"{part}/2")
    (place,) = (tmp_path / "b" / "representation").iterdir()
    assert bench("merge", place).code == 0
    merged = json.loads((place / "record.json").read_text())
    assert whole["cells"] == again["cells"] == merged["cells"]
    assert whole["figure"] == again["figure"] == merged["figure"]


def test_the_projects_model_has_all_its_panels(bench: Bench, folder: Path, tmp_path: Path) -> None:
    record = run(bench, folder, tmp_path, spec="atoken:atoken-nano")
    figure = json.loads((record["folder"] / "figure.json").read_text())
    names = [panel["name"] for panel in figure["panels"]]
    assert names[:2] == ["pooled", "mean"]
    assert len(names) == 3
    assert sum(cell["value"] is not None for cell in record["cells"]) == 9


def test_without_scikit_learn(bench: Bench, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.understanding.representation_run.find_spec", lambda _: None)
    outcome = bench("run", "representation", "--data", f"classes={folder}", "--runs", tmp_path)
    assert outcome.code != 0
    assert "install atoken[understanding]" in outcome.err
