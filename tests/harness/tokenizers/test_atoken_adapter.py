"""The atoken row against the library's own public calls, and its card against the paper's table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from atoken.checkpoint import sha256_file
from atoken.config import PRESETS, ATokenConfig, FSQConfig, TransformerConfig
from atoken.errors import CheckpointError
from atoken.tokenizer import AToken
from harness import registry
from harness.errors import BenchError
from harness.tokenizers.atoken import PUBLISHED, create
from harness.tokenizers.contract import check_adapter
from reports import paper

HALF = TransformerConfig(width=32, blocks=1, heads=2, mlp=48)


@pytest.fixture(scope="module", params=["continuous", "quantized"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    quantizer = FSQConfig() if request.param == "quantized" else None
    config = ATokenConfig(name=f"tiny-{request.param}", encoder=HALF, decoder=HALF, quantizer=quantizer)
    path = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    AToken(config).save_pretrained(path)
    return path


def images() -> list[np.ndarray]:
    return [data.cat()[:40, :72], data.astronaut()[:33, :17]]


def inputs() -> list[torch.Tensor]:
    return [torch.tensor(x).permute(2, 0, 1).float() / 127.5 - 1 for x in images()]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_holds_the_contract(folder: Path, dtype: str, tolerance: float) -> None:
    tokenizer = registry.create_tokenizer(f"atoken:{folder}", ckpt=None, preset=None, device="cpu", dtype=dtype)
    assert check_adapter(tokenizer, trained=False, tolerance=tolerance) == []


@pytest.mark.cuda
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_holds_the_contract_on_cuda(folder: Path, dtype: str, tolerance: float) -> None:
    tokenizer = create(str(folder), device="cuda", dtype=dtype)
    assert check_adapter(tokenizer, trained=False, tolerance=tolerance) == []


def test_reconstructs_as_the_library_does(folder: Path) -> None:
    model = AToken.from_pretrained(folder)
    adapter = create(str(folder), device="cpu", dtype="float32")
    encoded = adapter.encode(inputs(), latent="mean", seeds=[0, 0])
    latents = model.encode(images())
    expected = model.decode(latents, output="float")
    for ours, theirs in zip(adapter.decode(encoded), expected, strict=True):
        np.testing.assert_allclose(ours.permute(1, 2, 0).numpy(), theirs, atol=1e-6)
    assert list(encoded.tokens) == [3 * 5, 3 * 2]
    if adapter.card.token_type == "VAE":
        assert encoded.bits is None
        assert encoded.codes is None
        sampled = adapter.decode(adapter.encode(inputs(), latent="sample", seeds=[5, 6]))
        expected = model.decode(latents.sample([5, 6]), output="float")
        for ours, theirs in zip(sampled, expected, strict=True):
            np.testing.assert_allclose(ours.permute(1, 2, 0).numpy(), theirs, atol=1e-6)
    else:
        assert encoded.bits == [15 * 8 * 12, 6 * 8 * 12]
        assert encoded.codes is not None
        assert [tuple(codes.shape) for codes in encoded.codes] == [(15, 8), (6, 8)]
        assert torch.equal(torch.cat(list(encoded.codes)), model.quantize(latents).features)


def test_card_comes_from_the_model(folder: Path) -> None:
    card = create(str(folder), device="cpu", dtype="float32").card
    sha256 = sha256_file(folder / "model.safetensors")
    config = AToken.from_pretrained(folder).config
    assert card.weights_sha256 == {"model.safetensors": sha256}
    assert card.name == f"atoken-{config.name}-{sha256[:8]}"
    assert card.paper_row is None
    assert card.compression == (4, 16, 16)
    assert card.latent_size == 48
    if config.quantizer is None:
        assert (card.token_type, card.codebook_size, card.latent_modes) == ("VAE", None, ("mean", "sample"))
    else:
        assert (card.token_type, card.codebook_size, card.latent_modes) == ("FSQ", 4096, ("mean",))
    assert str(folder) not in str(card)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_architectures_carry_the_papers_row(name: str) -> None:
    table = paper.load("table04")
    rows = [row for row in table.rows if row.key == PUBLISHED[name].row]
    assert len(rows) == 1
    values = dict(zip([column.header for column in table.columns], rows[0].values, strict=True))
    config = PRESETS[name]
    assert values["Comp. Ratio"] == str(PUBLISHED[name].compression)
    assert values["Latent Size"] == str(config.latent_channels)
    assert values["Token Type"] == ("VAE" if config.quantizer is None else "FSQ")


def test_a_model_of_ones_own_called_so_c_is_not_the_papers(tmp_path: Path) -> None:
    AToken(ATokenConfig(name="so-c", encoder=HALF, decoder=HALF)).save_pretrained(tmp_path)
    assert create(str(tmp_path), device="cpu", dtype="float32").card.paper_row is None


@pytest.mark.parametrize("name", ["so-c", "so-d"])
def test_published_video_models_are_in_table_6(name: str) -> None:
    table = paper.load("table06")
    (row,) = (row for row in table.rows if row.key == PUBLISHED[name].row)
    values = dict(zip([column.header for column in table.columns], row.values, strict=True))
    assert values["Comp. Ratio"] == str(PUBLISHED[name].compression)
    assert values["Latent Size"] == str(PRESETS[name].latent_channels)


def test_errors(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.safetensors"):
        create(str(tmp_path / "nowhere.safetensors"), device="cpu", dtype="float32")
    with pytest.raises(CheckpointError, match="does not fit"):
        create(str(folder), device="cpu", dtype="float32", preset="nano")
    with pytest.raises(BenchError, match="float64"):
        create(str(folder), device="cpu", dtype="float64")
