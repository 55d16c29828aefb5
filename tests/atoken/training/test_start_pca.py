"""The untrained model is the PCA, and looks at its neighbours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import to_dtype

from atoken.attention import Segments
from atoken.config import ATokenConfig, TransformerConfig
from atoken.patches import pack_pixels
from atoken.tokenizer import AToken
from atoken.training.data import patches
from atoken.training.errors import TrainingError
from atoken.training.start.basis import Basis, fit_basis
from atoken.training.start.grow import with_frames
from atoken.training.start.pca import NEIGHBOURS, initialise
from tests.atoken.training.pictures import picture

HALF = TransformerConfig(width=48, blocks=2, heads=2, mlp=48)
TINY = ATokenConfig(name="tiny-test", encoder=HALF, decoder=HALF, latent_channels=12)
PHOTOS = [picture(seed, 256, 256) for seed in range(3)]


@pytest.fixture(scope="module")
def basis() -> Basis:
    return fit_basis([patches([photo]) for photo in PHOTOS])


def psnr(rebuilt: np.ndarray, original: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((rebuilt.astype(float) - original) ** 2))


def started(config: ATokenConfig, basis: Basis, latent_std: float = 0.02) -> AToken:
    model = AToken(replace(config, patch=(1, 16, 16))).eval()
    initialise(model, basis, latent_std=latent_std, seed=0)
    return model


def test_the_basis_is_that_of_a_singular_value_decomposition(basis: Basis) -> None:
    rows = patches(PHOTOS)
    _, values, vectors = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    np.testing.assert_allclose(basis.mean, rows.mean(0), atol=1e-6)
    np.testing.assert_allclose(basis.variances[:20], values[:20] ** 2 / len(rows), rtol=1e-4)
    overlap = np.abs((vectors[:6] * basis.components[:, :6].numpy().T).sum(1))
    np.testing.assert_allclose(overlap, 1.0, atol=1e-3)


def of_pca(basis: Basis, photo: np.ndarray, count: int) -> np.ndarray:
    """A photograph of 256 x 256 from the first coefficients of its patches."""
    mean, kept = basis.mean.double().numpy(), basis.components[:, :count].double().numpy()
    rebuilt = (patches([photo]) - mean) @ kept @ kept.T + mean
    cells = rebuilt.reshape(16, 16, 16, 16, 3).transpose(0, 2, 1, 3, 4).reshape(256, 256, 3)
    return ((cells + 1.0) * 127.5).clip(0, 255).round().astype(np.uint8)


def test_the_untrained_model_reconstructs_like_the_pca(basis: Basis) -> None:
    model = started(TINY, basis)
    ours = np.mean([psnr(out, photo) for out, photo in zip(model.decode(model.encode(PHOTOS)), PHOTOS, strict=True)])
    theirs = np.mean([psnr(of_pca(basis, photo, TINY.latent_channels), photo) for photo in PHOTOS])
    assert ours == pytest.approx(theirs, abs=0.1)


def test_latents_have_unit_variance_and_the_posterior_its_width(basis: Basis) -> None:
    latents = started(TINY, basis, latent_std=0.05).encode(PHOTOS)
    std = latents.mean.features.std(dim=0)
    assert std.min() > 0.9
    assert std.max() < 1.1
    np.testing.assert_allclose(latents.std, 0.05, rtol=0.15)


def test_each_head_looks_at_its_neighbour(basis: Basis, monkeypatch: pytest.MonkeyPatch) -> None:
    model, side, seen = started(TINY, basis), 8, []

    def spy(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, segments: Segments) -> torch.Tensor:
        scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
        seen.append(scores.softmax(-1))
        return torch.zeros_like(q)

    monkeypatch.setattr("atoken.transformer.attend", spy)
    model.decode(model.encode([PHOTOS[0][: 16 * side, : 16 * side]]))
    assert len(seen) == 4  # two blocks in each half
    for layer, weights in enumerate(seen):
        for head, weight in enumerate(weights):
            dy, dx = NEIGHBOURS[layer % 2][head]
            for y, x in ((3, 3), (2, 5), (5, 4)):
                assert int(weight[y * side + x].argmax()) == (y + dy) * side + x + dx


def test_the_full_model_gives_the_same_image(basis: Basis) -> None:
    model = started(TINY, basis)
    # As after training: nothing is zero.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    full = with_frames(model, TINY.patch[0])
    assert full.config == TINY
    photo = PHOTOS[0][:64, :80]
    latents, wide = model.encode([photo]), full.encode([photo])
    torch.testing.assert_close(wide.mean.features, latents.mean.features, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(full.decode_pixels(wide)[0], model.decode_pixels(latents)[0], atol=1e-5, rtol=1e-5)
    features = full.forward_decoder(wide.mean)
    assert not features[:, 768:].any()


def test_one_frame_patches_give_an_image_the_gradients_of_four(basis: Basis) -> None:
    model = started(TINY, basis)
    full = with_frames(model, TINY.patch[0])
    photo = to_dtype(torch.from_numpy(PHOTOS[1][:48, :48]), torch.float32, scale=True) * 2 - 1
    gradients = []
    for net, frames in ((model, 1), (full, 4)):
        tokens = pack_pixels([photo], patch=(frames, 16, 16))
        moments = net.forward_encoder(tokens)[1]
        rebuilt = net.forward_decoder(tokens.with_features(moments[:, : TINY.latent_channels]))
        loss = (rebuilt[:, :768] - tokens.features[:, :768]).square().mean()
        weight = net.encoder.input_layer.weight
        gradients.append(torch.autograd.grad(loss, weight)[0])
    torch.testing.assert_close(gradients[1][:, :768], gradients[0], atol=1e-5, rtol=1e-4)
    assert not gradients[1][:, 768:].any()


def test_a_model_that_is_too_narrow(basis: Basis) -> None:
    half = TransformerConfig(width=48, blocks=1, heads=2, mlp=16)
    narrow = ATokenConfig(name="narrow", encoder=half, decoder=half, latent_channels=48)
    with pytest.raises(TrainingError, match="narrow: widths must exceed its 48 latents"):
        started(narrow, basis)
    started(replace(narrow, latent_channels=45), basis)


def test_a_model_with_patches_of_several_frames(basis: Basis) -> None:
    with pytest.raises(TrainingError, match="tiny-test: a PCA of images fills patches of 1 frame, not 4"):
        initialise(AToken(TINY), basis, latent_std=0.02, seed=0)
