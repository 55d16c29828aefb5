"""DCT and PCA rows against scipy's DCT, numpy's SVD and numpy's padding; the shipped basis against its photographs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from harness.errors import BenchError
from harness.tokenizers import fit_pca
from harness.tokenizers.base import Tokenizer
from harness.tokenizers.identity import create as create_identity
from harness.tokenizers.linear import SHIPPED, create_dct, create_pca


def dct(argument: str | None) -> Tokenizer:
    return create_dct(argument, device="cpu", dtype="float32")


def pca(argument: str | None) -> Tokenizer:
    return create_pca(argument, device="cpu", dtype="float32")


def as_input(pixels: np.ndarray) -> torch.Tensor:
    return torch.tensor(pixels).permute(2, 0, 1).float() / 127.5 - 1


def reconstruct(tokenizer: Tokenizer, image: torch.Tensor) -> torch.Tensor:
    return tokenizer.decode(tokenizer.encode([image], latent="mean", seeds=[0]))[0]


@pytest.fixture(scope="module")
def cat() -> torch.Tensor:
    return as_input(data.cat()[20:116, 100:228])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Real photographs as PNG files, the sizes no multiples of 16."""
    root = tmp_path / "photos"
    root.mkdir()
    for name, image in (("b", data.coffee()), ("a", data.astronaut()), ("c", data.cat())):
        Image.fromarray(image[:150, :200]).save(root / f"{name}.png")
    return root


def test_dct_matrix_is_scipys() -> None:
    patch = np.random.default_rng(0).standard_normal((16, 16, 3))
    expected = scipy.fft.dctn(patch, norm="ortho").ravel()
    np.testing.assert_allclose(fit_pca.dct_matrix().numpy() @ patch.ravel(), expected, atol=1e-12)


def test_dct_keeps_the_lowest_frequencies_and_drops_the_rest(cat: torch.Tensor) -> None:
    back = reconstruct(dct("48"), cat)
    kept = fit_pca.load(SHIPPED).dct_energy.argsort(descending=True)[:48].numpy()
    assert {0, 1, 2} <= set(kept)  # the mean of each colour function
    patch = cat[:, 16:32, 32:48].permute(1, 2, 0).numpy().astype(np.float64)
    spectrum = scipy.fft.dctn(patch, norm="ortho").ravel()
    spectrum[np.setdiff1d(np.arange(768), kept)] = 0
    expected = scipy.fft.idctn(spectrum.reshape(16, 16, 3), norm="ortho")
    np.testing.assert_allclose(back[:, 16:32, 32:48].permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_all_coefficients_lose_nothing(cat: torch.Tensor) -> None:
    assert float((reconstruct(dct("768"), cat) - cat).abs().max()) < 1e-5


@pytest.mark.parametrize("make", [dct, pca])
def test_more_numbers_mean_less_error(make: type[Tokenizer], cat: torch.Tensor) -> None:
    errors = [float((reconstruct(make(str(k)), cat) - cat).square().mean()) for k in (1, 8, 48, 96)]  # type: ignore[call-arg]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < errors[2] / 1.5


@pytest.mark.parametrize("make", [dct, pca])
@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_any_size_is_padded_by_reflection(make: type[Tokenizer], height: int, width: int) -> None:
    tokenizer = make("24")  # type: ignore[call-arg]
    pixels = data.cat()[50 : 50 + height, 80 : 80 + width]
    padded = np.pad(pixels, ((0, -height % 16), (0, -width % 16), (0, 0)), mode="reflect")
    encoded = tokenizer.encode([as_input(pixels)], latent="mean", seeds=[0])
    assert encoded.tokens == [tokenizer.token_count(height, width)]
    back = tokenizer.decode(encoded)[0]
    assert back.shape == (3, height, width)
    torch.testing.assert_close(back, reconstruct(tokenizer, as_input(padded))[:, :height, :width], atol=1e-5, rtol=0)


def test_a_fitted_basis_is_the_svds(folder: Path) -> None:
    basis = fit_pca.fit(folder, 12)
    patches = np.concatenate(
        [
            np.asarray(Image.open(folder / f"{name}.png"))[16 * i : 16 * i + 16, 16 * j : 16 * j + 16].reshape(1, 768)
            for name in "abc"
            for i in range(9)
            for j in range(12)
        ]
    )
    patches = patches / 127.5 - 1
    assert (basis.images, basis.patches) == (3, len(patches))
    np.testing.assert_allclose(basis.mean, patches.mean(0), atol=1e-5)
    rows = np.linalg.svd(patches - patches.mean(0), full_matrices=False)[2][:12]
    # Signs are free: the projections must agree.
    found = basis.components.double().numpy()
    np.testing.assert_allclose(found.T @ found, rows.T @ rows, atol=1e-3)
    assert (found[np.arange(12), np.abs(found).argmax(1)] > 0).all()


def test_pca_of_a_users_folder(folder: Path, cat: torch.Tensor) -> None:
    own = pca(f"48@{folder}")
    assert own.card.name == "pca-48-photos"
    assert "3 images" in own.card.source
    assert str(folder) not in str(own.card)
    mse = float((reconstruct(own, cat) - cat).square().mean())
    assert mse < float((reconstruct(pca("1"), cat) - cat).square().mean())
    (folder / "c.png").unlink()
    fewer = pca(f"48@{folder}").card.settings["basis_content_sha256"]
    assert fewer != own.card.settings["basis_content_sha256"]


def test_fit_command_is_deterministic_and_reads_back(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = [tmp_path / f"{name}.safetensors" for name in "ab"]
    for out in outs:
        fit_pca.main([str(folder), str(out), "--components", "20"])
        assert hashlib.sha256(out.read_bytes()).hexdigest() in capsys.readouterr().out
    assert outs[0].read_bytes() == outs[1].read_bytes()
    basis, again = fit_pca.load(outs[0]), fit_pca.fit(folder, 20)
    assert basis.content_sha256 == again.content_sha256
    torch.testing.assert_close(basis.components, again.components, atol=2e-4, rtol=1e-3)  # float16
    assert torch.equal(basis.mean, again.mean)


def test_too_few_patches_and_broken_images_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="3 images hold 324 whole 16x16 patches, too few for 400"):
        fit_pca.fit(folder, 400)
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:2000])
    with pytest.raises(BenchError, match=r"b\.png"):
        fit_pca.fit(folder, 4)
    with pytest.raises(SystemExit, match=r"b\.png"):
        fit_pca.main([str(folder), str(tmp_path / "out.safetensors")])


