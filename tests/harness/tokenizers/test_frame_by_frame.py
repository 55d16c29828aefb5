"""Image tokenizers on the frames of a clip, against the same tokenizer called on each frame as an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.data.base import ClipShape, SampleError
from harness.data.prepare import to_unit_range
from harness.errors import BenchError
from harness.plan import sample_seed
from harness.tokenizers import frames as frames_module
from harness.tokenizers.base import Encoded, LatentMode, Tokenizer, TokenizerCard
from harness.tokenizers.clip_blocks import first_frames, regrouped
from harness.tokenizers.codecs import create_jpeg
from harness.tokenizers.frames import FrameByFrame, create
from harness.tokenizers.linear import create_pca
from harness.tokenizers.specimens import clip
from harness.tokenizers.video import EncodedPart

SHAPE = ClipShape(height=48, width=64, rate=Fraction(25))


def frames_of(count: int, seed: int = 0) -> Tensor:
    return clip(seed, count, SHAPE.height, SHAPE.width)


def through(
    tokenizer: FrameByFrame, frames: Tensor, *, latent: LatentMode = "mean", seed: int = 0, cut: int = 7
) -> tuple[Tensor, list[EncodedPart]]:
    parts: list[EncodedPart] = []

    def passing() -> Iterator[EncodedPart]:
        blocks = (frames[start : start + cut] for start in range(0, len(frames), cut))
        for part in tokenizer.encode_clip(blocks, SHAPE, latent=latent, seed=seed):
            parts.append(part)
            yield part

    return torch.cat(list(tokenizer.decode_clip(passing(), SHAPE))), parts


class Noisy(Tokenizer):
    """Discrete by its card, with a posterior that is noise of the seed alone: shows seeds and codes."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.card = TokenizerCard(
            name="noisy",
            title="Noisy",
            token_type="VQ",
            compression=(1, 16, 16),
            latent_size=4,
            codebook_size=1000,
            latent_modes=("mean", "sample"),
            paper_row="OmniTokenizer",
            tile=(None, 16, 32),
            source="a test",
        )

    def encode(self, images: Sequence[Tensor], *, latent: LatentMode, seeds: Sequence[int]) -> Encoded:
        self.batches.append(len(images))
        counts = [self.token_count(*x.shape[1:]) for x in images]
        codes = [torch.full((n, 2), seed % 1000) for n, seed in zip(counts, seeds, strict=True)]
        return Encoded(payload=list(images), tokens=counts, bits=[2.0 * n for n in counts], codes=codes)

    def decode(self, encoded: Encoded) -> list[Tensor]:
        return list(encoded.payload)


def test_each_frame_is_what_the_image_is() -> None:
    frames = frames_of(9)
    images = list(to_unit_range(frames.permute(0, 3, 1, 2)))
    for inner in (
        create_jpeg("40", device="cpu", dtype="float32"),
        create_pca("48", device="cpu", dtype="float32"),
    ):
        back, parts = through(FrameByFrame(inner), frames)
        encoded = inner.encode(images, latent="mean", seeds=[0] * 9)
        expected = torch.stack(inner.decode(encoded)).permute(0, 2, 3, 1)
        torch.testing.assert_close(back, expected, atol=1e-6, rtol=0)
        assert sum(part.tokens for part in parts) == sum(encoded.tokens)
        if encoded.bits is None:
            assert all(part.bits is None for part in parts)
        else:
            assert sum(part.bits or 0 for part in parts) == sum(encoded.bits)


def test_codes_and_seeds_follow_the_frame() -> None:
    frames = frames_of(21)
    _, parts = through(FrameByFrame(Noisy()), frames, latent="sample", seed=5)
    codes = torch.cat([part.codes for part in parts if part.codes is not None])
    assert codes.shape == (21 * 12, 2)
    assert codes[::12, 0].tolist() == [sample_seed(5, f"frame {index}") % 1000 for index in range(21)]
    assert sum(part.bits or 0 for part in parts) == 21 * 24
    assert [part.tokens for part in parts] == [16 * 12, 5 * 12]


