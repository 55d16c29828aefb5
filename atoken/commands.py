"""What the commands `atoken encode`, `decode` and `embed` do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import torch
from PIL import Image

from atoken.assets.asset import Asset
from atoken.assets.gaussian_files import save_ply
from atoken.assets.mesh_to_asset import Recipe
from atoken.assets.render import RENDERER
from atoken.checkpoint import locate, open_weights
from atoken.config import PRESETS
from atoken.errors import ATokenError, InputError
from atoken.files import replacing
from atoken.search import check_search
from atoken.space import SpaceTiles
from atoken.token_files import TokenFileError, TokenHeader, TokenSource, weights_sha256
from atoken.token_stream import TokenReader, TokenWriter
from atoken.tokenizer import AToken
from atoken.tokens import Latents, PosteriorSampler, SparseTokens
from atoken.video import VideoWriter
from atoken.work import Clip, Item, Work, packs, passing, progress

__all__ = ["LoadedModel", "decode", "embed", "encode", "load_model", "maker"]

SUFFIXES = {"image": ".png", "video": ".mkv", "asset": ".ply"}


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A model with the name it was asked for by and the hash of its weights."""

    network: AToken
    name: str
    sha256: str


def load_model(name: str, preset: str | None, device: str, dtype: str, gaussians: Path | None = None) -> LoadedModel:
    """Load a checkpoint; `device` may be "auto", `gaussians` a Gaussian decoder to go with it.

    Raises:
        ATokenError: no such model or device, or a file that cannot be loaded as it is.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ATokenError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    network = AToken.from_pretrained(
        name, preset=preset, gaussians=gaussians, device=device, dtype=getattr(torch, dtype)
    )
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
    search: int = 0,
    space: SpaceTiles | None = None,
    recipe: Recipe | None = None,
    view_cache: Path | None = None,
) -> None:
    """Encode files into one token file; videos stream, and so does the file.

    Args:
        search: steps of `AToken.encode`'s search.
        recipe, view_cache: how meshes become voxels, and where their views are kept, as of `Work`.

    Raises:
        ATokenError: nothing could be read, the model gives no finite latents, or the disk is full.
    """
    network = model.network
    if kept == "codes" and network.quantizer is None:
        raise InputError(f"{network.config.name} is continuous: it has no codes; leave out --codes")
    # No file's fault.
    check_search(network, search, space)
    if space is not None:
        space.in_patches(network.config.patch)

    def chosen(latents: Latents, sample: Callable[[Latents], SparseTokens]) -> Latents | SparseTokens:
        if not bool(torch.isfinite(latents.mean.features).all()):
            raise ATokenError(f"{model.name} gives latents that are not finite in this dtype; try --dtype float32")
        if kept == "mean":
            return latents
        return network.quantize(latents) if kept == "codes" else sample(latents)

    def compute(items: Sequence[Item]) -> list[Latents | SparseTokens]:
        given = [item.content for item in items]
        latents = network.encode(given, fit=fit, search=search) if space is None else _tiled(network, given, fit, space)
        seeds = [seed + item.place for item in items]
        return [*chosen(latents, lambda posterior: posterior.sample(seeds)).split()]

    def stream(clip: Clip) -> None:
        sampler = PosteriorSampler(seed + clip.place)
        with writer.item(clip.name, clip.rate) as add:
            for latents in network.encode_video(clip.frames, fit=fit, space=space, search=search):
                add(chosen(latents, sampler.sample))

    settings = {
        "fit": fit,
        "kept": kept,
        "seed": seed if kept == "sample" else None,
        "search": search,
        "device": network.device.type,
        "dtype": str(network.dtype).removeprefix("torch."),
        "token_budget": token_budget,
        "space_tiles": None if space is None else asdict(space),
    }
    recipe = recipe or Recipe(gathering=network.config.gathering)
    work = Work("encode", inputs, recipe, view_cache)
    if work.has_assets:
        settings["assets"] = {"renderer": RENDERER, **asdict(recipe)}
    source = TokenSource(model=model.name, weights_sha256=model.sha256, config=network.config, settings=settings)
    with TokenWriter(output, source) as writer, work:
        for item, tokens in work.compute(compute, network.config.patch, token_budget, stream=stream):
            with writer.item(item.name, item.rate) as add:
                add(tokens)
    print(f"wrote {output}: {writer.count} items, {writer.tokens:,} tokens", file=sys.stderr)


def _tiled(
    network: AToken, items: Sequence[np.ndarray | Asset], fit: Literal["pad", "crop"], space: SpaceTiles
) -> Latents:
    """Latents of images in spatial tiles, each as the video of one frame that the network sees; assets as they are."""
    parts = []
    for item in items:
        if isinstance(item, Asset):
            parts.append(network.encode([item]))
            continue
        (latents,) = network.encode_video([item], fit=fit, space=space)
        (spec,) = latents.mean.items
        parts.append(Latents(replace(latents.mean, items=(replace(spec, kind="image"),)), latents.logvar))
    return Latents.cat(parts)


def maker(content: TokenSource, model: str | None, preset: str | None) -> tuple[str, str | None]:
    """Name and preset of the model that made a token file, unless the user says where it lies now."""
    if preset is None and PRESETS.get(content.config.name) == content.config:
        # So/C and So/D have the same shapes: the file knows which it was.
        preset = content.config.name
    return model or content.model, preset


def decode(
    content: TokenReader,
    output: Path,
    model: LoadedModel,
    *,
    token_budget: int,
    stride_frames: int | None = None,
    cache_frames: int = 0,
    space: SpaceTiles | None = None,
) -> None:
    """Decode a token file's items into a folder; videos stream from file to file.

    Args:
        output: the folder, or the .ply file to write of a token file that holds one asset and nothing else.

    Raises:
        ATokenError: another model than the one that made it, unsafe names, or a full disk; assets and no
            Gaussian decoder, once all else is written.
    """
    header, network = content.header, model.network
    header.check_model(network.config, model.sha256)
    steps, _ = network.config.window_steps(stride_frames, cache_frames)
    if space is not None:
        space.in_patches(network.config.patch)
    targets, lengths = _targets(header, output), header.lengths
    kinds = [spec.kind for spec in header.items]
    shapeless = [index for index, kind in enumerate(kinds) if kind == "asset" and network.gaussian_decoder is None]
    alone = [index for index, kind in enumerate(kinds) if kind == "video" or (kind == "image" and space is not None)]
    together = sorted(set(range(len(targets))) - set(alone) - set(shapeless))
    with progress("decode", len(targets)) as bars:
        for pack in packs(together, lambda index: lengths[index], token_budget):
            items = [part for index in pack for part in content.parts(index, steps)]
            for index, decoded in zip(
                pack, network.decode(SparseTokens.cat([_values(item) for item in items])), strict=True
            ):
                (save_ply if kinds[index] == "asset" else _write_image)(decoded, targets[index])
                bars.advance()
        for index in alone:
            blocks = network.decode_video(
                content.parts(index, steps), stride_frames=stride_frames, cache_frames=cache_frames, space=space
            )
            with bars.part(header.names[index], header.items[index].out_frames) as passed:
                _write(targets[index], passing(blocks, passed), header.rates[index])
            bars.advance()
    written = len(targets) - len(shapeless)
    if written:
        print(f"wrote {output}" if targets == [output] else f"wrote {written} files to {output}", file=sys.stderr)
    if shapeless:
        names = ", ".join(header.names[index] for index in shapeless[:3]) + (", ..." if len(shapeless) > 3 else "")
        raise InputError(
            f"{names}: left out, {model.name} has no Gaussian decoder to make .ply files of assets; "
            "give one with --gaussians"
        )


def embed(
    inputs: Sequence[Path],
    output: Path,
    model: LoadedModel,
    *,
    fit: Literal["pad", "crop"],
    token_budget: int,
    recipe: Recipe | None = None,
    view_cache: Path | None = None,
) -> None:
    """Write names and embeddings [N, C] float32 as .parquet (a list column) or .npz.

    Raises:
        ATokenError: nothing could be read, or the disk is full.
    """

    def compute(items: Sequence[Item]) -> list[np.ndarray]:
        return [*model.network.embed([item.content for item in items], fit=fit).cpu().numpy()]

    paths, vectors = [], []
    recipe = recipe or Recipe(gathering=model.network.config.gathering)
    with Work("embed", inputs, recipe, view_cache) as work:
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


def _values(tokens: Latents | SparseTokens) -> SparseTokens:
    return tokens.mean if isinstance(tokens, Latents) else tokens


def _targets(header: TokenHeader, folder: Path) -> list[Path]:
    """Where each item goes; items of one name get -2, -3, ... in their order.

    Raises:
        TokenFileError: a name that would lead out of the folder.
        InputError: a .ply file is asked for of anything but one asset.
    """
    if folder.suffix == ".ply" and not folder.is_dir():
        if [spec.kind for spec in header.items] != ["asset"]:
            raise InputError(f"{folder}: one .ply file is made of one asset; give a folder for these items")
        return [folder]
    targets: dict[Path, None] = {}
    for name, spec in zip(header.names, header.items, strict=True):
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or not relative.name or "\\" in name or "\0" in name:
            raise TokenFileError(f"item name {name!r} leads out of the output folder; the file is not to be trusted")
        suffix = SUFFIXES[spec.kind]
        target = folder / relative.with_suffix(suffix)
        number = 2
        while target in targets:
            target = folder / relative.with_name(f"{relative.stem}-{number}{suffix}")
            number += 1
        targets[target] = None
    return list(targets)


def _write(path: Path, blocks: Iterable[np.ndarray], rate: Fraction | None) -> None:
    """A video's frames as they come, or the one frame of an image."""
    if rate is None:
        (frame,) = (frame for block in blocks for frame in block)
        _write_image(frame, path)
        return
    with replacing(path) as aside, VideoWriter(aside, rate) as writer:
        for block in blocks:
            writer.write(block)


def _write_image(pixels: np.ndarray, path: Path) -> None:
    with replacing(path) as aside:
        Image.fromarray(pixels).save(aside, format="PNG")
