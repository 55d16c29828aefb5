"""Tokens on disk: one ``.safetensors`` file that says which model made them and how to read it.

Tensors: ``coords`` [L, 4] int32, ``lengths`` [N] int64, and either ``mean`` and ``logvar``
[L, C] float32 (the posterior), ``latents`` [L, C] float32 (a sample of it), or ``codes``
[L, codebooks] int32. All that is no tensor is JSON under one key of the header: with several
keys their order, and so the file's bytes, would change from run to run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from atoken.checkpoint import OPTIONAL, TRAINING_ONLY
from atoken.config import ATokenConfig
from atoken.errors import ATokenError, InputError
from atoken.files import replacing
from atoken.tokens import ItemSpec, Latents, SparseTokens
from atoken.weights_file import Weights

__all__ = ["TokenFile", "TokenFileError", "load_tokens", "save_tokens", "weights_sha256"]

HEADER = "atoken_tokens"
VERSION = 1

_KINDS = {frozenset({"mean", "logvar"}), frozenset({"latents"}), frozenset({"codes"})}
_DTYPES = {"coords": torch.int32, "lengths": torch.int64, "codes": torch.int32}


class TokenFileError(InputError):
    """A file that is no token file, is damaged, or was made by another model."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TokenFile:
    """What a token file holds.

    Attributes:
        tokens: the posterior, a sample of it, or integer codes, of all items.
        names: what each item was called.
        rates: frames per second of each video; None for images.
        model: the name or path under which the model was given.
        weights_sha256: of its weights, by the function of this name; decoding needs the same.
        config: its shapes.
        settings: how the tokens were made, e.g. fit, latent mode, seed, device and dtype.
    """

    tokens: Latents | SparseTokens
    names: tuple[str, ...]
    rates: tuple[Fraction | None, ...]
    model: str
    weights_sha256: str
    config: ATokenConfig
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = (len(self.tokens), len(self.names), len(self.rates))
        if len(set(counts)) > 1:
            raise InputError(f"{counts[0]} items with {counts[1]} names and {counts[2]} frame rates")
        for name, spec, rate in zip(self.names, self.packed.items, self.rates, strict=True):
            if (spec.kind == "video") != (rate is not None and rate > 0):
                raise InputError(f"{name}: a frame rate of {rate} for {spec.kind}; videos need one, images have none")

    @property
    def packed(self) -> SparseTokens:
        """The tokens with their positions: of a posterior, its mean."""
        return self.tokens.mean if isinstance(self.tokens, Latents) else self.tokens

    def check_model(self, config: ATokenConfig, weights_sha256: str) -> None:
        """Refuse a model other than the one that made the tokens: it would decode them to noise.

        Raises:
            TokenFileError: another config or other weights.
        """
        if weights_sha256 != self.weights_sha256 or config != self.config:
            raise TokenFileError(
                f"these tokens were made by {self.model} ({self.config.name}, weights "
                f"{self.weights_sha256[:12]}), not by this model ({config.name}, weights {weights_sha256[:12]})"
            )


