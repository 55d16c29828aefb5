"""LPIPS against the package that defines it, the Gram loss against NumPy; one trunk serves both."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from atoken.errors import ATokenError
from atoken.training.losses import LpipsHeads, VGG16Trunk, gram_from, lpips
from atoken.training.losses.vgg import CHANNELS

FORMS = ("G1", "G2", "G3")
COSMOS = (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)  # PROTOCOLS 11.4


@pytest.fixture(scope="module")
def trunk() -> VGG16Trunk:
    return VGG16Trunk(random_for_tests=0)


@pytest.fixture(scope="module")
def heads() -> LpipsHeads:
    return LpipsHeads()


@pytest.fixture(scope="module")
def package(trunk: VGG16Trunk) -> nn.Module:
    """The package's own module, with its own heads and the same trunk."""
    import lpips as theirs
    from lpips.lpips import ScalingLayer

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package calls torchvision by its old names
        model = theirs.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
    with resources.as_file(resources.files("lpips") / "weights" / "v0.1" / "vgg.pth") as file:
        state = torch.load(file, map_location="cpu", weights_only=True)
    state |= {f"lins.{key[3:]}": value for key, value in state.items()}
    state |= {f"scaling_layer.{key}": value for key, value in ScalingLayer().state_dict().items()}
    for key in model.state_dict():
        kind, _, rest = key.partition(".")
        if kind == "net":
            state[key] = trunk.state_dict()["features." + rest.partition(".")[2]]
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def _pair(size: int = 48, error: float = 0.1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    original = torch.rand(3, 3, size, size, generator=generator) * 2 - 1
    return original + error * torch.randn(original.shape, generator=generator), original


def test_lpips_and_its_gradient_are_the_packages(trunk: VGG16Trunk, heads: LpipsHeads, package: nn.Module) -> None:
    rebuilt, original = _pair()
    rebuilt[2] = original[2]
    rebuilt.requires_grad_()
    ours, theirs = heads(trunk(rebuilt), trunk(original)), package(rebuilt, original).flatten()
    assert ours.shape == (3,)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)
    assert ours[2] == 0
    assert ours[0] > 1e-3
    mine, wanted = (torch.autograd.grad(value[:2].sum(), rebuilt)[0] for value in (ours, theirs))
    torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())


def test_lpips_of_equal_and_of_black_images_has_a_finite_gradient(trunk: VGG16Trunk, heads: LpipsHeads) -> None:
    images = torch.stack([torch.full((3, 32, 32), value) for value in (-1.0, 0.0)]).requires_grad_()
    (gradient,) = torch.autograd.grad(heads(trunk(images), trunk(images.detach())).sum(), images)
    assert not gradient.any()
    dead = [torch.zeros(1, channels, 2, 2, requires_grad=True) for channels in CHANNELS]
    alive = [torch.ones(1, channels, 2, 2) for channels in CHANNELS]
    gradients = torch.autograd.grad(heads(dead, alive).sum(), dead)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_each_pair_is_measured_alone(trunk: VGG16Trunk, heads: LpipsHeads) -> None:
    rebuilt, original = (trunk(images) for images in _pair())
    together = [heads(rebuilt, original), *(gram_from(rebuilt, original, form) for form in FORMS)]
    for item in range(3):
        one, other = ([features[item : item + 1] for features in maps] for maps in (rebuilt, original))
        alone = [heads(one, other), *(gram_from(one, other, form) for form in FORMS)]
        for values, value in zip(together, alone, strict=True):
            torch.testing.assert_close(values[item : item + 1], value, rtol=1e-5, atol=0)


def test_another_packages_heads_are_refused(heads: LpipsHeads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lpips, "SHA256", "0" * 64)
    with pytest.raises(ATokenError, match=r"vgg\.pth: not the linear heads .*install the package lpips again"):
        LpipsHeads()
    monkeypatch.setattr(lpips, "find_spec", lambda _: None)
    with pytest.raises(ATokenError, match="pip install lpips"):
        LpipsHeads()


def test_packages_that_only_a_term_needs_are_imported_late() -> None:
    program = "import sys, atoken.training.losses; print(*({'torchvision', 'lpips', 'open_clip'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""


def _literal(one: Sequence[Any], other: Sequence[Any], form: str) -> np.ndarray:
    """Eq. 5 term by term, in float64."""
    total = np.zeros(len(one[0]))
    for layer, pair in zip(COSMOS, zip(one, other, strict=True), strict=True):
        grams = []
        for features in pair:
            F = np.asarray(features, dtype=np.float64)
            _, C, H, W = F.shape
            if form == "G2":
                F = F / (np.sqrt((F**2).sum(axis=1, keepdims=True)) + 1e-10)
            G = np.einsum("nchw,ndhw->ncd", F, F)
            grams.append(G / (C * H * W if form == "G1" else H * W))
        squares = (grams[0] - grams[1]) ** 2
        total += layer * squares.mean(axis=(1, 2)) if form == "G3" else squares.sum(axis=(1, 2))
    return total


