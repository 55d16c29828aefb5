"""The terms of an asset against its pictures, drawn and compared one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from atoken.assets import splat
from atoken.assets.gaussian_decoder import GaussianDecoderConfig
from atoken.config import ATokenConfig, TransformerConfig
from atoken.tokenizer import AToken
from atoken.training.losses import MSE_FLOOR
from atoken.training.recipe import Losses
from atoken.training.start.gaussians import start_gaussians
from atoken.training.tasks import AssetTask
from atoken.training.terms import reconstruct
from atoken.training.trainee import Trainee
from tests.atoken.training.samples import batches, stage

HALF = TransformerConfig(width=64, blocks=1, heads=2, mlp=64)
SHAPE = GaussianDecoderConfig(width=48, blocks=1, heads=2, mlp=32, gaussians=2)
SIDE = 16


def test_an_assets_pictures_are_compared_on_black_and_on_white() -> None:
    torch.manual_seed(0)
    model = AToken(ATokenConfig(name="terms-test", encoder=HALF, decoder=HALF))
    model.attach_gaussians(start_gaussians(SHAPE, seed=0))
    task = AssetTask(samples=2, share=1, renders=3, render_size=SIDE)
    (pack,) = batches(plan=stage(asset_recon=task), limit=1000).batch("asset_recon", 0).packs
    tokens = pack.tokens(pack.patch)
    noise = torch.zeros(len(tokens.coords), model.config.latent_channels)
    losses = Losses(pictures_log_mse=1.0)
    found = reconstruct(Trainee(model), tokens, pack, noise, plan=model.plan(tokens), losses=losses)

    assert pack.renders is not None
    voxels = model.forward_decoder(tokens.with_features(model.forward_encoder(tokens)[1][:, :48]))[:, :768]
    absolute = logarithm = 0.0
    decoder, start = model.gaussian_decoder, 0
    assert decoder is not None
    for count, pictures, cameras in zip(tokens.lengths, pack.renders.pictures, pack.renders.cameras, strict=True):
        rows, places = voxels[start : start + count], tokens.coords[start : start + count, 1:].long()
        gaussians = decoder.gaussians(decoder(rows, places, (count,)), places)
        differences = []
        for picture, camera in zip(pictures, cameras, strict=True):
            drawn = splat.render(gaussians, camera, SIDE, SIDE).detach().numpy().astype(np.float64)
            wanted = picture.numpy() / 255.0
            for ground in (0.0, 1.0):
                shown = [part[..., :3] + ground * (1 - part[..., 3:]) for part in (drawn, wanted)]
                differences.append(2 * (shown[0] - shown[1]))  # of [-1, 1]
        absolute += float(np.abs(differences).mean())
        logarithm += float(np.log(np.square(differences).mean() + MSE_FLOOR))
        start += count
    assert found["l1"].item() == pytest.approx(absolute, rel=1e-4)
    assert found["pictures_log_mse"].item() == pytest.approx(logarithm, abs=1e-3)
    assert "pictures_log_mse" not in reconstruct(
        Trainee(model), tokens, pack, noise, plan=model.plan(tokens), losses=Losses()
    )
