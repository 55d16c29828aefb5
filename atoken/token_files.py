"""Tokens on disk: one ``.safetensors`` file that says which model made them and how to read it.

Tensors: ``coords`` [L, 4] int32, ``lengths`` [N] int64, and either ``mean`` and ``logvar``
[L, C] float32 (the posterior), ``latents`` [L, C] float32 (a sample of it), or ``codes``
[L, codebooks] int32. All that is no tensor is JSON under one key of the header: with several
keys their order, and so the file's bytes, would change from run to run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from atoken.checkpoint import OPTIONAL, TRAINING_ONLY
from atoken.errors import ATokenError
from atoken.files import replacing
from atoken.token_header import TokenFileError, TokenHeader, TokenSource, check_coords
from atoken.tokens import Latents, SparseTokens
from atoken.weights_file import Weights

__all__ = [
    "TokenFile",
    "TokenFileError",
    "TokenHeader",
    "TokenSource",
    "faults",
    "kind_of",
    "load_tokens",
    "save_tokens",
    "weights_sha256",
]

KINDS = (("mean", "logvar"), ("latents",), ("codes",))
DTYPES = {"coords": torch.int32, "lengths": torch.int64, "codes": torch.int32}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TokenFile(TokenSource):
    """What a token file holds, in memory.

    Attributes:
        tokens: the posterior, a sample of it, or integer codes, of all items.
        names, rates: as of `TokenHeader`.
    """

    tokens: Latents | SparseTokens
    names: tuple[str, ...]
    rates: tuple[Fraction | None, ...]

    def __post_init__(self) -> None:
        self.header()

    def header(self) -> TokenHeader:
        """What is written about the items."""
        mine = {name: getattr(self, name) for name in ("names", "rates", *(f.name for f in fields(TokenSource)))}
        return TokenHeader(items=self.packed.items, **mine)

    @property
    def packed(self) -> SparseTokens:
        """The tokens with their positions: of a posterior, its mean."""
        return self.tokens.mean if isinstance(self.tokens, Latents) else self.tokens


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
    with replacing(path) as aside:
        save_file({k: v.cpu().contiguous() for k, v in tensors.items()}, aside, content.header().metadata())


def load_tokens(path: Path) -> TokenFile:
    """Read a token file, on the CPU; every part is checked against the others.

    Raises:
        TokenFileError: not there, not a token file, truncated, of a newer format, or its parts
            contradict one another.
    """
    with faults(path):
        with safe_open(path, "pt") as file:
            header = TokenHeader.parse(file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        values = kind_of({name: tensor.dtype for name, tensor in tensors.items()})
        lengths = tuple(tensors["lengths"].tolist())
        header.check_lengths(lengths)
        check_coords(tensors["coords"], header)
        packed = SparseTokens(tensors[values[0]], tensors["coords"], lengths, header.items)
        return TokenFile(
            tokens=Latents(packed, tensors["logvar"]) if "logvar" in tensors else packed,
            names=header.names,
            rates=header.rates,
            model=header.model,
            weights_sha256=header.weights_sha256,
            config=header.config,
            settings=header.settings,
        )


@contextmanager
def faults(path: Path) -> Iterator[None]:
    """Turn whatever a file that is no good token file gives into one line that names it.

    Raises:
        TokenFileError: anything went wrong.
    """
    if path.is_dir():
        raise TokenFileError(f"{path}: a folder, not a token file")
    try:
        yield
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


def kind_of(dtypes: Mapping[str, torch.dtype]) -> tuple[str, ...]:
    """The tensors that hold the values: mean and logvar, latents, or codes.

    Raises:
        TokenFileError: tensors, or types of them, that no kind of tokens has.
    """
    values = tuple(sorted(set(dtypes) - {"coords", "lengths"}, reverse=True))
    if values not in KINDS or len(dtypes) != len(values) + 2:
        raise TokenFileError(f"holds {', '.join(sorted(dtypes))}, which is no kind of tokens")
    for name, dtype in dtypes.items():
        wanted = DTYPES.get(name, torch.float32)
        if dtype != wanted:
            raise TokenFileError(f"{name} is {dtype}, not {wanted}")
    return values
