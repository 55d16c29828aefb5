"""Runs on embeddings: resumed, shared out, kept from run to run; the figures are the same whatever happened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from harness import shards
from harness.console import Advance, Console
from harness.errors import BenchError
from harness.execution import execute, merge_only
from harness.metrics.base import Aggregated, Cell
from harness.plan import Plan, Share
from harness.protocol import EmbedRules
from harness.understanding.texts import texts_of
from harness.understanding.vectors import FOLDER
from harness.workload import workload
from tests.harness.embedding_fakes import COLOURS, Broken, Colours, Relabelled, Tinted, plan, protocol
from tests.harness.fakes import Blur, Noise


def done(made: Plan, runs: Path, **share: Any) -> dict[str, Any]:
    record = execute(made, runs, share=Share(**share), workers=0, console=Console())
    assert record is not None
    return record


def table(made: Plan, runs: Path) -> dict[str, list[Any]]:
    rows = pq.read_table(made.folder(runs) / "samples.parquet").to_pydict()
    return {name: values for name, values in rows.items() if not name.endswith("_ms")}


def stored(runs: Path) -> list[Path]:
    return sorted(path for path in (runs / FOLDER).rglob("*.safetensors") if "texts" not in path.parts)


def test_a_run_finds_the_colours(tmp_path: Path) -> None:
    made = plan(dataset=Tinted(30))
    record = done(made, tmp_path)
    cells = {cell["name"]: cell for cell in record["cells"]}
    assert list(cells) == ["top-1", "top-2", "mean per-class accuracy"]
    assert cells["top-1"]["value"] > 90
    assert cells["top-1"]["value"] == np.mean(table(made, tmp_path)["top-1"])
    assert (cells["top-1"]["n"], cells["top-1"]["unit"]) == (30, "%")
    low, high = cells["top-1"]["interval"]
    assert low <= cells["top-1"]["value"] <= high
    said = record["understanding"]
    assert (said["classes"], said["templates"]) == (3, 6)
    assert said["text_tower"] == {"name": "hash", "fingerprint": made.tokenizer.card.text.fingerprint}
    assert record["tokenizer"]["card"]["width"] == 8


def test_the_gallery_starts_with_the_surest_mistake(tmp_path: Path) -> None:
    made = plan(dataset=Relabelled(9))
    record = done(made, tmp_path)
    entries = record["gallery"]
    assert entries[0]["rank"] == "worst"
    margins = table(made, tmp_path)["margin"]
    assert entries[0]["value"] == min(margins) < 0
    for entry in entries:
        assert entry["label"] in COLOURS
        assert entry["predicted"] in COLOURS
        assert (entry["predicted"] == entry["label"]) == (entry["value"] > 0)
        assert -1 <= entry["score"] <= 1
        assert (made.folder(tmp_path) / entry["original"]).is_file()


class _DiesError(Exception):
    pass


class Dies(Colours):
    """Is killed at its third batch, once."""

    def embed_images(self, images: Any) -> np.ndarray:
        if len(self.images) == 2:
            self.images.append(0)
            raise _DiesError
        return super().embed_images(images)


def test_a_resumed_run_embeds_the_rest_and_has_the_figures_of_one_that_ran_through(tmp_path: Path) -> None:
    through = done(plan(dataset=Tinted(12)), tmp_path / "through")
    embedder = Dies()
    made = plan(dataset=Tinted(12), tokenizer=embedder)
    with pytest.raises(_DiesError):
        done(made, tmp_path / "killed")
    assert not list((tmp_path / "killed").rglob("record.json"))
    first = len(list((tmp_path / "killed" / "image-classify").rglob("*.safetensors")))
    assert first == 1
    resumed = done(made, tmp_path / "killed")
    assert sum(embedder.images) == 12
    assert (resumed["cells"], resumed["samples"]) == (through["cells"], through["samples"])


def test_shares_and_a_merge_give_the_record_of_one_process(tmp_path: Path) -> None:
    whole = plan()
    one = done(whole, tmp_path / "one")
    for index in (1, 0):
        share = Share(index=index, count=2, merges=False)
        assert execute(plan(), tmp_path / "two", share=share, workers=0, console=Console()) is None
    made = plan()
    two = merge_only(made, made.folder(tmp_path / "two"), Console())
    same = ("cells", "samples", "understanding", "dataset", "protocol", "gallery")
    assert {name: one[name] for name in same} == {name: two[name] for name in same}
    assert table(whole, tmp_path / "one") == table(made, tmp_path / "two")


def test_another_protocol_on_the_same_pixels_embeds_nothing(tmp_path: Path) -> None:
    embedder = Colours()
    done(plan(tokenizer=embedder), tmp_path)
    images, texts = sum(embedder.images), len(embedder.texts)
    assert (images, texts) == (10, 18)
    bare = protocol(name="bare", embed=EmbedRules(side=16, templates="bare"))
    made = plan(tokenizer=embedder, protocol=bare)
    record = done(made, tmp_path)
    assert sum(embedder.images) == images
    assert len(embedder.texts) == texts  # the bare names are among the six sentences
    fresh = plan(protocol=bare)
    assert done(fresh, tmp_path / "fresh")["cells"] == record["cells"]
    assert table(fresh, tmp_path / "fresh") == table(made, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": protocol(prepare="rgb|resize(8,bicubic)")},
        {"tokenizer": Colours("other")},
        {"dataset": Tinted(10, seed=1)},
        {"settings": {"token_budget": 2}},
        {"settings": {"dtype": "bfloat16"}},
        {"software": {"source": "2"}},
    ],
)
def test_what_moves_a_vector_is_embedded_again(tmp_path: Path, changes: dict[str, Any]) -> None:
    embedder = changes.get("tokenizer", Colours())
    done(plan(), tmp_path)
    done(plan(**{"tokenizer": embedder, **changes}), tmp_path)
    assert sum(embedder.images) == 10


def test_labels_are_those_of_today(tmp_path: Path) -> None:
    done(plan(), tmp_path)
    embedder = Colours()
    made = plan(tokenizer=embedder, dataset=Relabelled(10))
    record = done(made, tmp_path)  # the same folder: its shards depend on the labels
    assert not embedder.images
    fresh = plan(dataset=Relabelled(10))
    assert record["cells"] == done(fresh, tmp_path / "fresh")["cells"]
    assert table(made, tmp_path)["label"] == [sample.label for sample in Relabelled(10).samples]


def test_a_limit_and_another_start_find_what_is_there(tmp_path: Path) -> None:
    done(plan(settings={"limit": 8}), tmp_path)
    embedder = Colours()
    done(plan(tokenizer=embedder), tmp_path)
    assert sum(embedder.images) == 2


def test_damaged_vectors_are_made_again(tmp_path: Path) -> None:
    first = done(plan(), tmp_path)
    damaged = stored(tmp_path)[0]
    damaged.write_bytes(damaged.read_bytes()[:-7])
    for path in (tmp_path / "image-classify").rglob("*.safetensors"):
        path.unlink()
    embedder = Colours()
    assert done(plan(tokenizer=embedder), tmp_path)["cells"] == first["cells"]
    assert 0 < sum(embedder.images) <= 4
    assert shards.read(damaged).rows


def test_what_cannot_be_read_or_taken_is_named_and_left_out(tmp_path: Path) -> None:
    dataset = Tinted(6, broken=(1,), sizes=((16, 16), (16, 16), (16, 20)))
    made = plan(dataset=dataset, tokenizer=Colours(refuses=20), settings={"token_budget": 64})
    record = done(made, tmp_path)
    assert [entry["reason"] for entry in record["samples"]["failed"]] == ["truncated", "a side of 20", "a side of 20"]
    assert record["cells"][0]["n"] == 3
    bare = plan(
        dataset=dataset, tokenizer=Colours(refuses=20), protocol=protocol(embed=EmbedRules(side=16, templates="bare")),
        settings={"token_budget": 64},
    )  # fmt: skip
    assert done(bare, tmp_path)["samples"] == record["samples"]


def test_a_pack_moves_nothing(tmp_path: Path) -> None:
    runs = [done(plan(settings={"token_budget": budget}), tmp_path / str(budget)) for budget in (1, 2, 64)]
    assert runs[0]["cells"] == runs[1]["cells"] == runs[2]["cells"]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda vectors: vectors[:, :4], r"gave float32 \[\d, 4\] for \d samples"),
        (lambda vectors: vectors.astype(np.float64), "gave float64"),
        (lambda vectors: vectors * np.float32(np.nan), "NaN"),
        (lambda vectors: vectors * np.float32(2), "the length 2.0000 and not 1"),
    ],
)
def test_a_broken_embedder_ends_the_run(tmp_path: Path, made: Any, said: str) -> None:
    with pytest.raises(BenchError, match=said):
        done(plan(tokenizer=Broken(made)), tmp_path)


class Unlabelled(Noise):
    pass


class Half(Tinted):
    def __init__(self) -> None:
        super().__init__(4)
        self._samples = [type(s)(s.id, None if s.id.endswith("2.png") else s.label) for s in self._samples]


def test_what_cannot_be_asked_is_refused_in_a_line() -> None:
    with pytest.raises(BenchError, match="does not say what its labels are called"):
        texts_of(Unlabelled(4), protocol())
    with pytest.raises(BenchError, match=r"noise/00002\.png has no label"):
        texts_of(Half(), protocol())
    with pytest.raises(BenchError, match="reconstructs and gives no vectors"):
        workload(plan(tokenizer=Blur()), 0)
    with pytest.raises(BenchError, match="has no captions"):
        texts_of(Tinted(4), protocol(embed=EmbedRules(side=16, templates=None)))


class Captioned(Tinted):
    """Some samples have more captions than others."""

    def __init__(self, count: int, **options: Any) -> None:
        super().__init__(count, **options)
        self.captions = tuple(("a red thing", "b", "c")[: 1 + index % 3] for index in range(count))


def captioned() -> Iterator[tuple[str, int, str]]:
    dataset = Captioned(6)
    for sample, texts in zip(dataset.samples, dataset.captions, strict=True):
        for place, text in enumerate(texts):
            yield sample.id, place, text


def test_captions_lie_beside_their_samples(tmp_path: Path) -> None:
    rules = protocol(embed=EmbedRules(side=16, templates=None), metrics=())
    made = plan(dataset=Captioned(6, broken=(0,)), protocol=rules, metrics=[Kept()])
    done(made, tmp_path)
    found: dict[tuple[str, int], np.ndarray] = {}
    for path in sorted((made.folder(tmp_path) / "shards").glob("*.safetensors")):
        shard = shards.read(path)
        for row, vectors, count in zip(
            shard.rows, shard.features["captions"], shard.features["caption_count"], strict=True
        ):
            assert not vectors[count:].any()
            found |= {(row.id, place): vectors[place] for place in range(count)}
    wanted = {(name, place): text for name, place, text in captioned() if not name.endswith("0.png")}
    assert found.keys() == wanted.keys()
    for key, text in wanted.items():
        assert np.array_equal(found[key], Colours().embed_texts([text])[0])


class Kept(Aggregated):
    """Counts vectors, and keeps their first number as a column of the whole run."""

    higher_is_better = True

    def cells(self, table: Any, features: Any, *, seed: int) -> list[Cell]:
        return [Cell(name="n", value=float(len(features["embedding"])), n=5, higher_is_better=True)]

    def late(self, features: Any) -> dict[str, np.ndarray]:
        return {"first": features["embedding"][:, 0].astype(np.float64)}


def test_a_metric_may_add_columns_that_the_whole_run_gives(tmp_path: Path) -> None:
    rules = protocol(embed=EmbedRules(side=16, templates=None), metrics=())
    made = plan(dataset=Captioned(6), protocol=rules, metrics=[Kept()])
    done(made, tmp_path)
    vectors = np.concatenate(
        [
            shards.read(path).features["embedding"]
            for path in sorted((made.folder(tmp_path) / "shards").glob("*.safetensors"))
        ]
    )
    assert table(made, tmp_path)["first"] == vectors[:, 0].astype(np.float64).tolist()


def test_nothing_of_another_run_is_used_to_measure_again(tmp_path: Path) -> None:
    done(plan(), tmp_path)
    embedder = Colours()
    (again,) = workload(plan(tokenizer=embedder), 0).measure([[3, 5]], Advance())
    assert sum(embedder.images) == 2
    assert [row.id for row in again.rows] == ["noise/00003.png", "noise/00005.png"]
    assert json.dumps([row.label for row in again.rows]) == "[0, 2]"
