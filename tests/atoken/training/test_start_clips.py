"""Clips beside images: where both begin, a model does with each what its own components do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from atoken.config import ATokenConfig, TransformerConfig
from atoken.patches import pack_pixels
from atoken.tokenizer import AToken
from atoken.training.data import patches
from atoken.training.data.moving import moving_clip
from atoken.training.errors import TrainingError
from atoken.training.start.basis import Basis, fit_basis
from atoken.training.start.clips import held, refit
from atoken.training.start.grow import with_clips
from atoken.training.start.pca import initialise
from tests.atoken.training.pictures import picture

HALF = TransformerConfig(width=64, blocks=3, heads=2, mlp=64)
TINY = ATokenConfig(name="tiny-test", encoder=HALF, decoder=HALF, latent_channels=12, patch=(1, 16, 16))
PHOTOS = [picture(seed, 128, 128) for seed in range(4)]


def clip(seed: int) -> np.ndarray:
    random = torch.Generator().manual_seed(seed)
    return moving_clip(torch.from_numpy(PHOTOS[seed % 4]), frames=8, side=96, random=random).numpy()


def rows(frames: np.ndarray) -> np.ndarray:
    """Patches of four frames [n, 3072]."""
    return pack_pixels([frames]).features.double().numpy()


CLIPS = [clip(seed) for seed in range(40)]


@pytest.fixture(scope="module")
def bases() -> tuple[Basis, Basis]:
    return fit_basis([patches([photo]) for photo in PHOTOS]), fit_basis([rows(frames) for frames in CLIPS])


def images_alone(bases: tuple[Basis, Basis], config: ATokenConfig = TINY) -> AToken:
    started = AToken(config).eval()
    initialise(started, bases[0], latent_std=0.02, seed=0)
    return started


@pytest.fixture(scope="module")
def model(bases: tuple[Basis, Basis]) -> AToken:
    return with_clips(images_alone(bases), *bases)


def lost(basis: Basis, of: np.ndarray, count: int) -> float:
    """Mean squared error of the first components."""
    mean, kept = basis.mean.double().numpy(), basis.components[:, :count].double().numpy()
    return float(np.square((of - mean) @ kept @ kept.T + mean - of).mean())


def test_images_come_back_as_from_their_components(model: AToken, bases: tuple[Basis, Basis]) -> None:
    latents = model.encode(PHOTOS)
    rebuilt = np.concatenate([p.numpy().reshape(-1, 3) for p in model.decode_pixels(latents)])
    wanted = np.concatenate([photo.reshape(-1, 3) / 127.5 - 1 for photo in PHOTOS])
    error = float(np.square(rebuilt - wanted).mean())
    assert error == pytest.approx(lost(bases[0], patches(PHOTOS), 12), rel=0.02)
    assert latents.mean.features.shape[1] == 13
    assert latents.mean.features[:, -1].abs().max() < 1e-4


def test_clips_come_back_as_from_theirs(model: AToken, bases: tuple[Basis, Basis]) -> None:
    latents = model.encode(CLIPS)
    rebuilt = model.decode_pixels(latents)
    wanted = [torch.from_numpy(frames) / 127.5 - 1 for frames in CLIPS]
    error = float(np.mean([(a - b).square().mean() for a, b in zip(rebuilt, wanted, strict=True)]))
    of_clips = lost(bases[1], np.concatenate([rows(frames) for frames in CLIPS]), 12)
    assert error == pytest.approx(of_clips, rel=0.05)
    np.testing.assert_allclose(latents.mean.features[:, -1], 1.0, atol=0.2)


def test_a_grey_patch_of_a_clip_comes_back_grey(model: AToken) -> None:
    """No coefficient tells it from an image's; as an image it is still, which it is."""
    grey = np.full((8, 32, 32, 3), 128, np.uint8)
    rebuilt = model.decode(model.encode([grey]))[0]
    assert np.abs(rebuilt.astype(int) - 128).max() < 12


def test_images_and_clips_do_not_mix_in_a_pack(model: AToken) -> None:
    alone = model.encode([PHOTOS[0]]).mean.features, model.encode([CLIPS[0]]).mean.features
    both = model.encode([PHOTOS[0], CLIPS[0]]).mean.features
    torch.testing.assert_close(both, torch.cat(alone), atol=1e-4, rtol=1e-4)


