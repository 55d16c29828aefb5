"""What a token file says of its items in words, and where it says that they lie."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from atoken.assets.asset import check_voxels
from atoken.config import ATokenConfig
from atoken.errors import InputError
from atoken.patches import raster
from atoken.tokens import ItemSpec

__all__ = ["SCATTERED", "TokenFileError", "TokenHeader", "TokenSource", "check_coords", "check_places"]

HEADER = "atoken_tokens"
VERSION, ASSETS = 1, 2
"""Of the format: the second holds assets too. Only files with assets carry it, so that older readers read the rest."""

SCATTERED = "its coordinates are not those of whole images, videos and assets"


class TokenFileError(InputError):
    """A file that is no token file, is damaged, or was made by another model."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TokenSource:
    """Where tokens come from.

    Attributes:
        model: the name or path under which the model was given.
        weights_sha256: of its weights, by the function of this name; decoding needs the same.
        config: its shapes.
        settings: how the tokens were made, e.g. fit, latent mode, seed, device and dtype.
    """

    model: str
    weights_sha256: str
    config: ATokenConfig
    settings: Mapping[str, Any] = field(default_factory=dict)

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


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TokenHeader(TokenSource):
    """What a token file says of its items.

    Attributes:
        names: what each item was called.
        rates: frames per second of each video; None for images and assets.
        items: what each was before it became tokens.
    """

    names: tuple[str, ...]
    rates: tuple[Fraction | None, ...]
    items: tuple[ItemSpec, ...]

    def __post_init__(self) -> None:
        counts = (len(self.items), len(self.names), len(self.rates))
        if len(set(counts)) > 1:
            raise InputError(f"{counts[0]} items with {counts[1]} names and {counts[2]} frame rates")
        for name, spec, rate in zip(self.names, self.items, self.rates, strict=True):
            if (spec.kind == "video") != (rate is not None and rate > 0):
                raise InputError(f"{name}: a frame rate of {rate} for {spec.kind}; only videos have one")

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each item."""
        return tuple(spec.tokens(self.config.patch) for spec in self.items)

    def metadata(self) -> dict[str, str]:
        """The header as `.safetensors` metadata."""
        header = {
            "version": ASSETS if any(spec.kind == "asset" for spec in self.items) else VERSION,
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            "config": self.config.to_dict(),
            "settings": dict(self.settings),
            "items": [
                {"name": name, "rate": None if rate is None else str(rate), **_sizes(spec)}
                for name, rate, spec in zip(self.names, self.rates, self.items, strict=True)
            ],
        }
        return {HEADER: json.dumps(header)}

    @classmethod
    def parse(cls, metadata: Mapping[str, str] | None) -> TokenHeader:
        """Inverse of `metadata`; inside `faults`, since any part of a damaged header may be missing.

        Raises:
            TokenFileError: no tokens, a newer format, or sizes that are no numbers.
        """
        if HEADER not in (metadata or {}):
            raise TokenFileError("it holds no tokens; `atoken encode` writes files that do")
        header = json.loads((metadata or {})[HEADER])
        if header["version"] not in (VERSION, ASSETS):
            raise TokenFileError(
                f"format {header['version']} is not {VERSION} or {ASSETS}, which this version reads; update atoken"
            )
        names, rates, specs = [], [], []
        for item in header["items"]:
            entry = dict(item)
            names.append(str(entry.pop("name")))
            rate = entry.pop("rate")
            rates.append(None if rate is None else Fraction(rate))
            specs.append(ItemSpec(**entry))
        for name, spec in zip(names, specs, strict=True):
            if not all(type(value) is int for key, value in asdict(spec).items() if key != "kind"):
                raise TokenFileError(f"{name}: its sizes are not whole numbers")
        return cls(
            names=tuple(names),
            rates=tuple(rates),
            items=tuple(specs),
            model=str(header["model"]),
            weights_sha256=str(header["weights_sha256"]),
            config=ATokenConfig.from_dict(header["config"]),
            settings=dict(header["settings"]),
        )

    def check_lengths(self, lengths: Sequence[int]) -> None:
        """Make sure that as many tokens are there as the sizes need, before anything is allocated by them.

        Raises:
            TokenFileError: too few or too many, for the file or an item.
        """
        for name, spec, wanted, length in zip(self.names, self.items, self.lengths, lengths, strict=True):
            if wanted != length:
                what = f"{spec.out_height} x {spec.out_width} pixels" if not spec.voxels else f"{wanted} voxels"
                raise TokenFileError(f"{name}: {length} tokens do not fill {what}")


def check_coords(coords: Tensor, header: TokenHeader) -> None:
    """Make sure that all coordinates [L, 4] are those of whole items that start at t = 0.

    Raises:
        TokenFileError: some are not.
    """
    if coords.shape != (sum(header.lengths), 4):
        raise TokenFileError(SCATTERED)
    for item, spec in zip(coords.split_with_sizes(header.lengths), header.items, strict=True):
        if spec.kind == "asset":
            check_places(item)
        elif not torch.equal(item, raster(spec.grid(header.config.patch))):
            raise TokenFileError(SCATTERED)


def check_places(coords: Tensor) -> None:
    """Make sure that coordinates [L, 4] are those of an asset's voxels, in any order.

    Raises:
        TokenFileError: they are not.
    """
    try:
        check_voxels(coords[:, 1:])
    except InputError as error:
        raise TokenFileError(f"{SCATTERED} ({error})") from None
    if bool(coords[:, 0].any()):
        raise TokenFileError(SCATTERED)


def _sizes(spec: ItemSpec) -> dict[str, Any]:
    """A spec's fields; of images and videos without that of assets, as files had it from the first version."""
    return {name: value for name, value in asdict(spec).items() if name != "voxels" or value}
