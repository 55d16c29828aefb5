"""Models grow between stages without a change in what they do, and what is new can be learned."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atoken.assets.gaussian_decoder import GaussianDecoder, GaussianDecoderConfig
from atoken.config import PRESETS, ATokenConfig, FSQConfig, TransformerConfig
from atoken.patches import pack_pixels
from atoken.tokenizer import AToken
from atoken.training.errors import TrainingError
from atoken.training.start.clips import held
from atoken.training.start.grow import with_blocks, with_frames, with_latents, with_quantizer

HALF = TransformerConfig(width=64, blocks=2, heads=2, mlp=48)
IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
CLIP = np.random.default_rng(1).integers(0, 256, (8, 32, 48, 3), dtype=np.uint8)


def trained(**changes: object) -> AToken:
    """As after training: no weight is zero."""
    torch.manual_seed(0)
    values = {"name": "tiny", "encoder": HALF, "decoder": HALF, "latent_channels": 32, "patch": (4, 16, 16)}
    model = AToken(ATokenConfig(**(values | changes))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def state_of(model: AToken) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize(
    ("make", "grow"),
    [
        (lambda: trained(patch=(1, 16, 16)), lambda model: with_frames(model, 4)),
        (trained, lambda model: with_latents(model, 48)),
        (trained, lambda model: with_blocks(model, 3, 4)),
        (lambda: trained(latent_channels=48), with_quantizer),
    ],
)
def test_the_model_that_grows_stays_as_it_is(make: Callable[[], AToken], grow: Callable[[AToken], AToken]) -> None:
    model = make()
    before, config = state_of(model), model.config
    grown = grow(model)
    with torch.no_grad():
        for parameter in grown.parameters():
            parameter.zero_()
    assert model.config == config
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


# -- Latents -------------------------------------------------------------------------------------


def test_more_latents_change_nothing_that_is_decoded() -> None:
    model = trained()
    grown = with_latents(model, 48)
    items = [IMAGE, CLIP]
    old, new = model.encode(items), grown.encode(items)
    torch.testing.assert_close(new.mean.features[:, :32], old.mean.features, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(new.logvar[:, :32], old.logvar, atol=1e-6, rtol=1e-6)
    for ours, theirs in zip(grown.decode_pixels(new), model.decode_pixels(old), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    # Neither does noise in the new latents.
    for ours, theirs in zip(grown.decode_pixels(new.sample(1)), model.decode_pixels(new_noise(new)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def new_noise(latents):
    sampled = latents.sample(1)
    return sampled.with_features(sampled.features[:, :32].contiguous())


def test_new_latents_say_something_new_about_as_loud() -> None:
    model = trained()
    grown = with_latents(model, 48)
    mean, logvar = grown.proj.weight.detach().chunk(2)
    overlap = mean[32:] @ mean.T
    torch.testing.assert_close(overlap[:, :32], torch.zeros(16, 32), atol=1e-5, rtol=0)
    length = mean[:32].square().sum(1).mean()
    torch.testing.assert_close(overlap[:, 32:], length * torch.eye(16), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logvar[32:], logvar[:32].mean(0).expand(16, -1))
    latents = grown.encode([IMAGE])
    old, new = latents.logvar[:, :32].mean(1), latents.logvar[:, 32:]
    torch.testing.assert_close(new, old.unsqueeze(1).expand(-1, 16), atol=1e-5, rtol=1e-5)


def test_new_latents_can_be_learned() -> None:
    """Zero on both sides would be a saddle: no gradient would ever reach either."""
    model = with_latents(trained(), 48).train()
    tokens = pack_pixels([IMAGE])

    def step() -> tuple[torch.Tensor, torch.Tensor, float]:
        moments = model.forward_encoder(tokens)[1]
        rebuilt = model.forward_decoder(tokens.with_features(moments[:, :48]))
        loss = (rebuilt - tokens.features).square().mean()
        columns, rows = model.decoder.input_layer.weight, model.proj.weight
        gradients = torch.autograd.grad(loss, [columns, rows])
        return gradients[0][:, 32:], gradients[1][32:48], loss.item()

    columns, rows, before = step()
    assert bool((columns.abs().amax(0) > 0).all())
    assert not rows.any()
    with torch.no_grad():
        model.decoder.input_layer.weight[:, 32:] -= 0.05 * columns / columns.norm()
    columns, rows, after = step()
    assert bool((rows.abs().amax(1) > 0).all())
    assert after < before


def test_the_rows_come_from_the_seed() -> None:
    model = trained()
    rows = [with_latents(model, 40, seed=seed).proj.weight[32:40] for seed in (3, 3, 4)]
    assert torch.equal(rows[0], rows[1])
    assert not torch.allclose(rows[0], rows[2])


@settings(max_examples=12, deadline=None)
@given(few=st.integers(1, 20), more=st.integers(1, 20), still=st.booleans(), frames=st.sampled_from([1, 2, 4]))
def test_growing_in_either_order_is_the_same(few: int, more: int, still: bool, frames: int) -> None:
    model = trained(latent_channels=few, patch=(1, 16, 16))
    first = with_latents(with_frames(model, frames, still=still), few + more)
    second = with_frames(with_latents(model, few + more), frames, still=still)
    assert first.config == second.config
    for (key, ours), theirs in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), key


# -- Frames --------------------------------------------------------------------------------------


def test_a_still_clip_comes_back_as_its_image_does() -> None:
    model = trained(patch=(1, 16, 16))
    grown = with_frames(model, 4, still=True)
    image = grown.decode_pixels(grown.encode([IMAGE]))[0]
    torch.testing.assert_close(image, model.decode_pixels(model.encode([IMAGE]))[0], atol=1e-5, rtol=1e-5)
    clip = grown.decode_pixels(grown.encode([np.stack([IMAGE] * 4)]))[0]
    torch.testing.assert_close(clip, image.expand(4, -1, -1, -1), atol=1e-5, rtol=1e-5)


def test_frames_after_the_first_start_grey_unless_still() -> None:
    grown = with_frames(trained(patch=(1, 16, 16)), 4)
    clip = grown.decode_pixels(grown.encode([CLIP]))[0]
    assert clip[[0, 4]].abs().min() > 0
    assert not clip[[1, 2, 3, 5, 6, 7]].any()


# -- Quantizer -----------------------------------------------------------------------------------


def test_a_quantized_model_has_the_same_weights_and_a_file(tmp_path) -> None:
    model = trained(latent_channels=48)
    discrete = with_quantizer(model)
    assert discrete.config.quantizer == FSQConfig()
    discrete.save_pretrained(tmp_path)
    back = AToken.from_pretrained(tmp_path)
    assert back.config == discrete.config
    assert list(back.state_dict()) == list(model.state_dict())
    for key, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[key], value), key
    codes = back.quantize(back.encode([IMAGE]))
    assert codes.is_codes
    assert back.decode(codes)[0].shape == IMAGE.shape


# -- All of them ---------------------------------------------------------------------------------


def test_names_are_those_of_the_release() -> None:
    assert with_latents(trained(name="so-c-s1"), 48).config.name == "so-c"
    assert with_quantizer(trained(name="so-c", latent_channels=48)).config.name == PRESETS["so-d"].name
    assert with_quantizer(trained(name="nano", latent_channels=48)).config.name == "nano-d"
    assert with_latents(trained(), 33).config.name == "tiny"
    assert with_latents(trained(), 33, name="mine").config.name == "mine"
    assert with_quantizer(trained(latent_channels=48), name="mine").config.name == "mine"


def test_a_gaussian_decoder_stays_attached_and_frozen_weights_frozen() -> None:
    model = trained()
    model.attach_gaussians(GaussianDecoder(GaussianDecoderConfig(width=24, blocks=1, heads=2, mlp=8, gaussians=2)))
    model.encoder.requires_grad_(False)
    grown = with_latents(model, 48)
    assert grown.gaussian_decoder is not None
    assert grown.gaussian_decoder is not model.gaussian_decoder
    for key, value in model.gaussian_decoder.state_dict().items():
        assert torch.equal(grown.gaussian_decoder.state_dict()[key], value), key
    assert not any(parameter.requires_grad for parameter in grown.encoder.parameters())
    assert all(parameter.requires_grad for parameter in grown.decoder.parameters())


# -- Blocks --------------------------------------------------------------------------------------


def test_more_blocks_change_nothing_and_can_be_learned() -> None:
    model = trained(latent_channels=48)
    grown = with_blocks(model, 4, 3, seed=5)
    assert (grown.config.encoder.blocks, grown.config.decoder.blocks) == (4, 3)
    items = [IMAGE, CLIP]
    old, new = model.encode(items), grown.encode(items)
    assert torch.equal(new.mean.features, old.mean.features)
    assert torch.equal(new.logvar, old.logvar)
    for ours, theirs in zip(grown.decode_pixels(new), model.decode_pixels(old), strict=True):
        assert torch.equal(ours, theirs)
    tokens = pack_pixels(items)
    moments = grown.train().forward_encoder(tokens)[1]
    rebuilt = grown.forward_decoder(tokens.with_features(moments[:, :48]))
    (rebuilt - tokens.features).square().mean().backward()
    # What writes begins at zero and has gradients at once; what reads has them after its first step.
    for block in (*grown.encoder.blocks[2:], grown.decoder.blocks[2]):
        for name in ("attn.to_out.weight", "mlp.mlp.2.weight"):
            assert not block.get_parameter(name).any()
            assert bool(block.get_parameter(name).grad.any())
        for name in ("attn.to_qkv.weight", "mlp.mlp.0.weight"):
            assert bool(block.get_parameter(name).any())
    first, second = (grown.encoder.get_parameter(f"blocks.{n}.mlp.mlp.0.weight") for n in (2, 3))
    assert not torch.equal(first, second)
    again = with_blocks(model, 4, 3, seed=5).encoder.get_parameter("blocks.3.mlp.mlp.0.weight")
    assert torch.equal(second, again)


def test_new_blocks_leave_the_clips_gate_alone() -> None:
    model = AToken.from_pretrained("atoken-nano")
    grown = with_blocks(model, 5, 4)
    before, after = held(model), held(grown)
    assert all(torch.equal(after[name], mask) for name, mask in before.items())
    for half, numbers in (("encoder", (3, 4)), ("decoder", (3,))):
        for number in numbers:
            name = f"{half}.blocks.{number}.mlp.mlp.0.weight"
            # No unit of theirs reads what tells clips from images: all that is held is that they never will.
            columns = after[name].all(dim=0)
            assert bool(columns.any())
            assert torch.equal(after[name], columns.expand_as(after[name]))
            assert not grown.get_parameter(name)[:, columns].any()
            assert float(grown.get_parameter(name).detach().std()) < 0.2


@pytest.mark.parametrize(
    ("grow", "line"),
    [
        (lambda: with_latents(trained(), 32), "tiny has 32 latents and is 64 wide: it cannot grow to 32"),
        (lambda: with_latents(trained(), 65), "cannot grow to 65"),
        (lambda: with_latents(with_quantizer(trained(latent_channels=48)), 60), "tiny-d: its quantizer owns all"),
        (lambda: with_quantizer(trained()), "tiny: FSQ takes 48 latents, it has 32"),
        (lambda: with_quantizer(with_quantizer(trained(latent_channels=48))), "tiny-d: has a quantizer already"),
        (lambda: with_blocks(trained(), 2, 1), "tiny: its decoder has 2 blocks, it cannot shrink to 1"),
        (lambda: with_frames(trained(), 4), "tiny: its patches have 4 frames already"),
        (lambda: with_frames(trained(patch=(1, 16, 16)), 3), "tiles of 16 frames cannot be cut into 3"),
    ],
)
def test_what_cannot_grow(grow: Callable[[], AToken], line: str) -> None:
    with pytest.raises(TrainingError, match=line):
        grow()