def test_a_trained_model_keeps_most_of_what_it_knows(bases: tuple[Basis, Basis]) -> None:
    trained = images_alone(bases)
    # As after training: nothing is zero.
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.003)
    before = [p.numpy() for p in trained.decode_pixels(trained.encode(PHOTOS))]
    grown = with_clips(trained, *bases)
    after = [p.numpy() for p in grown.decode_pixels(grown.encode(PHOTOS))]
    wanted = [photo / 127.5 - 1 for photo in PHOTOS]
    moved = np.mean([np.square(a - b).mean() for a, b in zip(after, before, strict=True)])
    wrong = np.mean([np.square(b - w).mean() for b, w in zip(before, wanted, strict=True)])
    assert moved < wrong / 4
    flags = grown.encode(CLIPS).mean.features[:, -1]
    assert flags.min() > 0.5


def jolted(model: AToken, amount: float, kept: dict[str, torch.Tensor]) -> AToken:
    """The model after a step in any direction, but for what is kept."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            step = amount * torch.randn(parameter.shape, generator=generator)
            if name in kept:
                step[kept[name]] = 0.0
            parameter.add_(step)
    return model


def test_with_what_is_held_the_gates_stay_open(bases: tuple[Basis, Basis]) -> None:
    assert held(images_alone(bases)) == {}
    kept = held(with_clips(images_alone(bases), *bases))
    model = jolted(with_clips(images_alone(bases), *bases), 0.01, kept)
    flags = model.encode(CLIPS).mean.features[:, -1]
    assert 0.7 < flags.min() <= flags.max() < 1.3
    assert model.encode(PHOTOS).mean.features[:, -1].abs().max() < 0.1
    assert {name: mask.tolist() for name, mask in held(model).items()} == {n: m.tolist() for n, m in kept.items()}
    loose = jolted(with_clips(images_alone(bases), *bases), 0.01, {})
    assert (loose.encode(CLIPS).mean.features[:, -1] - 1).abs().max() > 1  # so it is this that it takes


def test_a_fit_takes_off_what_images_taught(bases: tuple[Basis, Basis]) -> None:
    trained = jolted(images_alone(bases), 0.003, {})
    grown = with_clips(trained, *bases)
    images = [p.numpy() for p in grown.decode_pixels(grown.encode(PHOTOS))]

    def error() -> float:
        rebuilt = grown.decode_pixels(grown.encode(CLIPS))
        pairs = zip(rebuilt, CLIPS, strict=True)
        return float(np.mean([(out - (torch.from_numpy(f) / 127.5 - 1)).square().mean() for out, f in pairs]))

    before = error()
    refit(grown, [pack_pixels([frames]) for frames in CLIPS])
    assert error() < before
    for new, old in zip(grown.decode_pixels(grown.encode(PHOTOS)), images, strict=True):
        np.testing.assert_allclose(new, old, atol=1e-3)


def test_what_makes_a_clips_coefficients_and_what_they_write_is_trained(bases: tuple[Basis, Basis]) -> None:
    started = with_clips(images_alone(bases), *bases)
    kept = held(started)
    tokens = pack_pixels(CLIPS[:2])
    mean = started.forward_encoder(tokens)[1].chunk(2, dim=-1)[0]
    (started.forward_decoder(tokens.with_features(mean)) - tokens.features).square().mean().backward()
    layer = started.encoder.input_layer.weight
    assert layer.grad is not None
    later = layer.grad.masked_fill(kept["encoder.input_layer.weight"], 0.0)[:, 768:]  # frames that images have not
    assert int((later.abs().sum(1) > 0).sum()) >= 12
    written = started.decoder.out_layer.weight.grad
    assert written is not None
    assert int((written[768:].abs().sum(0) > 0).sum()) >= 12
    assert "decoder.out_layer.weight" not in kept


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": replace(HALF, blocks=2)}, "clips beside images take 3 blocks in the encoder and MLPs of 32 "),
        ({"decoder": replace(HALF, mlp=16)}, "clips beside images take 3 blocks in the encoder and MLPs of 32 "),
        (
            {"encoder": replace(HALF, width=32)},
            "too narrow for clips beside images, with 12 latents each; give the stage before",
        ),
    ],
)
def test_a_model_that_cannot_carry_it(bases: tuple[Basis, Basis], change: dict[str, object], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        with_clips(images_alone(bases, replace(TINY, **change)), *bases)
