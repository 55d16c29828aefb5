"""With rotary positions off, the encoder is SigLIP2's image tower, as transformers and timm compute it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from atoken import checkpoint
from atoken.config import ATokenConfig, TransformerConfig
from atoken.errors import CheckpointError
from atoken.patches import pack_pixels
from atoken.tokenizer import AToken
from atoken.training.errors import TrainingError
from atoken.training.start.siglip2 import Teacher, load_encoder
from atoken.training.start.siglip2_weights import open_image_tower
from atoken.transformer import Encoder

transformers = pytest.importorskip("transformers", reason="needs transformers, whose SigLIP2 is compared with")

WIDTH, BLOCKS, HEADS, MLP = 48, 3, 3, 72
GRIDS = [(16, 16), (3, 5), (7, 2), (20, 18), (1, 1)]
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
HALF = TransformerConfig(width=WIDTH, blocks=BLOCKS, heads=HEADS, mlp=MLP)
MODEL = ATokenConfig(name="tiny-siglip2", encoder=HALF, decoder=HALF)


def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (16 * h, 16 * w, 3), dtype=np.uint8) for h, w in GRIDS]


def shaken(module: Any) -> Any:
    """No weight is zero or alike, so that one in the wrong place shows."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return module.eval()


def vision_config() -> Any:
    return transformers.Siglip2VisionConfig(
        hidden_size=WIDTH, intermediate_size=MLP, num_hidden_layers=BLOCKS, num_attention_heads=HEADS
    )


@pytest.fixture(scope="module")
def theirs() -> Any:
    torch.manual_seed(0)
    return shaken(transformers.Siglip2VisionModel(vision_config()))