@pytest.mark.parametrize(("budget", "wanted"), [(12, [1] * 5), (35, [2, 2, 1]), (10_000, [4, 1])])
def test_batches_keep_to_a_budget_whatever_the_blocks(
    budget: int, wanted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames_module, "BATCH_TOKENS", budget)
    monkeypatch.setattr(frames_module, "BATCH_FRAMES", 4)
    for cut in (1, 2, 3, 5):
        inner = Noisy()
        through(FrameByFrame(inner), frames_of(5), cut=cut)
        assert inner.batches == wanted


def test_card_says_so() -> None:
    card = FrameByFrame(Noisy()).card
    assert (card.name, card.title) == ("noisy-frames", "Noisy, frame by frame")
    assert (card.compression, card.frames, card.tile) == ((1, 16, 16), (1, 0), (1, 16, 32))
    assert card.modalities == ("video",)
    assert card.paper_row is None
    inner = Noisy()
    inner.card = replace(inner.card, compression=(4, 16, 16))
    assert FrameByFrame(inner).card.compression == (1, 16, 16)


def test_a_search_sees_all_frames_and_is_restored() -> None:
    frames = frames_of(6)
    small = clip(3, 3, 32, 32)

    def broken() -> Iterator[np.ndarray]:
        yield frames.numpy()[:2]
        raise SampleError("b", "truncated")

    inner = create_jpeg("@2.5", device="cpu", dtype="float32")
    inner.prepare([*frames.numpy(), *frames.numpy()[:2], *small.numpy()])
    tokenizer = FrameByFrame(create_jpeg("@2.5", device="cpu", dtype="float32"))
    assert tokenizer.needs_prepare
    tokenizer.prepare_clips(
        [
            (SHAPE, partial(iter, [frames.numpy()])),
            (SHAPE, broken),
            (ClipShape(height=32, width=32, rate=SHAPE.rate), partial(iter, [small.numpy()])),
        ]
    )
    assert tokenizer.card.settings == inner.card.settings
    other = FrameByFrame(create_jpeg("@2.5", device="cpu", dtype="float32"))
    other.restore(tokenizer.card.settings)
    assert other.card == tokenizer.card
    assert torch.equal(through(other, frames)[0], through(tokenizer, frames)[0])


@pytest.mark.parametrize("cut", [(10,), (1,) * 10, (3, 7), (4, 4, 2), (9, 1)])
def test_regrouped_frames_are_the_same(cut: tuple[int, ...]) -> None:
    frames = torch.arange(10)[:, None, None, None]
    held = list(regrouped(frames.split_with_sizes(cut), 4))
    assert [len(block) for block in held] == [4, 4, 2]
    assert torch.equal(torch.cat(held), frames)


def test_a_source_may_reuse_its_memory() -> None:
    def reusing() -> Iterator[Tensor]:
        block = torch.empty(3, 1, 1, 1)
        for index in range(4):
            yield block.fill_(index)

    held = [block.flatten().tolist() for block in regrouped(reusing(), 4)]
    assert held == [[0, 0, 0, 1], [1, 1, 2, 2], [2, 3, 3, 3]]


def test_first_frames_reads_no_further_and_closes() -> None:
    log: list[str] = []

    def source() -> Iterator[np.ndarray]:
        try:
            for index in range(100):
                log.append(f"block {index}")
                yield np.full((3, 2, 2, 3), index)
        finally:
            log.append("closed")

    assert [int(frame.max()) for frame in first_frames(source, 4)] == [0, 0, 0, 1]
    assert log == ["block 0", "block 1", "closed"]


def test_any_image_row_by_its_specification() -> None:
    tokenizer = create("jpeg:40", device="cpu", dtype="float32")
    assert tokenizer.card.name == "jpeg-40-frames"
    inner = FrameByFrame(create_jpeg("40", device="cpu", dtype="float32"))
    assert torch.equal(through(tokenizer, frames_of(3))[0], through(inner, frames_of(3))[0])
    both = create("atoken:atoken-nano", device="cpu", dtype="float32")
    assert (both.card.compression, both.card.tile) == ((1, 16, 16), (1, None, None))
    with pytest.raises(BenchError, match="frames needs a tokenizer"):
        create(None, device="cpu", dtype="float32")
    with pytest.raises(BenchError, match="frames:h264:30: h264-crf30 takes no images"):
        create("h264:30", device="cpu", dtype="float32")
