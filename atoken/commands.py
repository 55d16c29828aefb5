"""What the commands `atoken encode`, `decode` and `embed` do."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import torch
from PIL import Image

from atoken.checkpoint import locate, open_weights
from atoken.config import PRESETS
from atoken.errors import ATokenError, InputError
from atoken.files import replacing
from atoken.token_files import TokenFile, TokenFileError, save_tokens, weights_sha256
from atoken.tokenizer import AToken
from atoken.tokens import Latents, SparseTokens
from atoken.video import write_video
from atoken.work import Item, Work, packs, progress

__all__ = ["LoadedModel", "decode", "embed", "encode", "load_model", "maker"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A model with the name it was asked for by and the hash of its weights."""

    network: AToken
    name: str
    sha256: str


def load_model(name: str, preset: str | None, device: str, dtype: str) -> LoadedModel:
    """Load a checkpoint; `device` may be "auto".

    Raises:
        ATokenError: no such model or device, or a file that cannot be loaded as it is.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ATokenError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    network = AToken.from_pretrained(name, preset=preset, device=device, dtype=getattr(torch, dtype))
    return LoadedModel(network=network, name=name, sha256=weights_sha256(open_weights(locate(name))))


def encode(
    inputs: Sequence[Path],
    output: Path,
    model: LoadedModel,
    *,
    fit: Literal["pad", "crop"],
    kept: Literal["mean", "sample", "codes"],
    seed: int,
    token_budget: int,
) -> None:
    """Encode files into one token file.

    Raises:
        ATokenError: nothing could be read, the model gives no finite latents, or the disk is full.
    """
    network = model.network
    if kept == "codes" and network.quantizer is None:
        raise InputError(f"{network.config.name} is continuous: it has no codes; leave out --codes")

    def compute(items: Sequence[Item]) -> list[Latents | SparseTokens]:
        latents = network.encode([item.pixels for item in items], fit=fit)
        if not bool(torch.isfinite(latents.mean.features).all()):
            raise ATokenError(f"{model.name} gives latents that are not finite in this dtype; try --dtype float32")
        if kept == "codes":
            return [*network.quantize(latents).to("cpu").split()]
        if kept == "sample":
            return [*latents.sample([seed + item.place for item in items]).to("cpu").split()]
        return [*latents.to("cpu").split()]

    parts, items = [], []
    with Work("encode", inputs) as work:
        for item, tokens in work.compute(compute, network.config.patch, token_budget):
            parts.append(tokens)
            items.append((item.name, item.rate))
    content = TokenFile(
        tokens=_packed(parts),
        names=tuple(name for name, _ in items),
        rates=tuple(rate for _, rate in items),
        model=model.name,
        weights_sha256=model.sha256,
        config=network.config,
        settings={
            "fit": fit,
            "kept": kept,
            "seed": seed if kept == "sample" else None,
            "device": network.device.type,
            "dtype": str(network.dtype).removeprefix("torch."),
            "token_budget": token_budget,
        },
    )
    save_tokens(output, content)
    print(f"wrote {output}: {len(parts)} items, {sum(content.packed.lengths):,} tokens", file=sys.stderr)


def maker(content: TokenFile, model: str | None, preset: str | None) -> tuple[str, str | None]:
    """Name and preset of the model that made a token file, unless the user says where it lies now."""
    if preset is None and PRESETS.get(content.config.name) == content.config:
        # So/C and So/D have the same shapes: the file knows which it was.
        preset = content.config.name
    return model or content.model, preset


def decode(content: TokenFile, output: Path, model: LoadedModel, *, token_budget: int) -> None:
    """Decode a token file's items into a folder.

    Raises:
        ATokenError: another model than the one that made it, unsafe names, or a full disk.
    """
    content.check_model(model.network.config, model.sha256)
    targets = _targets(content, output)
    done = 0
    with progress("decode", len(targets)) as (_, advance):
        for pack in packs(content.packed.split(), lambda part: part.lengths[0], token_budget):
            for pixels in model.network.decode(SparseTokens.cat(pack)):
                _write(targets[done], pixels, content.rates[done])
                done += 1
                advance()
    print(f"wrote {done} files to {output}", file=sys.stderr)


def embed(
    inputs: Sequence[Path], output: Path, model: LoadedModel, *, fit: Literal["pad", "crop"], token_budget: int
) -> None:
    """Write names and embeddings [N, C] float32 as .parquet (a list column) or .npz.

    Raises:
        ATokenError: nothing could be read, or the disk is full.
    """

    def compute(items: Sequence[Item]) -> list[np.ndarray]:
        return [*model.network.embed([item.pixels for item in items], fit=fit).cpu().numpy()]

    paths, vectors = [], []
    with Work("embed", inputs) as work:
        for item, vector in work.compute(compute, model.network.config.patch, token_budget):
            paths.append(item.path.as_posix())
            vectors.append(vector)
    with replacing(output) as aside:
        if output.suffix == ".npz":
            np.savez(aside, paths=np.array(paths), embeddings=np.stack(vectors), weights_sha256=model.sha256)
        else:
            import pyarrow as pa
            from pyarrow import parquet

            table = pa.table({"path": paths, "embedding": vectors}, metadata={"weights_sha256": model.sha256})
            parquet.write_table(table, aside)
    print(f"wrote {output}: {len(paths)} vectors", file=sys.stderr)


def _packed(parts: list[Latents | SparseTokens]) -> Latents | SparseTokens:
    latents = [part for part in parts if isinstance(part, Latents)]
    return Latents.cat(latents) if latents else SparseTokens.cat([p for p in parts if isinstance(p, SparseTokens)])


def _targets(content: TokenFile, folder: Path) -> list[Path]:
    """Where each item goes; items of one name get -2, -3, ... in their order.

    Raises:
        TokenFileError: a name that would lead out of the folder.
    """
    targets: dict[Path, None] = {}
    for name, spec in zip(content.names, content.packed.items, strict=True):
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or not relative.name or "\\" in name or "\0" in name:
            raise TokenFileError(f"item name {name!r} leads out of the output folder; the file is not to be trusted")
        suffix = ".png" if spec.kind == "image" else ".mkv"
        target = folder / relative.with_suffix(suffix)
        number = 2
        while target in targets:
            target = folder / relative.with_name(f"{relative.stem}-{number}{suffix}")
            number += 1
        targets[target] = None
    return list(targets)


def _write(path: Path, pixels: np.ndarray, rate: Fraction | None) -> None:
    with replacing(path) as aside:
        if rate is None:
            Image.fromarray(pixels).save(aside, format="PNG")
        else:
            write_video(aside, pixels, rate)