@pytest.fixture(scope="module")
def folder(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("siglip2")
    theirs.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def whole(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both towers in one file, as Siglip2Model saves them."""
    text = transformers.Siglip2TextConfig(
        hidden_size=WIDTH, intermediate_size=MLP, num_hidden_layers=1, num_attention_heads=HEADS, vocab_size=50
    )
    model = transformers.Siglip2Model(
        transformers.Siglip2Config(text_config=text.to_dict(), vision_config=vision_config().to_dict())
    )
    model.vision_model.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        model.logit_scale.fill_(4.5)
    place = tmp_path_factory.mktemp("siglip2-whole")
    model.save_pretrained(place)
    return place


@torch.no_grad()
def their_outputs(model: Any, image: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Through transformers' own preprocessing, but for the resize."""
    from transformers.models.siglip2.image_processing_siglip2 import convert_image_to_patches

    pixels = torch.from_numpy(image).permute(2, 0, 1).float() / 255 * 2 - 1
    patches = convert_image_to_patches(pixels, 16)
    shape = torch.tensor([[image.shape[0] // 16, image.shape[1] // 16]])
    mask = torch.ones(1, len(patches), dtype=torch.int32)
    out = model(pixel_values=patches[None], pixel_attention_mask=mask, spatial_shapes=shape)
    return out.last_hidden_state[0], out.pooler_output[0]


def tower(path: Path, *, rotary: bool = False, frames: int = 1) -> Encoder:
    weights = open_image_tower(path, frames=frames)
    with torch.device("meta"):
        encoder = Encoder(HALF, 768 * frames, rotary=rotary)
    checkpoint.load_into(encoder, weights, device=torch.device("cpu"), dtype=torch.float32)
    return encoder.eval()


@pytest.mark.parametrize("frames", [1, 4])
@torch.no_grad()
def test_features_and_pooled_vector_are_those_of_transformers(theirs: Any, folder: Path, frames: int) -> None:
    encoder = tower(folder, frames=frames)
    for image in images():
        hidden, pooled = their_outputs(theirs, image)
        tokens = pack_pixels([image], patch=(frames, 16, 16))
        ours = encoder(tokens, 1)
        torch.testing.assert_close(ours, hidden, **TOLERANCE)
        torch.testing.assert_close(encoder.head(ours, tokens.lengths)[0], pooled, **TOLERANCE)


@torch.no_grad()
def test_all_images_in_one_pack(theirs: Any, folder: Path) -> None:
    tokens = pack_pixels(images(), patch=(1, 16, 16))
    encoder = tower(folder)
    hidden = encoder(tokens, 1)
    wanted = [their_outputs(theirs, image) for image in images()]
    torch.testing.assert_close(hidden, torch.cat([each for each, _ in wanted]), **TOLERANCE)
    pooled = encoder.head(hidden, tokens.lengths)
    torch.testing.assert_close(pooled, torch.stack([each for _, each in wanted]), **TOLERANCE)


@torch.no_grad()
def test_rotary_positions_are_off_for_a_reason(theirs: Any, folder: Path) -> None:
    hidden, _ = their_outputs(theirs, images()[0])
    turned = tower(folder, rotary=True)(pack_pixels(images()[:1], patch=(1, 16, 16)), 1)
    assert (turned - hidden).abs().max() > 1e-3


@torch.no_grad()
def test_transformers_own_processor_makes_the_same_pixels(theirs: Any, folder: Path) -> None:
    """Of an image that its resize leaves alone: value range and order of a patch's pixels are SigLIP2's."""
    processor = transformers.Siglip2ImageProcessor(max_num_patches=256)
    image = images()[0]
    out = theirs(**processor(image, return_tensors="pt"))
    tokens = pack_pixels([image], patch=(1, 16, 16))
    torch.testing.assert_close(tower(folder)(tokens, 1), out.last_hidden_state[0], **TOLERANCE)


@torch.no_grad()
def test_the_same_tower_from_a_file_of_both(theirs: Any, whole: Path) -> None:
    hidden, _ = their_outputs(theirs, images()[1])
    torch.testing.assert_close(tower(whole)(pack_pixels(images()[1:2], patch=(1, 16, 16)), 1), hidden, **TOLERANCE)


@pytest.mark.parametrize("prefix", ["", "vision_model."])
@torch.no_grad()
def test_pickled_and_with_either_prefix(theirs: Any, folder: Path, tmp_path: Path, prefix: str) -> None:
    state = {prefix + key: value for key, value in theirs.state_dict().items()}
    torch.save(state, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    hidden, _ = their_outputs(theirs, images()[2])
    ours = tower(tmp_path)(pack_pixels(images()[2:3], patch=(1, 16, 16)), 1)
    torch.testing.assert_close(ours, hidden, **TOLERANCE)


@torch.no_grad()
def test_timms_layout(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="needs timm, whose NaFlexViT is compared with")
    torch.manual_seed(0)
    model = timm.create_model(
        "naflexvit_so400m_patch16_siglip", embed_dim=WIDTH, depth=BLOCKS, num_heads=HEADS, mlp_ratio=MLP / WIDTH
    )
    model = shaken(model)
    path = tmp_path / "naflex.safetensors"
    save_file(model.state_dict(), path)
    encoder = tower(path)
    for image in images():
        pixels = torch.from_numpy(image).permute(2, 0, 1).float()[None] / 127.5 - 1
        hidden = model.forward_features(pixels)
        hidden = hidden["patches"] if isinstance(hidden, dict) else hidden
        tokens = pack_pixels([image], patch=(1, 16, 16))
        ours = encoder(tokens, 1)
        torch.testing.assert_close(ours, hidden[0], **TOLERANCE)
        torch.testing.assert_close(encoder.head(ours, tokens.lengths), model(pixels), **TOLERANCE)


# -- The encoder's start ---------------------------------------------------------------------------


def test_a_model_starts_with_the_tower_and_zeros_for_the_other_frames(folder: Path) -> None:
    model = AToken(MODEL)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    load_encoder(model, folder)
    weight = model.encoder.input_layer.weight
    assert weight[:, :768].abs().min() > 0
    assert not weight[:, 768:].any()
    assert all(parameter.requires_grad for parameter in model.parameters())
    wanted = tower(folder, frames=4).state_dict()
    for key, value in model.state_dict().items():
        if key.startswith("encoder."):
            assert torch.equal(value, wanted[key.removeprefix("encoder.")]), key
        else:
            assert torch.equal(value, before[key]), key


def test_a_model_of_another_shape(folder: Path) -> None:
    other = replace(MODEL, encoder=replace(HALF, mlp=80))
    with pytest.raises(CheckpointError, match=r"does not fit the model .*misshapen.*mlp"):
        load_encoder(AToken(other), folder)
    heads = replace(MODEL, encoder=replace(HALF, heads=2))
    with pytest.raises(CheckpointError, match="has 3 heads, the encoder of tiny-siglip2 2"):
        load_encoder(AToken(heads), folder)


# -- The teacher -----------------------------------------------------------------------------------


def test_the_teachers_vectors_are_those_of_transformers(theirs: Any, whole: Path) -> None:
    teacher = Teacher.from_pretrained(whole)
    pooled = torch.stack([their_outputs(theirs, image)[1] for image in images()])
    wanted = pooled / pooled.norm(dim=-1, keepdim=True)
    ours = teacher.embed(images())
    torch.testing.assert_close(ours, wanted, **TOLERANCE)
    # The frames behind the first are not looked at.
    torch.testing.assert_close(teacher.embed_tokens(pack_pixels(images())), wanted, **TOLERANCE)
    assert (ours.dtype, ours.shape, teacher.width) == (torch.float32, (len(GRIDS), WIDTH), WIDTH)
    assert teacher.scale == pytest.approx(np.exp(4.5))


def test_the_teacher_is_frozen(whole: Path) -> None:
    teacher = Teacher.from_pretrained(whole, dtype=torch.bfloat16)
    assert not teacher.train().encoder.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    with torch.inference_mode(False):
        vectors = teacher.embed(images()[:1])
    assert not vectors.requires_grad
    # The student's loss may use them.
    weight = torch.ones(WIDTH, requires_grad=True)
    (vectors * weight).sum().backward()
    assert weight.grad is not None


def test_the_teacher_sees_images_only(folder: Path) -> None:
    teacher = Teacher.from_pretrained(folder)
    with pytest.raises(TrainingError, match="the teacher sees images"):
        teacher.embed([np.zeros((2, 16, 16, 3), np.uint8)])
    with pytest.raises(TrainingError, match="holds no logit_scale; give that of the whole"):
        _ = teacher.scale


# -- Bad input -------------------------------------------------------------------------------------


def rewritten(folder: Path, place: Path, **changes: Any) -> Path:
    """The folder's weights with some left out (None) or replaced."""
    state = load_file(folder / "model.safetensors")
    for key, value in changes.items():
        full = next(name for name in [*state, key] if name.endswith(key))
        state.pop(full, None)
        if value is not None:
            state[full] = value
    save_file(state, place / "model.safetensors")
    (place / "config.json").write_text((folder / "config.json").read_text())
    return place


def test_weights_are_strict(folder: Path, tmp_path: Path) -> None:
    for change, line in (
        ({"layers.1.self_attn.k_proj.weight": None}, r"1 missing: blocks\.1\.attn\.to_qkv\.weight.*2 unexpected"),
        ({"head.probe": None}, r"1 missing: head\.probe"),
        ({"something.else": torch.zeros(3)}, r"1 unexpected: something\.else"),
        ({"position_embedding.weight": torch.zeros(196, WIDTH)}, r"1 misshapen: pos_embedder"),
        ({"patch_embedding.weight": torch.zeros(WIDTH, 588)}, r"1 misshapen: input_layer"),
        ({"fc1.weight": torch.full((MLP, WIDTH), torch.nan)}, "holds NaN or infinity"),
        ({"patch_embedding.bias": None}, "holds no image tower of SigLIP2"),
    ):
        place = rewritten(folder, tmp_path, **change)
        with pytest.raises(CheckpointError, match=line):
            Teacher.from_pretrained(place)


def test_settings_that_the_encoder_has_no_choice_of(folder: Path, tmp_path: Path) -> None:
    place = rewritten(folder, tmp_path)
    config = json.loads((place / "config.json").read_text())
    for name, value in (("patch_size", 14), ("hidden_act", "gelu"), ("layer_norm_eps", 1e-5)):
        (place / "config.json").write_text(json.dumps(config | {name: value}))
        with pytest.raises(CheckpointError, match=f"{name} is {value!r}".replace(".", r"\.")):
            Teacher.from_pretrained(place)
    (place / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"config\.json: no config of transformers or timm"):
        Teacher.from_pretrained(place)


def test_places_without_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no model\.safetensors or pytorch_model\.bin"):
        load_encoder(AToken(MODEL), tmp_path)
    with pytest.raises(CheckpointError, match="no such file"):
        load_encoder(AToken(MODEL), tmp_path / "nothing.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="are in several files"):
        load_encoder(AToken(MODEL), tmp_path)


def test_a_file_that_does_not_say_how_many_heads(folder: Path, tmp_path: Path) -> None:
    rewritten(folder, tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match="nothing says how many heads its 48 channels have"):
        Teacher.from_pretrained(tmp_path)


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("raise SystemExit",))


def test_a_file_that_wants_to_run_code(tmp_path: Path) -> None:
    torch.save({"state_dict": {"embeds.proj.bias": Evil()}}, tmp_path / "evil.bin")
    with pytest.raises(CheckpointError, match="could run code"):
        Teacher.from_pretrained(tmp_path / "evil.bin")