def _maps(seed: int, shape: tuple[int, int] = (4, 6)) -> list[Tensor]:
    """Five maps of three images, of unequal width, as a trunk's after its ReLUs."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, channels, *shape, generator=generator).relu() for channels in (3, 4, 5, 6, 7)]


@pytest.mark.parametrize("form", FORMS)
def test_gram_is_eq_5_with_its_gradient(form: Any) -> None:
    one = [features.double().requires_grad_() for features in _maps(0)]
    other = [features.double() for features in _maps(1)]
    value = gram_from(one, other, form)
    np.testing.assert_allclose(value.detach(), _literal([x.detach() for x in one], other, form), rtol=1e-12)
    gradients = torch.autograd.grad(value.sum(), one)
    # A step along a direction within the features' support, against the literal formula.
    for place, (features, gradient) in enumerate(zip(one, gradients, strict=True)):
        step = torch.randn(features.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        step = 1e-6 * step * (features > 0)
        ends = [
            _literal([(x + sign * step if i == place else x).detach() for i, x in enumerate(one)], other, form).sum()
            for sign in (1, -1)
        ]
        assert (gradient * step).sum().item() == pytest.approx((ends[0] - ends[1]) / 2, rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_gram_on_a_real_trunk_is_eq_5_also_for_nearly_equal_images(form: Any, trunk: VGG16Trunk) -> None:
    for error in (0.1, 1e-4):
        one, other = (trunk(images) for images in _pair(error=error))
        # In float32 the literal difference of two Gram matrices is off by more than this at the smaller error.
        np.testing.assert_allclose(gram_from(one, other, form), _literal(one, other, form), rtol=2e-4)


@given(scale=st.floats(0.25, 4.0), seed=st.integers(0, 20))
def test_scale_laws(scale: float, seed: int) -> None:
    one, other = _maps(seed), _maps(seed + 100)
    grown = [[scale * features for features in maps] for maps in (one, other)]
    for form, power in zip(FORMS, (4, 0, 4), strict=True):
        wanted = scale**power * gram_from(one, other, form)
        torch.testing.assert_close(gram_from(*grown, form), wanted, rtol=1e-4, atol=1e-8)


@given(seed=st.integers(0, 20))
def test_gram_sees_neither_places_nor_repetition_nor_order(seed: int) -> None:
    one, other = _maps(seed), _maps(seed + 100)
    places = torch.randperm(24, generator=torch.Generator().manual_seed(seed))
    moved = [features.flatten(2)[..., places].view_as(features) for features in one]
    tiled = [[torch.cat([features, features], dim=3) for features in maps] for maps in (one, other)]
    for form in FORMS:
        value = gram_from(one, other, form)
        assert (value > 0).all()
        for same in (gram_from(moved, other, form), gram_from(*tiled, form), gram_from(other, one, form)):
            torch.testing.assert_close(same, value, rtol=1e-4, atol=1e-9)
        assert not gram_from(one, one, form).any()
        # A sum of squares of even order: moved features have the same Gram matrices.
        assert gram_from(moved, one, form).max() <= 1e-9 * (1 + value.max())


def test_perceptual_terms_are_float32_under_autocast(trunk: VGG16Trunk, heads: LpipsHeads) -> None:
    rebuilt, original = (images[:1] for images in _pair(size=32))
    rebuilt.requires_grad_()
    plain = [features.bfloat16() for features in trunk(rebuilt)], [features.bfloat16() for features in trunk(original)]
    widened = [[features.float() for features in maps] for maps in plain]
    with torch.autocast("cpu", torch.bfloat16):
        within = [heads(*plain), *(gram_from(*plain, form) for form in FORMS)]
        whole = heads(trunk(rebuilt), trunk(original))
    outside = [heads(*widened), *(gram_from(*widened, form) for form in FORMS)]
    for value, wanted in zip(within, outside, strict=True):
        assert value.dtype == torch.float32
        assert torch.equal(value, wanted)
    torch.testing.assert_close(whole, heads(trunk(rebuilt), trunk(original)), rtol=0.05, atol=0)
    (gradient,) = torch.autograd.grad(whole.sum(), rebuilt)
    assert torch.isfinite(gradient).all()


def test_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match="no form 'G4' of the Gram loss; there are G1, G2, G3"):
        gram_from(_maps(0), _maps(1), "G4")  # type: ignore[arg-type]
