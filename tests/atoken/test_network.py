"""Parts of a patch's channels: what is left out is what would have been multiplied by zero or cut off."""

from __future__ import annotations

import torch

from atoken.config import ATokenConfig, TransformerConfig
from atoken.patches import pack_pixels
from atoken.tokenizer import AToken

HALF = TransformerConfig(width=32, blocks=2, heads=2, mlp=48)
TINY = ATokenConfig(name="tiny-test", encoder=HALF, decoder=HALF, latent_channels=8)
FRAME = 3 * 16 * 16


def test_an_images_first_frame_is_all_that_it_needs() -> None:
    torch.manual_seed(0)
    model = AToken(TINY)
    tokens = pack_pixels([torch.rand(48, 32, 3) * 2 - 1, torch.rand(32, 32, 3) * 2 - 1])
    plan = model.plan(tokens)
    found = []
    for narrow in (False, True):
        given = tokens.with_features(tokens.features[:, :FRAME].contiguous()) if narrow else tokens
        mean = model.forward_encoder(given, plan)[1].chunk(2, dim=-1)[0]
        rebuilt = model.forward_decoder(given.with_features(mean), plan, channels=FRAME if narrow else None)
        loss = (rebuilt[:, :FRAME] - tokens.features[:, :FRAME]).square().mean()
        ends = [model.encoder.input_layer.weight, model.decoder.out_layer.weight]
        found.append([mean, rebuilt[:, :FRAME], *torch.autograd.grad(loss, ends)])
        assert rebuilt.shape[1] == (FRAME if narrow else TINY.token_channels)
    for whole, part in zip(*found, strict=True):
        torch.testing.assert_close(part, whole, atol=1e-6, rtol=1e-5)
