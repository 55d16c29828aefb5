"""Videos through the runner: which frames count, what is held, and that what always holds holds for clips."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from harness import shards
from harness.clip_feed import ClipFeed, frame_counts
from harness.clip_reconstruction import BLOCK, ClipReconstruction
from harness.clip_work import ClipWork
from harness.console import Advance, Console
from harness.data.base import Clip, ClipShape
from harness.errors import BenchError
from harness.execution import execute, merge_only
from harness.plan import Plan, Share
from harness.protocol import ClipRules, FrameRule
from harness.tokenizers.clip_blocks import BROKEN, first_frames
from harness.tokenizers.video import EncodedPart, Frames
from tests.harness.clip_fakes import RULES, Groups, MeanError, NoiseClips, Shape, clip_plan

QUIET = Console(speaks=False)
COMMON = ClipRules(first_frames=None, first_seconds=None, frames="common")


def done(made: Plan, runs: Path, *, share: Share | None = None) -> dict[str, Any]:
    record = execute(made, runs, share=share or Share(), workers=0, console=QUIET)
    assert record is not None
    return record


def measured(made: Plan, index: int = 0) -> Any:
    (part,) = ClipWork(made).measure([[index]], Advance())
    return part


# Which frames go in, and which count.


@pytest.mark.parametrize(
    ("total", "rule", "made_for", "expected"),
    [
        (69, "all", (4, 0), (69, 69)),
        (69, "4k", (4, 0), (68, 68)),
        (69, "common", (4, 0), (68, 68)),
        (69, "common", (4, 1), (69, 68)),
        (68, "common", (4, 0), (68, 65)),
        (68, "common", (4, 1), (65, 65)),
        (68, "common", (1, 0), (68, 65)),
        (68, "common", (16, 0), (65, 65)),
        (3, "4k", (4, 0), (0, 0)),
        (3, "common", (4, 1), (1, 0)),
        (1, "all", (4, 0), (1, 1)),
    ],
)
def test_frame_counts(total: int, rule: FrameRule, made_for: tuple[int, int], expected: tuple[int, int]) -> None:
    assert frame_counts(total, rule, made_for) == expected


@given(st.integers(1, 400), st.sampled_from([(1, 0), (4, 0), (4, 1), (8, 1), (16, 0), (17, 0)]))
def test_tokenizers_are_measured_on_common_frames(total: int, made_for: tuple[int, int]) -> None:
    given_, measured_ = frame_counts(total, "common", made_for)
    assert measured_ == frame_counts(total, "common", (4, 0))[1]
    assert measured_ <= given_ <= total
    if total >= 4:
        assert measured_ >= total - 3


@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=8),
    st.sampled_from(["all", "4k", "common"]),
    st.sampled_from([(1, 0), (4, 0), (4, 1)]),
    st.data(),
)
def test_a_feed_gives_the_frames_and_keeps_them_for_the_way_back(
    sizes: list[int], rule: FrameRule, made_for: tuple[int, int], data: st.DataObject
) -> None:
    total = sum(sizes)
    frames = np.arange(total, dtype=np.uint8)[:, None, None, None]
    blocks = iter(np.split(frames, np.cumsum(sizes)[:-1]))
    feed = ClipFeed(blocks, rule, made_for)
    went, back = [], []
    behind = 0
    for block in feed:
        went.append(block)
        behind += len(block)
        count = data.draw(st.integers(0, behind))
        back += [feed.take(count)] if count else []
        behind -= count
    back += [feed.take(behind)] if behind else []
    expected = frame_counts(total, rule, made_for)
    assert np.concatenate([*went, frames[:0]]).ravel().tolist() == list(range(expected[0]))
    assert np.concatenate([*back, frames[:0]]).ravel().tolist() == list(range(expected[1]))
    assert (feed.given, feed.measured) == expected


def test_a_feed_refuses_frames_that_did_not_go_in() -> None:
    feed = ClipFeed(iter([np.zeros((2, 1, 1, 3), np.uint8)]), "all", (1, 0))
    next(feed)
    with pytest.raises(ValueError, match="3 frames came out when 2 had gone in"):
        feed.take(3)


@pytest.mark.parametrize(
    ("frames", "seconds", "rate", "expected"),
    [
        (300, 10, 24, 300),
        (300, 10, Fraction(60000, 1001), 600),
        (None, 2, 25, 50),
        (16, None, 25, 16),
        (None, None, 1, None),
    ],
)
def test_the_first_frames_of_a_clip(
    frames: int | None, seconds: float | None, rate: Fraction | int, expected: int | None
) -> None:
    assert ClipRules(first_frames=frames, first_seconds=seconds, frames="all").limit(Fraction(rate)) == expected


# What a run measures.


def test_every_frame_is_measured_once_and_in_order() -> None:
    made = clip_plan()
    part = measured(made, 2)
    assert isinstance(made.dataset, NoiseClips)
    original = made.dataset.frames(2).astype(float)
    rounded = np.clip(np.round(np.round(original / 16) * 16), 0, 255)
    expected = np.abs(original - rounded).mean((1, 2, 3))
    np.testing.assert_allclose(part.frames["error"], expected, atol=1e-9)
    assert part.columns["error"] == pytest.approx([expected.mean()])
    assert part.columns["error tokens"] == [9]
    (row,) = part.rows
    assert (row.frames, row.height, row.width, row.tokens) == (33, 16, 16, 9)
    assert row.encode_ms > 0
    assert row.decode_ms > 0


def test_sides_are_padded_to_the_multiple_and_cut_back() -> None:
    tokenizer = Groups(multiple=16)
    part = measured(clip_plan(tokenizer=tokenizer), 1)  # 12 x 20
    assert tokenizer.shapes == [(16, 32)]
    assert (part.rows[0].height, part.rows[0].width) == (12, 20)
    np.testing.assert_array_equal(part.frames["error"], measured(clip_plan(), 1).frames["error"])


def test_only_the_frames_that_are_needed_are_read() -> None:
    dataset = NoiseClips(Shape(5000))
    rules = ClipRules(first_frames=20, first_seconds=None, frames="all")
    part = measured(clip_plan(dataset=dataset, clip=rules))
    assert part.rows[0].frames == 20
    assert dataset.read <= 20 + 16
    assert dataset.closed == 1


def test_no_more_than_two_blocks_are_read_ahead() -> None:
    dataset = NoiseClips(Shape(400))
    made = clip_plan(dataset=dataset)
    work = ClipReconstruction(dataset.open(0), dataset.samples[0], Groups(BLOCK), made.protocol, torch.device("cpu"))
    with closing(work.pairs()) as pairs:
        next(pairs)
        time.sleep(0.3)  # for a thread that would go too far
        assert dataset.read == 3 * BLOCK  # one is at work, one waits, one is made
    assert dataset.closed == 1


def test_a_protocol_that_suits_no_clip_ends_the_run() -> None:
    with pytest.raises(BenchError, match="must stay 8-bit"):
        measured(clip_plan(protocol={"prepare": "rgb|to_tensor|normalize"}))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (Shape(40, breaks=17), "truncated after 17 frames"),
        (Shape(40, breaks=3), "truncated after 3 frames"),
        (Shape(9, breaks=0), "the file is empty"),
        (Shape(3), "has fewer than the 4 frames that protocol tiny cuts clips to"),
    ],
)
def test_a_broken_clip_is_named_and_the_run_goes_on(tmp_path: Path, shape: Shape, reason: str) -> None:
    record = done(clip_plan(dataset=NoiseClips(Shape(9), shape, Shape(8)), clip=COMMON), tmp_path)
    assert record["samples"]["failed"] == [{"id": "clip/001.mp4", "reason": reason}]
    assert record["samples"]["used"] == 2
    assert record["modality"] == "video"


class Loses(Groups):
    """Gives back all but the last frame of each group, or one more, or NaN, or another size."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def decode_clip(self, parts: Iterator[EncodedPart], shape: ClipShape) -> Iterator[Tensor]:
        for frames in super().decode_clip(parts, shape):
            yield {
                "few": frames[:-1],
                "many": torch.cat([frames, frames]),
                "nan": frames * float("nan"),
                "size": frames[:, :-1],
            }[self.fault]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("few", "clip/000.mp4 went in with 9 frames and came back with 6; the adapter is wrong"),
        ("many", "clip/000.mp4: 16 frames came out when 9 had gone in; the adapter is wrong"),
        ("nan", "the reconstruction of clip/000.mp4 holds NaN or infinite values"),
        ("size", r"clip/000.mp4 went in as frames of \(16, 16, 3\) and came back as \(15, 16, 3\)"),
    ],
)
def test_a_broken_adapter_is_named(fault: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        measured(clip_plan(tokenizer=Loses(fault)))


class FragileClips(NoiseClips):
    """Its first clip makes the decoder stumble after a frame, its second on opening."""

    def open(self, index: int) -> Clip:
        clip = super().open(index)

        def blocks(count: int) -> Iterator[np.ndarray]:
            yield next(clip.blocks(count))
            raise OverflowError("too much")

        if index == 1:
            raise ArithmeticError("no such clip")
        return replace(clip, blocks=blocks) if index == 0 else clip


class Fitted(Groups):
    """Looks at all frames of a set, as far as they can be read, and keeps their number."""

    needs_prepare = True

    def prepare_clips(self, clips: Sequence[tuple[ClipShape, Frames]]) -> None:
        frames = 0
        for _, opened in clips:
            with suppress(*BROKEN):
                frames += sum(1 for _ in first_frames(opened))
        self.restore({"frames": frames})

    def restore(self, settings: Mapping[str, Any]) -> None:
        self.card = replace(self.card, settings=dict(settings))


@pytest.mark.parametrize("tokenizer", [Groups, Fitted])
def test_a_decoder_that_raises_anything_loses_one_clip_alone(tmp_path: Path, tokenizer: type[Groups]) -> None:
    record = done(clip_plan(dataset=FragileClips(Shape(9), Shape(9), Shape(8)), tokenizer=tokenizer()), tmp_path)
    assert record["samples"]["failed"] == [
        {"id": "clip/000.mp4", "reason": "OverflowError: too much"},
        {"id": "clip/001.mp4", "reason": "ArithmeticError: no such clip"},
    ]
    if tokenizer is Fitted:
        assert record["tokenizer"]["card"]["settings"] == {"frames": 8}


class Scribbles(Groups):
    """Works in the frames that it is given."""

    def encode_clip(self, frames: Iterator[Tensor], shape: ClipShape, **rest: Any) -> Iterator[EncodedPart]:
        return super().encode_clip((block.zero_() for block in frames), shape, **rest)


def test_a_tokenizer_cannot_write_into_what_it_is_measured_against() -> None:
    clip = NoiseClips(Shape(9)).frames(0)
    part = measured(clip_plan(dataset=NoiseClips(Shape(9)), tokenizer=Scribbles()))
    assert part.columns["error"] == pytest.approx(clip.mean(), abs=0.01)  # of all black


# What always holds.


def figures(record: dict[str, Any]) -> Any:
    return record["cells"], record["samples"], record["dataset"], record["gallery"]


def tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    samples = pd.read_parquet(folder / "samples.parquet").drop(columns=["encode_ms", "decode_ms"])
    return samples, pd.read_parquet(folder / "frames.parquet")


def same(one: Path, other: Path) -> None:
    for left, right in zip(tables(one), tables(other), strict=True):
        pd.testing.assert_frame_equal(left, right, check_exact=True)


MIXED = (Shape(9), Shape(5, breaks=2), Shape(4, 12, 20), Shape(33), Shape(1))


def mixed(**changes: Any) -> Plan:
    return clip_plan(dataset=NoiseClips(*MIXED), protocol={"latent": "sample"}, **changes)


def test_one_process_and_two_give_the_same_bits(tmp_path: Path) -> None:
    whole = done(mixed(), tmp_path / "one")
    for index in (0, 1):
        share = Share(index=index, count=2, merges=False)
        assert execute(mixed(), tmp_path / "two", share=share, workers=0, console=QUIET) is None
    folder = mixed().folder(tmp_path / "two")
    assert figures(merge_only(mixed(), folder, QUIET)) == figures(whole)
    same(mixed().folder(tmp_path / "one"), folder)


def test_a_resume_measures_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = done(mixed(), tmp_path / "whole")
    calls: list[int] = []
    measure = ClipWork._measure

    def stops(work: ClipWork, index: int, advance: Advance) -> Any:
        calls.append(index)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return measure(work, index, advance)

    monkeypatch.setattr(ClipWork, "_measure", stops)
    with pytest.raises(KeyboardInterrupt):
        done(mixed(), tmp_path / "cut")
    assert figures(done(mixed(), tmp_path / "cut")) == figures(whole)
    assert calls == [0, 1, 2, 3, 3, 4]
    same(mixed().folder(tmp_path / "whole"), mixed().folder(tmp_path / "cut"))


def test_a_clips_result_depends_on_it_alone(tmp_path: Path) -> None:
    whole = mixed()
    done(whole, tmp_path)
    samples, frames = tables(whole.folder(tmp_path))
    for index in (3, 0):
        alone = measured(mixed(), index)
        name = alone.rows[0].id
        assert samples.set_index("id").loc[name, "error"] == alone.columns["error"][0]
        np.testing.assert_array_equal(frames[frames["id"] == name]["error"], alone.frames["error"])


def test_frames_have_a_table_of_their_own(tmp_path: Path) -> None:
    made = clip_plan()
    done(made, tmp_path)
    samples, frames = tables(made.folder(tmp_path))
    assert list(frames.columns) == ["id", "frame", "error"]
    counts = frames.groupby("id")["frame"].agg(["count", "max"])
    assert counts["count"].tolist() == samples["frames"].tolist() == [9, 4, 33]
    assert counts["max"].tolist() == [8, 3, 32]
    np.testing.assert_allclose(frames.groupby("id")["error"].mean(), samples["error"])


def test_a_damaged_frame_value_is_found(tmp_path: Path) -> None:
    made = clip_plan()
    done(made, tmp_path)
    path = next((made.folder(tmp_path) / "shards").iterdir())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(shards.DamagedShard, match="checksum"):
        shards.read(path)


def test_the_gallery_shows_worst_median_and_best_and_nothing_stale(tmp_path: Path) -> None:
    made = clip_plan()
    record = done(made, tmp_path)
    assert [entry["rank"] for entry in record["gallery"]] == ["worst", "median", "best"]
    folder = made.folder(tmp_path)
    for entry in record["gallery"]:
        assert (folder / entry["video"]).stat().st_size > 0
        assert (folder / entry["poster"]).stat().st_size > 0
        assert entry["tile"] == [4, None, None]
    (folder / "gallery" / "old.webm").touch()
    done(clip_plan(software={"source": "2"}), tmp_path)
    assert not (folder / "gallery" / "old.webm").exists()


def test_images_and_clips_are_not_mixed_up(tmp_path: Path) -> None:
    from tests.harness.fakes import Blur, Noise

    with pytest.raises(BenchError, match="blur-4: a tokenizer of image, not of videos"):
        done(clip_plan(tokenizer=Blur()), tmp_path)
    with pytest.raises(BenchError, match="groups-4: a tokenizer of video, not of images"):
        done(clip_plan(dataset=Noise(3)), tmp_path)
    with pytest.raises(BenchError, match="protocol tiny: does not say which frames count"):
        done(clip_plan(clip=None), tmp_path)


def test_memory_does_not_grow_with_the_clip() -> None:
    import tracemalloc

    def peak(frames: int) -> int:
        made = clip_plan(dataset=NoiseClips(Shape(1)), metrics=[MeanError()])
        block = np.zeros((16, 64, 64, 3), np.uint8)
        clip = replace(made.dataset.open(0), shape=ClipShape(height=64, width=64, rate=Fraction(24)))  # type: ignore[attr-defined]
        clip = replace(clip, blocks=lambda count: (block.copy() for _ in range(frames // count)))
        made.dataset.open = lambda index: clip  # type: ignore[attr-defined]
        tracemalloc.start()
        try:
            assert measured(made).rows[0].frames == frames
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    short, long = peak(320), peak(3200)
    assert long < short + 3_000_000  # a few blocks more or fewer may wait; the frames themselves are 39 MB


def test_rules_are_part_of_what_a_run_is() -> None:
    keys = {
        clip_plan(clip=rules).key
        for rules in (RULES, COMMON, ClipRules(first_frames=8, first_seconds=None, frames="all"))
    }
    assert len(keys) == 3
