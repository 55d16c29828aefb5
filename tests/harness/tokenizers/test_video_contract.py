"""The adapter check on videos passes what holds the contract and names each way of breaking it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.data.base import ClipShape
from harness.tokenizers.base import Adapter, LatentMode, TokenizerCard
from harness.tokenizers.codecs import create_jpeg
from harness.tokenizers.contract import check_adapter
from harness.tokenizers.frames import FrameByFrame
from harness.tokenizers.identity import create as create_identity
from harness.tokenizers.linear import create_pca
from harness.tokenizers.linear_video import create_dct3d, create_pca3d
from harness.tokenizers.video import EncodedPart, VideoTokenizer
from harness.tokenizers.video_codecs import create_av1, create_h264


def of_frames(create: Callable[..., Any]) -> Callable[..., Adapter]:
    return lambda argument, **options: FrameByFrame(create(argument, **options))


OURS: dict[str, tuple[Callable[..., Adapter], str | None]] = {
    "identity": (create_identity, None),
    "h264": (create_h264, "30"),
    "h264-rate": (create_h264, "@0.4"),
    "av1": (create_av1, "40"),
    "av1-rate": (create_av1, "@0.4"),
    "dct3d": (create_dct3d, "48"),
    "pca3d": (create_pca3d, "48"),
    "jpeg frame by frame": (of_frames(create_jpeg), "30"),
    "jpeg at a rate frame by frame": (of_frames(create_jpeg), "@1"),
    "pca frame by frame": (of_frames(create_pca), "48"),
}


@pytest.mark.parametrize("name", OURS)
def test_ours_hold_the_contract(name: str) -> None:
    create, argument = OURS[name]
    assert check_adapter(create(argument, device="cpu", dtype="float32")) == []


@pytest.mark.cuda
@pytest.mark.parametrize("name", OURS)
def test_ours_hold_the_contract_on_cuda(name: str) -> None:
    create, argument = OURS[name]
    assert check_adapter(create(argument, device="cuda", dtype="float32")) == []


class Toy(VideoTokenizer):
    """A VAE of tiles of 4 frames that stores pixels; holds the contract. Each fault below overrides one thing."""

    def __init__(self) -> None:
        self.card = TokenizerCard(
            name="toy",
            title="Toy",
            modalities=("video",),
            token_type="VAE",
            compression=(4, 16, 16),
            latent_size=4,
            frames=(4, 0),
            tile=(4, None, None),
            latent_modes=("mean", "sample"),
            source="a test",
        )

    def tiles(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        held = torch.empty(0)
        for block in frames:
            held = torch.cat([held, self.look(block) / 127.5 - 1])
            while len(held) >= 4:
                yield held[:4]
                held = held[4:]
        if len(held):
            yield held

    def look(self, block: Tensor) -> Tensor:
        return block

    def encode_clip(
        self, frames: Iterator[Tensor], shape: ClipShape, *, latent: LatentMode, seed: int
    ) -> Iterator[Any]:
        random = torch.Generator().manual_seed(seed)
        for tile in self.tiles(frames):
            yield self.part(self.one(tile, latent, random))

    def one(self, tile: Tensor, latent: LatentMode, random: torch.Generator) -> Tensor:
        return tile + 0.05 * torch.randn(tile.shape, generator=random) if latent == "sample" else tile

    def part(self, tile: Tensor) -> Any:
        return EncodedPart(payload=tile, tokens=-(-tile.shape[1] // 16) * -(-tile.shape[2] // 16))

    def decode_clip(self, parts: Iterator[EncodedPart], shape: ClipShape) -> Iterator[Any]:
        for part in parts:
            yield self.back(part.payload)

    def back(self, tile: Tensor) -> Any:
        return tile


class Codes(Toy):
    """A discrete tokenizer that holds the contract: the mean grey of a tile as the code of each token."""

    def __init__(self) -> None:
        super().__init__()
        self.card = replace(self.card, token_type="VQ", codebook_size=256, latent_modes=("mean",))

    def part(self, tile: Tensor) -> Any:
        part = super().part(tile)
        codes = torch.full((part.tokens, 1), int(127.5 + 127 * tile.mean()))
        return replace(part, bits=8.0 * part.tokens, codes=codes)


@pytest.mark.parametrize("adapter", [Toy, Codes])
def test_a_good_adapter_has_no_fault(adapter: Callable[[], VideoTokenizer]) -> None:
    state = torch.get_rng_state()
    assert check_adapter(adapter()) == []
    assert torch.equal(state, torch.get_rng_state())


class DropsTheTail(Toy):
    def tiles(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        return (tile for tile in super().tiles(frames) if len(tile) == 4)


class CompletesTheTail(Toy):
    def back(self, tile: Tensor) -> Any:
        return torch.cat([tile, *[tile[-1:]] * (4 - len(tile))])


class CutsByBlocks(Toy):
    def tiles(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        for block in frames:
            yield block / 127.5 - 1 + 1e-2 * len(block)


class CountsBlocks(Toy):
    def encode_clip(self, frames: Iterator[Tensor], shape: ClipShape, **options: Any) -> Iterator[Any]:
        whole = list(frames)
        for part in super().encode_clip(iter(whole), shape, **options):
            yield replace(part, tokens=len(whole))


class RemembersTheLastSize(Toy):
    height = 32

    def encode_clip(self, frames: Iterator[Tensor], shape: ClipShape, **options: Any) -> Iterator[Any]:
        for part in super().encode_clip(frames, shape, **options):
            yield replace(part, payload=part.payload + 1e-4 * self.height)
        self.height = shape.height


class CleansUpAtTheEnd(Toy):
    tiles_before = 0

    def encode_clip(self, frames: Iterator[Tensor], shape: ClipShape, **options: Any) -> Iterator[Any]:
        for part in super().encode_clip(frames, shape, **options):
            self.tiles_before += 1
            yield replace(part, payload=part.payload + 1e-4 * self.tiles_before)
        self.tiles_before = 0


class DrawsGlobally(Toy):
    def one(self, tile: Tensor, latent: LatentMode, random: torch.Generator) -> Tensor:
        return tile + 0.01 * torch.randn(tile.shape)


class WritesInputs(Toy):
    def look(self, block: Tensor) -> Tensor:
        return block.mul_(0).add_(7)


class FromZeroToOne(Toy):
    def back(self, tile: Tensor) -> Any:
        return (tile + 1) / 2


class BlueFirst(Toy):
    def back(self, tile: Tensor) -> Any:
        return tile.flip(-1)


class Doubles(Toy):
    def back(self, tile: Tensor) -> Any:
        return tile.double()


class DividesByZero(Toy):
    def back(self, tile: Tensor) -> Any:
        return tile * torch.where(tile == tile.max(), torch.nan, 1.0)


class ChannelsFirst(Toy):
    def back(self, tile: Tensor) -> Any:
        return tile.permute(0, 3, 1, 2)


class CropsToPatches(Toy):
    def back(self, tile: Tensor) -> Any:
        return tile[:, : max(16, tile.shape[1] // 16 * 16)]


class GivesArrays(Toy):
    def back(self, tile: Tensor) -> Any:
        return tile.numpy()


class CollectsTheClip(Toy):
    def encode_clip(self, frames: Iterator[Tensor], shape: ClipShape, **options: Any) -> Iterator[Any]:
        yield from super().encode_clip(iter(list(frames)), shape, **options)


class IgnoresSeeds(Toy):
    def encode_clip(self, frames: Iterator[Tensor], shape: ClipShape, **options: Any) -> Iterator[Any]:
        yield from super().encode_clip(frames, shape, **{**options, "seed": 0})


class RepeatsItsNoise(Toy):
    def one(self, tile: Tensor, latent: LatentMode, random: torch.Generator) -> Tensor:
        return super().one(tile, latent, torch.Generator().manual_seed(random.initial_seed()))


class SamplesTheMean(Toy):
    def one(self, tile: Tensor, latent: LatentMode, random: torch.Generator) -> Tensor:
        return super().one(tile, "sample", random)


class YieldsTensors(Toy):
    def part(self, tile: Tensor) -> Any:
        return tile


class CountsNothing(Toy):
    def part(self, tile: Tensor) -> Any:
        return EncodedPart(payload=tile, tokens=0)


class Raises(Toy):
    def back(self, tile: Tensor) -> Any:
        raise ZeroDivisionError("no luck")


class ForgetsWhatItFound(Toy):
    needs_prepare = True


class WithoutRate(Codes):
    def part(self, tile: Tensor) -> Any:
        return replace(super().part(tile), bits=None)


class RateOfTheFirstTile(Toy):
    first = True

    def part(self, tile: Tensor) -> Any:
        self.first = not self.first
        return replace(super().part(tile), bits=None if self.first else 8.0)


class NegativeRate(Codes):
    def part(self, tile: Tensor) -> Any:
        return replace(super().part(tile), bits=-1.0)


class BeyondTheCodebook(Codes):
    def part(self, tile: Tensor) -> Any:
        part = super().part(tile)
        return replace(part, codes=part.codes + 256)


class FlatCodes(Codes):
    def part(self, tile: Tensor) -> Any:
        part = super().part(tile)
        return replace(part, codes=part.codes.flatten())


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        (DropsTheTail, "1 frames of 32x48 come back as 0"),
        (CompletesTheTail, "1 frames of 32x48 come back as 4"),
        (CutsByBlocks, "in blocks of 1 differ by"),
        (CountsBlocks, "in blocks of 7, 1, 16, 9 take"),
        (RemembersTheLastSize, "a clip changes with the clip before it"),
        (CleansUpAtTheEnd, "after another was given up midway"),
        (DrawsGlobally, "another global random state"),
        (WritesInputs, "writes into the frames"),
        (FromZeroToOne, "flat black"),
        (BlueFirst, "flat red"),
        (Doubles, "torch.float64"),
        (DividesByZero, "NaN"),
        (ChannelsFirst, "decode_clip yields (1, 3, 32, 48); blocks of (n, 32, 48, 3) are wanted"),
        (CropsToPatches, "decode_clip yields (4, 32, 53, 3); blocks of (n, 37, 53, 3) are wanted"),
        (GivesArrays, "decode_clip yields a ndarray"),
        (CollectsTheClip, "takes more than 48 frames before the first comes back"),
        (IgnoresSeeds, "the seed changes nothing"),
        (RepeatsItsNoise, "two tiles of 4 frames that do not move get the same noise"),
        (SamplesTheMean, "mean: the result changes with the seed"),
        (YieldsTensors, "encode_clip yields a Tensor, not an EncodedPart"),
        (CountsNothing, "parts count [0] tokens"),
        (Raises, "raised ZeroDivisionError: no luck"),
        (ForgetsWhatItFound, "must take found settings back"),
        (WithoutRate, "must give bits and codes"),
        (RateOfTheFirstTile, "of 2 parts give bits; all or none"),
        (NegativeRate, "numbers of a positive sum are wanted"),
        (BeyondTheCodebook, "codebook_size is 256"),
        (FlatCodes, "integers of shape"),
    ],
)
def test_each_fault_is_named(adapter: Callable[[], VideoTokenizer], said: str) -> None:
    faults = check_adapter(adapter())
    assert any(said in fault for fault in faults), faults
    assert len(set(faults)) == len(faults)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"modalities": ("image", "video")}, "modalities"),
        ({"modalities": ("image",)}, "modalities"),
        ({"frames": (4, 4)}, "frames"),
        ({"frames": (4,)}, "frames"),
        ({"tile": (0, None, None)}, "tile"),
        ({"tile": (16, None)}, "tile"),
        ({"tile": (16, 2.5, None)}, "tile"),
    ],
)
def test_each_card_fault_is_named(change: dict[str, Any], said: str) -> None:
    toy = Toy()
    toy.card = replace(toy.card, **change)
    faults = check_adapter(toy)
    assert len(faults) == 1
    assert faults[0].startswith("card: ")
    assert said in faults[0]


def test_sides_follow_the_cards_multiple() -> None:
    class Strict(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.card = replace(self.card, multiple=(16, 8))

        def look(self, block: Tensor) -> Tensor:
            assert block.shape[1] % 16 == 0
            assert block.shape[2] % 8 == 0
            return block

    assert check_adapter(Strict()) == []


def test_a_tokenizer_that_does_not_cut_time_may_take_the_whole_clip() -> None:
    patient = CollectsTheClip()
    patient.card = replace(patient.card, tile=(None, None, None))
    assert check_adapter(patient) == []


def test_random_weights_need_not_give_colours_back() -> None:
    class Grey(Toy):
        def back(self, tile: Tensor) -> Any:
            return 0.1 * tile

    assert any("flat" in fault for fault in check_adapter(Grey()))
    assert check_adapter(Grey(), trained=False) == []