def test_a_file_that_is_no_basis(tmp_path: Path) -> None:
    for content in (b"", b"not a basis at all", SHIPPED.read_bytes()[:1000]):
        (tmp_path / "x.safetensors").write_bytes(content)
        with pytest.raises(BenchError, match=r"x\.safetensors: not a basis"):
            fit_pca.load(tmp_path / "x.safetensors")


def test_shipped_basis_is_what_the_card_says() -> None:
    sha256 = hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    assert pca("48").card.settings["basis_sha256"] == sha256
    assert dct("48").card.settings["ranking_sha256"] == sha256
    components = fit_pca.load(SHIPPED).components
    torch.testing.assert_close(components @ components.T, torch.eye(96), atol=1e-3, rtol=0)
    assert SHIPPED.stat().st_size < 200_000


@pytest.mark.parametrize("argument", [None, "", "0", "769", "1.5", "-1", "x"])
def test_bad_arguments(argument: str | None) -> None:
    with pytest.raises(BenchError, match="from 1 to 768"):
        dct(argument)
    with pytest.raises(BenchError, match="from 1 to 768"):
        pca(argument)


def test_more_components_than_are_shipped() -> None:
    with pytest.raises(BenchError, match="pca:97@FOLDER"):
        pca("97")


def test_identity_is_exact_and_takes_no_argument(cat: torch.Tensor) -> None:
    assert torch.equal(reconstruct(create_identity(None, device="cpu", dtype="float32"), cat), cat)
    with pytest.raises(BenchError, match="no argument"):
        create_identity("7", device="cpu", dtype="float32")


def test_reference_figures_on_the_validation_photographs(shared: Path) -> None:
    """26.46 dB: what a learned tokenizer of 48 latents has to beat."""
    found: dict[str, list[float]] = {"pca": [], "dct": []}
    rows = {"pca": pca("48"), "dct": dct("48")}
    files = sorted((shared / "data" / "photos" / "val").iterdir())
    for file in files:
        pixels = np.asarray(Image.open(file).convert("RGB"))
        top, left = ((side - 256 + 1) // 2 for side in pixels.shape[:2])
        image = pixels[top : top + 256, left : left + 256].astype(np.float64)
        for name, row in rows.items():
            back = reconstruct(row, as_input(image)).permute(1, 2, 0).numpy()
            error = np.clip(np.floor(127.5 * back + 128), 0, 255) - image
            found[name].append(10 * np.log10(255**2 / np.square(error).mean()))
    assert len(files) == 200
    assert np.mean(found["pca"]) == pytest.approx(26.46, abs=0.01)
    assert np.mean(found["dct"]) == pytest.approx(26.38, abs=0.01)


@pytest.mark.slow
def test_shipped_basis_was_fitted_on_the_training_photographs(shared: Path, tmp_path: Path) -> None:
    fit_pca.main([str(shared / "data" / "photos" / "train"), str(tmp_path / "again.safetensors")])
    again, shipped = fit_pca.load(tmp_path / "again.safetensors"), fit_pca.load(SHIPPED)
    assert again.content_sha256 == shipped.content_sha256
    assert (again.images, again.patches) == (1328, shipped.patches)
    torch.testing.assert_close(again.components[:48], shipped.components[:48], atol=1e-3, rtol=0)
