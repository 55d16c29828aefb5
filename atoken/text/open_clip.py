"""Text towers of open_clip (CLIP, SigLIP2 of fixed resolution, PE-Core), from local files."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atoken import checkpoint
from atoken.errors import CheckpointError
from atoken.text.clean import MissingPackage
from atoken.text.pretrained import first_line
from atoken.text.tower import TokenTower
from atoken.weights_file import PickleWeights, Weights

__all__ = ["OpenClipTower"]

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
TOKENIZER = ("tokenizer.json", "tokenizer.model")


class OpenClipTower(TokenTower):
    """Texts to what the images of an open_clip model are compared with; its own tokenizer cleans them.

    Attributes:
        file: of the weights.
        config: the model's, as open_clip has it.
    """

    name = "open_clip"

    def __init__(
        self, path: str | Path, *, model: str | None = None, images: bool = False, device: torch.device | str = "cpu"
    ) -> None:
        """Load a model and keep its text half.

        Args:
            path: a weights file of `model`, or a folder with open_clip's config and weights. Beside the weights lies
                the tokenizer, where open_clip's package has none for it (SigLIP2).
            model: open_clip's name of it, such as "ViT-B-16-SigLIP2"; of a folder, its config says it.
            images: keep the image half too, for `encode_images`.

        Raises:
            MissingPackage: open_clip is not installed.
            CheckpointError: no such file or model, or a file that is broken, another model's or wants to run code.
        """
        try:
            open_clip = import_module("open_clip")
        except ImportError:
            raise MissingPackage("this text tower needs open_clip_torch; install it") from None
        path = Path(path).expanduser()
        file = _weights_file(path)
        config = _config(open_clip, path, model)
        # Looked into before open_clip does, which is not strict in all things.
        weights: Weights = (
            PickleWeights(file) if file.suffix == ".bin" else checkpoint.open_weights(checkpoint.Source(file, None))
        )
        try:
            net = open_clip.create_model(f"local-dir:{path}" if model is None else model, load_weights=False)
            _check_positions(net, weights, images)
            open_clip.load_checkpoint(net, str(file), strict=True)
            self._tokenizer = _tokenizer(open_clip, file.parent, model, config)
        except CheckpointError:
            raise
        except Exception as error:  # Whatever a foreign file or config makes open_clip say.
            raise CheckpointError(f"{file}: cannot be loaded by open_clip: {first_line(error)}") from None
        self.file, self.config = file, config
        if not images:
            del net.visual
        self._width = int(config["embed_dim"])
        files = [file, *(file.with_name(name) for name in TOKENIZER if file.with_name(name).is_file())]
        super().__init__(files=files, settings={"config": config["text_cfg"]}, device=device)
        self._model = net.eval().requires_grad_(False).to(self._device)

    @property
    def width(self) -> int:
        """Of the vectors."""
        return self._width

    def cast_images(self, dtype: torch.dtype) -> None:
        """Let the image half compute in `dtype`; the text half stays in float32, in which its vectors are kept."""
        self._model.visual.to(dtype)

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [B, 3, H, W] -> vectors [B, width], as the model gives them: of a tower with `images`."""
        vectors: Tensor = self._model.encode_image(pixels)
        return vectors

    def _tokens(self, texts: list[str]) -> list[tuple[Tensor, Tensor]]:
        return [(row, torch.ones_like(row)) for row in self._tokenizer(texts)]

    def _encode(self, ids: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG002 - open_clip makes its own masks
        vectors: Tensor = self._model.encode_text(ids)
        return vectors


def _weights_file(path: Path) -> Path:
    for name in WEIGHTS if path.is_dir() else ():
        if (path / name).is_file():
            return path / name
    if not path.is_file():
        wanted = f"holds no {' or '.join(WEIGHTS)}" if path.is_dir() else "no such file"
        raise CheckpointError(f"{path}: {wanted}; give a weights file of open_clip, or a folder with one")
    return path


def _config(open_clip: Any, path: Path, model: str | None) -> dict[str, Any]:
    """Of the model: open_clip's own, or the folder's."""
    if model is not None:
        found: dict[str, Any] | None = open_clip.get_model_config(model)
        if found is None:
            raise CheckpointError(f"open_clip has no model {model!r}; its list_models() has the names")
        return found
    try:
        config: dict[str, Any] = json.loads((path / CONFIG).read_text())["model_cfg"]
        if {"embed_dim", "text_cfg"} <= set(config):
            return config
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise CheckpointError(f"{path}: needs {CONFIG} with a model_cfg in it, or the name of open_clip's model")


def _check_positions(net: Any, weights: Weights, images: bool) -> None:
    """open_clip would resize tables of positions that do not fit."""
    name = "positional_embedding"
    ours = {key: tuple(value.shape) for key, value in net.state_dict().items() if key.endswith(name)}
    for key in ours if images else ():
        if key.startswith("visual.") and weights.shapes.get(key, ours[key]) != ours[key]:
            raise CheckpointError(
                f"{weights.path}: its images have {weights.shapes[key][0]} positions, those of the model "
                f"{ours[key][0]}: they are of another resolution"
            )
    text = next(key for key in ours if not key.startswith("visual."))
    theirs = weights.shapes.get(text) or weights.shapes.get(name)
    if theirs is not None and theirs != ours[text]:
        raise CheckpointError(f"{weights.path}: its texts have {theirs[0]} tokens, those of the model {ours[text][0]}")


def _tokenizer(open_clip: Any, folder: Path, model: str | None, config: dict[str, Any]) -> Any:
    text = config["text_cfg"]
    if "hf_tokenizer_name" not in text:
        return open_clip.get_tokenizer(f"local-dir:{folder}" if model is None else model)
    if not any((folder / name).is_file() for name in TOKENIZER):
        raise CheckpointError(
            f"{folder}: lacks the tokenizer ({' or '.join(TOKENIZER)}); copy that of {text['hf_tokenizer_name']} there"
        )
    return open_clip.tokenizer.HFTokenizer(
        str(folder),
        context_length=text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH),
        tokenizer_mode=text.get("tokenizer_mode"),
        **text.get("tokenizer_kwargs", {}),
    )