def weights_sha256(weights: Weights) -> str:
    """SHA-256 over names, shapes and float32 values of a model's weights.

    Not the file's own hash: the official ``.pt`` and what ``atoken convert`` makes of it are the
    same model, and their tokens may be mixed. Reads, and so uses up, the opened file.
    """
    digest = hashlib.sha256()
    for key in sorted(weights.shapes):
        if key not in OPTIONAL and not key.startswith(TRAINING_ONLY):
            digest.update(f"{key} {list(weights.shapes[key])}\n".encode())
            values = weights.read(key).to(torch.float32).contiguous()
            digest.update(values.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_tokens(path: Path, content: TokenFile) -> None:
    """Write `content` to `path`, whole or not at all; the same content gives the same bytes.

    Raises:
        WriteError: the system refused, e.g. a full disk.
    """
    packed = content.packed
    tensors = {"coords": packed.coords, "lengths": torch.tensor(packed.lengths)}
    if isinstance(content.tokens, Latents):
        tensors |= {"mean": packed.features, "logvar": content.tokens.logvar}
    else:
        tensors["codes" if packed.is_codes else "latents"] = packed.features
    header = {
        "version": VERSION,
        "model": content.model,
        "weights_sha256": content.weights_sha256,
        "config": content.config.to_dict(),
        "settings": dict(content.settings),
        "items": [
            {"name": name, "rate": None if rate is None else str(rate), **asdict(spec)}
            for name, rate, spec in zip(content.names, content.rates, packed.items, strict=True)
        ],
    }
    with replacing(path) as aside:
        save_file({k: v.cpu().contiguous() for k, v in tensors.items()}, aside, {HEADER: json.dumps(header)})


def load_tokens(path: Path) -> TokenFile:
    """Read a token file, on the CPU; every part is checked against the others.

    Raises:
        TokenFileError: not there, not a token file, truncated, of a newer format, or its parts
            contradict one another.
    """
    if path.is_dir():
        raise TokenFileError(f"{path}: a folder, not a token file")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if HEADER not in metadata:
                raise TokenFileError("it holds no tokens; `atoken encode` writes files that do")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return _content(json.loads(metadata[HEADER]), tensors)
    except SafetensorError as error:
        raise TokenFileError(f"{path}: not a .safetensors file, or truncated ({error})") from None
    except OSError as error:
        # safetensors' own FileNotFoundError has no strerror and says the path again.
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or error
        raise TokenFileError(f"{path}: {reason}") from None
    except ATokenError as error:
        raise TokenFileError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise TokenFileError(f"{path}: its header is damaged ({type(error).__name__}: {error})") from None


def _content(header: dict[str, Any], tensors: dict[str, Tensor]) -> TokenFile:
    if header["version"] != VERSION:
        raise TokenFileError(f"format {header['version']} is not {VERSION}, the one this version reads; update atoken")
    values = set(tensors) - {"coords", "lengths"}
    if values not in _KINDS or len(tensors) != len(values) + 2:
        raise TokenFileError(f"holds {', '.join(sorted(tensors))}, which is no kind of tokens")
    for name, tensor in tensors.items():
        wanted = _DTYPES.get(name, torch.float32)
        if tensor.dtype != wanted:
            raise TokenFileError(f"{name} is {tensor.dtype}, not {wanted}")
    config = ATokenConfig.from_dict(header["config"])
    names, rates, specs = [], [], []
    for item in header["items"]:
        entry = dict(item)
        names.append(str(entry.pop("name")))
        rate = entry.pop("rate")
        rates.append(None if rate is None else Fraction(rate))
        specs.append(ItemSpec(**entry))
    lengths = tuple(tensors["lengths"].tolist())
    for name, spec, length in zip(names, specs, lengths, strict=True):
        # Before decoding allocates anything of the size that the header claims.
        if not all(type(value) is int for key, value in asdict(spec).items() if key != "kind"):
            raise TokenFileError(f"{name}: its sizes are not whole numbers")
        if prod(spec.grid(config.patch)) != length:
            raise TokenFileError(f"{name}: {length} tokens do not fill {spec.out_height} x {spec.out_width} pixels")
    if not torch.equal(tensors["coords"], _rasters(specs, config)):
        raise TokenFileError("its coordinates are not those of whole images and videos")
    packed = SparseTokens(tensors[min(values - {"logvar"})], tensors["coords"], lengths, tuple(specs))
    return TokenFile(
        tokens=Latents(packed, tensors["logvar"]) if "logvar" in tensors else packed,
        names=tuple(names),
        rates=tuple(rates),
        model=str(header["model"]),
        weights_sha256=str(header["weights_sha256"]),
        config=config,
        settings=dict(header["settings"]),
    )


def _rasters(specs: list[ItemSpec], config: ATokenConfig) -> Tensor:
    """The coordinates [L, 4] that items of these sizes have."""
    return torch.cat(
        [
            torch.cartesian_prod(*(torch.arange(n, dtype=torch.int32) for n in (*spec.grid(config.patch), 1)))
            for spec in specs
        ]
    )
