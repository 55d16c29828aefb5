"""Which samples a step has: the same whoever asks, in whatever order, on however many processes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoken.training.data import Sources, load_ahead
from atoken.training.errors import TrainingError
from atoken.training.tasks import AssetTask, ImageTask, VideoTask
from tests.atoken.training.samples import SOURCES, TASKS, MadeAssets, MadeClips, MadeImages, batches, items, stage

TASK = st.sampled_from(sorted(TASKS))
RECON = ImageTask(samples=4, share=1, resolution=(32, 32), view="crop")


@settings(max_examples=40, deadline=None)
@given(task=TASK, step=st.integers(0, 10**6), seed=st.integers(0, 2**63), index=st.integers(0, 3))
def test_a_batch_depends_on_seed_stage_task_and_step_alone(task: str, step: int, seed: int, index: int) -> None:
    first, again = (batches(seed=seed, index=index) for _ in range(2))
    first.batch(task, step + 1)
    first.batch("image_text", step)
    assert items(first.batch(task, step)) == items(again.batch(task, step))


def test_other_seeds_stages_steps_and_tasks_give_other_samples() -> None:
    base = items(batches().batch("image_recon", 5))
    others = [
        batches(seed=1).batch("image_recon", 5),
        batches(index=1).batch("image_recon", 5),
        batches().batch("image_recon", 6),
        batches().batch("image_recon", 0),
    ]
    assert all(items(other) != base for other in others)
    names = [[item[0] for item in items(batches().batch(task, 0))] for task in ("image_text", "image_recon")]
    assert names[0] != names[1]


@settings(max_examples=30, deadline=None)
@given(task=TASK, step=st.integers(0, 1000), world=st.sampled_from([2, 3, 6]))
def test_ranks_share_the_batch_that_one_process_sees(task: str, step: int, world: int) -> None:
    whole = items(batches().batch(task, step))
    parts = [items(batches(rank=rank, world=world).batch(task, step)) for rank in range(world)]
    assert [parts[i % world][i // world] for i in range(len(whole))] == whole


@settings(max_examples=30, deadline=None)
@given(task=TASK, step=st.integers(0, 1000), limit=st.integers(1, 300))
def test_packs_hold_the_samples_in_order_within_the_limit(task: str, step: int, limit: int) -> None:
    packs = batches(limit=limit).batch(task, step).packs
    for pack, after in zip(packs, [*packs[1:], None], strict=True):
        tokens = sum(pack.lengths)
        assert tokens == len(pack.values) == len(pack.coords)
        assert tokens <= limit or len(pack.ids) == 1
        # Greedy: what comes after did not fit.
        assert after is None or tokens + after.lengths[0] > limit
    assert [item for pack in packs for item in pack.ids] == [i[0] for i in items(batches().batch(task, step))]


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(workers: int) -> None:
    plan = [(task, step) for step in range(4) for task in TASKS]
    ahead = list(load_ahead(batches(), plan, workers=workers))
    assert [batch.task for batch in ahead] == [task for task, _ in plan]
    here = list(load_ahead(batches(), plan, workers=0))
    assert [items(batch) for batch in ahead] == [items(batch) for batch in here]


def test_reading_ahead_can_be_stopped() -> None:
    ahead = load_ahead(batches(), (("image_recon", step) for step in range(10**9)), workers=2)
    assert [next(ahead).task for _ in range(3)] == ["image_recon"] * 3
    ahead.close()


def test_sources_are_drawn_in_proportion_to_their_size() -> None:
    plan = stage(image_recon=ImageTask(samples=400, share=1, resolution=(32, 32), view="crop"))
    ids = [item[0] for item in items(batches(plan=plan).batch("image_recon", 0))]
    few = sum(name.startswith("few/") for name in ids)
    assert 70 < few < 130  # of 400, 3 in 12
    assert len(set(ids)) == 12


def test_what_a_step_shares_is_drawn_for_the_step() -> None:
    sides, frames = set(), set()
    for step in range(30):
        found = {(s.frames, s.height, s.width) for _, s, *_ in items(batches().batch("video_recon", step))}
        assert len(found) == 1
        count, height, width = found.pop()
        assert height == width
        sides.add(height)
        frames.add(count)
    assert sides == {32, 48}
    assert frames == {4, 8, 12}


def test_captions_go_with_their_samples() -> None:
    for task in ("image_text", "video_text", "asset_text"):
        for pack in batches().batch(task, 0).packs:
            expected = tuple(f"{name.split('/')[0]} number {name.split('/')[1]}" for name in pack.ids)
            assert pack.texts == expected
    assert all(pack.texts is None for pack in batches().batch("image_recon", 0).packs)


def test_broken_samples_are_replaced_counted_and_named() -> None:
    sources = Sources(images=(MadeImages("half", 8, broken=frozenset(range(4))),))
    whole = batches(sources, stage(image_recon=ImageTask(samples=8, share=1, resolution=(32, 32)))).batch(
        "image_recon", 3
    )
    assert sum(len(pack.ids) for pack in whole.packs) == 8
    assert whole.skipped
    assert all(reason in {f"half/{i}: is broken" for i in range(4)} for reason in whole.skipped)
    assert not {item[0] for item in items(whole)} & {f"half/{i}" for i in range(4)}
    # What a rank reports is its own samples'.
    plan = stage(image_recon=ImageTask(samples=8, share=1, resolution=(32, 32)))
    parts = [batches(sources, plan, rank=rank, world=2).batch("image_recon", 3) for rank in range(2)]
    assert sorted(parts[0].skipped + parts[1].skipped) == sorted(whole.skipped)


def test_samples_without_caption_are_replaced_in_text_tasks_alone() -> None:
    sources = Sources(images=(MadeImages("some", 6, dumb=frozenset({0, 1, 2})),))
    plan = stage(image_text=ImageTask(samples=12, resolution=(32, 32)), image_recon=RECON)
    batch = batches(sources, plan).batch("image_text", 0)
    assert batch.skipped
    assert all(reason.endswith(": has no caption") for reason in batch.skipped)
    assert not any(batches(sources, plan).batch("image_recon", step).skipped for step in range(5))


def test_nothing_but_broken_samples_ends_the_run() -> None:
    sources = Sources(images=(MadeImages("bad", 3, broken=frozenset(range(3))),))
    plan = stage(image_recon=RECON)
    with pytest.raises(TrainingError, match=r"image_recon: 20 samples in a row .* the last bad/\d: is broken; mend"):
        batches(sources, plan).batch("image_recon", 0)
    with pytest.raises(TrainingError, match=r"20 samples in a row"):
        list(load_ahead(batches(sources, plan), [("image_recon", 0)], workers=1))


def test_samples_too_small_for_a_step_are_passed_over_silently() -> None:
    # 40, 56, 72, 88 and 104 rows.
    sources = Sources(images=(MadeImages("made", 15),))
    plan = stage(image_recon=ImageTask(samples=40, share=1, resolution=(64, 64), view="crop"))
    batch = batches(sources, plan).batch("image_recon", 0)
    assert not batch.skipped
    assert {int(name.split("/")[1]) % 5 for name, *_ in items(batch)} == {2, 3, 4}
    plan = stage(image_recon=ImageTask(samples=1, share=1, resolution=(112, 112), view="crop"))
    with pytest.raises(TrainingError, match=r"none of 1000 samples drawn is large enough, the last made/.* needs 112"):
        batches(sources, plan).batch("image_recon", 0)


@pytest.mark.parametrize(
    ("samples", "world", "nearest"), [(12, 5, "10 or 15"), (3, 8, "take 8 samples"), (7, 2, "6 or 8")]
)
def test_ranks_that_cannot_share_a_batch(samples: int, world: int, nearest: str) -> None:
    plan = stage(image_recon=ImageTask(samples=samples, share=1, resolution=(32, 32)))
    with pytest.raises(TrainingError, match=f"made, image_recon: {world} processes cannot share {samples} .*{nearest}"):
        batches(plan=plan, world=world)


def test_what_a_task_lacks_is_told_before_training() -> None:
    plan = stage(
        image_recon=RECON, video_recon=VideoTask(samples=1, share=1, resolution=(16, 16), frames=(4, 4), fps=1)
    )
    with pytest.raises(TrainingError, match=r"video_recon needs videos: give some, for example --data videos=PATH"):
        batches(Sources(images=SOURCES.images), plan)
    silent = MadeImages("silent", 4)
    silent.captioned = False
    plan = stage(image_text=ImageTask(samples=2, resolution=(32, 32)), image_recon=RECON)
    with pytest.raises(TrainingError, match=r"image_text needs images with captions, silent have none; .*file,caption"):
        batches(Sources(images=(silent,)), plan)
    # A source without captions beside one with them is no error: text tasks do not draw from it.
    mixed = batches(Sources(images=(silent, MadeImages("told", 4))), plan)
    assert {item[0].split("/")[0] for item in items(mixed.batch("image_text", 0))} == {"told"}


def test_too_few_or_too_small_pictures_are_told() -> None:
    plan = stage(asset_recon=AssetTask(samples=1, share=1, renders=7, render_size=16))
    with pytest.raises(TrainingError, match="has 6 pictures, renders asks for 7; prepare it with --pictures 7"):
        batches(plan=plan).batch("asset_recon", 0)
    plan = stage(asset_recon=AssetTask(samples=1, share=1, renders=2, render_size=20))
    with pytest.raises(TrainingError, match="its pictures have 32 pixels a side, no multiple of render_size 20"):
        batches(plan=plan).batch("asset_recon", 0)


def test_the_fingerprint_is_of_what_the_stage_uses() -> None:
    plan = stage(image_recon=RECON)
    other = MadeClips("other", 3)
    other.fingerprint = "another"
    base = batches(plan=plan).fingerprint
    assert batches(Sources(images=SOURCES.images, videos=(other,)), plan).fingerprint == base
    assert batches(Sources(images=SOURCES.images[:1]), plan).fingerprint != base


def test_captions_of_all_sources() -> None:
    sources = Sources(images=(MadeImages("i", 2),), assets=(MadeAssets("a", 2, dumb=frozenset({1})),))
    assert sources.captions() == ["a number 0", "i number 0", "i number 1"]


def test_patches_of_another_side_are_refused() -> None:
    from atoken.training.data import Batches

    with pytest.raises(TrainingError, match="patches of 8x8"):
        Batches(SOURCES, stage(), stage_index=0, seed=0, rank=0, world=1, patch=(4, 8, 8), pack_tokens=9)


def test_values_are_bytes_and_places_small_numbers() -> None:
    import torch

    for task in TASKS:
        for pack in batches().batch(task, 0).packs:
            assert (pack.values.dtype, pack.coords.dtype) == (torch.uint8, torch.int32)
            assert pack.values.shape[1] == (3072 if task.startswith("video") else 768)
    assert np.all([len(p.renders.cameras[0]) == 3 for p in batches().batch("asset_recon", 0).packs if p.renders])
