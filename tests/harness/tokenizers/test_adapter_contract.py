"""The adapter check passes what holds the contract and names each way of breaking it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness import registry
from harness.tokenizers.base import Encoded, LatentMode, Tokenizer, TokenizerCard
from harness.tokenizers.contract import check_adapter

OURS = ("identity", "jpeg:30", "jpeg@0.4", "webp:30", "webp@0.5", "dct:12", "dct:48", "pca:48")


@pytest.mark.parametrize("spec", OURS)
def test_ours_hold_the_contract(spec: str) -> None:
    tokenizer = registry.create_tokenizer(spec, ckpt=None, preset=None, device="cpu", dtype="float32")
    assert check_adapter(tokenizer) == []


@pytest.mark.cuda
@pytest.mark.parametrize("spec", OURS)
def test_ours_hold_the_contract_on_cuda(spec: str) -> None:
    tokenizer = registry.create_tokenizer(spec, ckpt=None, preset=None, device="cuda", dtype="float32")
    assert check_adapter(tokenizer) == []


class Toy(Tokenizer):
    """A VAE of 16x16 patches that stores pixels; holds the contract. Each fault below overrides one thing."""

    def __init__(self) -> None:
        self.card = TokenizerCard(
            name="toy",
            title="Toy",
            token_type="VAE",
            compression=(1, 16, 16),
            latent_size=4,
            latent_modes=("mean", "sample"),
            source="a test",
        )

    def encode(self, images: Sequence[Tensor], *, latent: LatentMode, seeds: Sequence[int]) -> Encoded:
        payload = [self.one(x, latent, seed) for x, seed in zip(images, seeds, strict=True)]
        return Encoded(payload=payload, tokens=[self.token_count(x.shape[1], x.shape[2]) for x in images])

    def one(self, image: Tensor, latent: LatentMode, seed: int) -> Tensor:
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
        return image + 0.05 * noise if latent == "sample" else image.clone()

    def decode(self, encoded: Encoded) -> Any:
        return list(encoded.payload)


class Codes(Toy):
    """A discrete tokenizer that holds the contract: the mean grey of each patch as one of 256 codes."""

    def __init__(self) -> None:
        super().__init__()
        self.card = replace(self.card, token_type="VQ", codebook_size=256, latent_modes=("mean",))

    def encode(self, images: Sequence[Tensor], *, latent: LatentMode, seeds: Sequence[int]) -> Encoded:
        encoded = super().encode(images, latent=latent, seeds=seeds)
        codes = [torch.full((n, 1), int(127.5 + 127 * x.mean())) for n, x in zip(encoded.tokens, images, strict=True)]
        return replace(encoded, bits=[8.0 * n for n in encoded.tokens], codes=codes)


@pytest.mark.parametrize("adapter", [Toy, Codes])
def test_a_good_adapter_has_no_fault(adapter: Callable[[], Tokenizer]) -> None:
    state = torch.get_rng_state()
    assert check_adapter(adapter()) == []
    assert torch.equal(state, torch.get_rng_state())


class SwapsTwins(Toy):
    def decode(self, encoded: Encoded) -> Any:
        images = list(encoded.payload)
        return [images[1], images[0], *images[2:]] if len(images) > 2 else images


class CentresTheBatch(Toy):
    def decode(self, encoded: Encoded) -> Any:
        centre = torch.stack([x.mean() for x in encoded.payload]).mean()
        return [x - centre + x.mean() for x in encoded.payload]


class DrawsGlobally(Toy):
    def one(self, image: Tensor, latent: LatentMode, seed: int) -> Tensor:
        return image + 0.01 * torch.randn(image.shape)


class Remembers(Toy):
    calls = 0

    def one(self, image: Tensor, latent: LatentMode, seed: int) -> Tensor:
        self.calls += 1
        return super().one(image, latent, seed) + 1e-6 * self.calls


class WritesInputs(Toy):
    def one(self, image: Tensor, latent: LatentMode, seed: int) -> Tensor:
        return image.mul_(0.9)


class FromZeroToOne(Toy):
    def decode(self, encoded: Encoded) -> Any:
        return [(x + 1) / 2 for x in encoded.payload]


class BlueFirst(Toy):
    def decode(self, encoded: Encoded) -> Any:
        return [x.flip(0) for x in encoded.payload]


class Doubles(Toy):
    def decode(self, encoded: Encoded) -> Any:
        return [x.double() for x in encoded.payload]


class DividesByZero(Toy):
    def decode(self, encoded: Encoded) -> Any:
        return [x * torch.where(x == x.max(), torch.nan, 1.0) for x in encoded.payload]


class CropsToPatches(Toy):
    def decode(self, encoded: Encoded) -> Any:
        return [x[:, : max(16, x.shape[1] // 16 * 16), : max(16, x.shape[2] // 16 * 16)] for x in encoded.payload]


class LosesOne(Toy):
    def decode(self, encoded: Encoded) -> Any:
        return list(encoded.payload)[:1]


class GivesATensor(Toy):
    def decode(self, encoded: Encoded) -> Any:
        return encoded.payload[0]


class IgnoresSeeds(Toy):
    def one(self, image: Tensor, latent: LatentMode, seed: int) -> Tensor:
        return super().one(image, latent, 0)


class SharesTheFirstSeed(Toy):
    def encode(self, images: Sequence[Tensor], *, latent: LatentMode, seeds: Sequence[int]) -> Encoded:
        return super().encode(images, latent=latent, seeds=[sum(seeds) + i for i in range(len(images))])


class SamplesTheMean(Toy):
    def one(self, image: Tensor, latent: LatentMode, seed: int) -> Tensor:
        return super().one(image, "sample", seed)


class CountsWrongly(Toy):
    def encode(self, images: Sequence[Tensor], *, latent: LatentMode, seeds: Sequence[int]) -> Encoded:
        return replace(super().encode(images, latent=latent, seeds=seeds), tokens=[1] * len(images))


class Raises(Toy):
    def decode(self, encoded: Encoded) -> Any:
        raise ZeroDivisionError("no luck")


class ForgetsWhatItFound(Toy):
    needs_prepare = True


class WithoutRate(Codes):
    def encode(self, images: Sequence[Tensor], *, latent: LatentMode, seeds: Sequence[int]) -> Encoded:
        return replace(super().encode(images, latent=latent, seeds=seeds), bits=None)


class NegativeRate(Codes):
    def encode(self, images: Sequence[Tensor], *, latent: LatentMode, seeds: Sequence[int]) -> Encoded:
        return replace(super().encode(images, latent=latent, seeds=seeds), bits=[-1.0] * len(images))


class BeyondTheCodebook(Codes):
    def encode(self, images: Sequence[Tensor], *, latent: LatentMode, seeds: Sequence[int]) -> Encoded:
        encoded = super().encode(images, latent=latent, seeds=seeds)
        return replace(encoded, codes=[codes + 256 for codes in encoded.codes or ()])


class FlatCodes(Codes):
    def encode(self, images: Sequence[Tensor], *, latent: LatentMode, seeds: Sequence[int]) -> Encoded:
        encoded = super().encode(images, latent=latent, seeds=seeds)
        return replace(encoded, codes=[codes.flatten() for codes in encoded.codes or ()])


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        (SwapsTwins, "differs"),
        (CentresTheBatch, "differs"),
        (DrawsGlobally, "another global random state"),
        (Remembers, "a second call"),
        (WritesInputs, "writes into the images"),
        (FromZeroToOne, "flat black"),
        (BlueFirst, "flat red"),
        (Doubles, "torch.float64"),
        (DividesByZero, "NaN"),
        (CropsToPatches, "(3, 37, 53) comes back as (3, 32, 48)"),
        (LosesOne, "1 reconstructions of 6 images"),
        (GivesATensor, "a list of as many is wanted"),
        (IgnoresSeeds, "the seed changes nothing"),
        (SharesTheFirstSeed, "with the seed of another image"),
        (SamplesTheMean, "mean: the result changes with the seed"),
        (CountsWrongly, "token_count"),
        (Raises, "raised ZeroDivisionError: no luck"),
        (ForgetsWhatItFound, "must take found settings back"),
        (WithoutRate, "must give bits and codes"),
        (NegativeRate, "one positive number per image"),
        (BeyondTheCodebook, "codebook_size is 256"),
        (FlatCodes, "integers of shape"),
    ],
)
def test_each_fault_is_named(adapter: Callable[[], Tokenizer], said: str) -> None:
    faults = check_adapter(adapter())
    assert any(said in fault for fault in faults), faults
    assert len(set(faults)) == len(faults)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "a/b"}, "folder name"),
        ({"title": " "}, "title"),
        ({"source": ""}, "source"),
        ({"token_type": "GAN"}, "token_type"),
        ({"modalities": ("video",)}, "modalities"),
        ({"latent_modes": ()}, "latent_modes"),
        ({"latent_modes": ("mean", "median")}, "latent_modes"),
        ({"multiple": (0, 16)}, "multiple"),
        ({"compression": (16, 16)}, "compression"),
        ({"latent_size": None}, "latent_size"),
        ({"codebook_size": 4096}, "codebook_size"),
        ({"weights_sha256": {"w.pt": "abc"}}, "w.pt"),
        ({"settings": {"device": torch.device("cpu")}}, "settings"),
    ],
)
def test_each_card_fault_is_named(change: dict[str, Any], said: str) -> None:
    toy = Toy()
    toy.card = replace(toy.card, **change)
    faults = check_adapter(toy)
    assert len(faults) == 1
    assert faults[0].startswith("card: ")
    assert said in faults[0]


def test_a_missing_card_is_a_fault() -> None:
    toy = Toy()
    del toy.card
    assert check_adapter(toy) == ["card is a NoneType, not a TokenizerCard"]


def test_sides_follow_the_cards_multiple() -> None:
    class Strict(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.card = replace(self.card, multiple=(16, 8))

        def one(self, image: Tensor, latent: LatentMode, seed: int) -> Tensor:
            assert image.shape[1] % 16 == 0
            assert image.shape[2] % 8 == 0
            return super().one(image, latent, seed)

    assert check_adapter(Strict()) == []


def test_random_weights_need_not_give_colours_back() -> None:
    class Grey(Toy):
        def decode(self, encoded: Encoded) -> Any:
            return [0.1 * x for x in encoded.payload]

    assert any("flat" in fault for fault in check_adapter(Grey()))
    assert check_adapter(Grey(), trained=False) == []


def test_tolerance_is_the_callers() -> None:
    class Coarse(Toy):
        def decode(self, encoded: Encoded) -> Any:
            return [x + 1e-3 * len(encoded.payload) for x in encoded.payload]

    assert any("alone differs" in fault for fault in check_adapter(Coarse()))
    assert check_adapter(Coarse(), tolerance=0.01) == []


def test_ones_own_tokenizer_by_module_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_package").mkdir()
    (tmp_path / "their_package" / "__init__.py").touch()
    (tmp_path / "their_package" / "halves.py").write_text(
        """
from harness.tokenizers.base import Encoded, Tokenizer, TokenizerCard


class Halves(Tokenizer):
    def __init__(self, levels):
        self.levels = levels
        self.card = TokenizerCard(name=f"halves-{levels}", title="Halves", token_type="transform", source="theirs")

    def encode(self, images, *, latent, seeds):
        tokens = [self.token_count(x.shape[1], x.shape[2]) for x in images]
        return Encoded(payload=[(x * self.levels).round() for x in images], tokens=tokens)

    def decode(self, encoded):
        return [x / self.levels for x in encoded.payload]


def create(argument, *, device, dtype):
    return Halves(int(argument or 2))
"""
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = "their_package.halves:create"
    for text, name in ((spec, "halves-2"), (f"{spec}:7", "halves-7")):
        tokenizer = registry.create_tokenizer(text, ckpt=None, preset=None, device="cpu", dtype="float32")
        assert tokenizer.card.name == name
        assert check_adapter(tokenizer) == []
