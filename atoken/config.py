"""Shapes of the tokenizer, as data (FACTS section 1). Imports no torch, so that lists stay quick."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import prod
from typing import Any, Literal, get_args

from atoken.errors import CheckpointError, InputError

__all__ = ["PRESETS", "ATokenConfig", "FSQConfig", "Gathering", "TransformerConfig", "preset"]

AXES = 4
"""Rotary axes: t, x, y, z."""

Gathering = Literal["nearest", "average", "visible"]
"""Which views colour a voxel, see `atoken.assets.voxel_features`."""


def _positive(owner: str, **values: int) -> None:
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(f"{owner}: {name} must be a positive whole number, got {value!r}")


def _known(owner: type, data: Any) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise CheckpointError(f"{owner.__name__}: must be an object with keys, got {data!r}")
    names = {f.name for f in fields(owner)}
    unknown = sorted(set(data) - names)
    if unknown:
        raise CheckpointError(f"{owner.__name__}: unknown key {unknown[0]!r}; known keys: {', '.join(sorted(names))}")
    return dict(data)


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerConfig:
    """One transformer half: model width, number of blocks, attention heads, hidden width of MLPs.

    `width / heads` must be a multiple of 8: rotary positions turn channel pairs on four axes.
    """

    width: int
    blocks: int
    heads: int
    mlp: int

    def __post_init__(self) -> None:
        _positive(
            "TransformerConfig",
            width=self.width,
            blocks=self.blocks,
            heads=self.heads,
            mlp=self.mlp,
        )
        if self.width % self.heads or self.head_dim % (2 * AXES):
            raise CheckpointError(
                f"TransformerConfig: width {self.width} over {self.heads} heads gives "
                f"{self.width / self.heads:g} channels a head; choose a multiple of {2 * AXES}"
            )

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads


@dataclass(frozen=True, kw_only=True, slots=True)
class FSQConfig:
    """Finite scalar quantizer: levels per dimension of a codebook, and number of codebooks."""

    levels: tuple[int, ...] = (4,) * 6
    codebooks: int = 8

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        _positive("FSQConfig", codebooks=self.codebooks)
        if not self.levels or any(not isinstance(n, int) or n < 2 for n in self.levels):
            raise CheckpointError(f"FSQConfig: every level must be 2 or more, got {self.levels}")

    @property
    def channels(self) -> int:
        """Latent channels that the quantizer owns: codebooks x dimensions."""
        return self.codebooks * len(self.levels)

    @property
    def codebook_size(self) -> int:
        """Entries of one codebook."""
        return prod(self.levels)


@dataclass(frozen=True, kw_only=True, slots=True)
class ATokenConfig:
    """The whole tokenizer.

    `patch` is (frames, rows, columns) of one token; `tile_frames` the length of a temporal tile in frames (FACTS
    section 8); `quantizer` is None for continuous models; `gathering` says which views coloured the voxels that it was
    trained on ("nearest" in the release).
    """

    name: str
    encoder: TransformerConfig
    decoder: TransformerConfig
    latent_channels: int = 48
    patch: tuple[int, int, int] = (4, 16, 16)
    tile_frames: int = 16
    quantizer: FSQConfig | None = None
    gathering: Gathering = "nearest"

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch", tuple(self.patch))
        if self.gathering not in get_args(Gathering):
            raise CheckpointError(
                f"ATokenConfig: gathering must be {' or '.join(get_args(Gathering))}, got {self.gathering!r}"
            )
        if len(self.patch) != 3:
            raise CheckpointError(f"ATokenConfig: patch must be (t, h, w), got {self.patch}")
        t, h, w = self.patch
        _positive(
            "ATokenConfig",
            latent_channels=self.latent_channels,
            patch_frames=t,
            patch_rows=h,
            patch_columns=w,
            tile_frames=self.tile_frames,
        )
        if self.tile_frames % t:
            raise CheckpointError(f"ATokenConfig: tile_frames {self.tile_frames} is not a multiple of {t}")
        if self.quantizer is not None and self.quantizer.channels != self.latent_channels:
            raise CheckpointError(
                f"ATokenConfig: the quantizer holds {self.quantizer.channels} channels, "
                f"the latent {self.latent_channels}; they must be equal"
            )

    @property
    def token_channels(self) -> int:
        """Pixel values of one token: patch volume x RGB."""
        return prod(self.patch) * 3

    @property
    def tile_steps(self) -> int:
        """Latent time steps of a temporal tile."""
        return self.tile_frames // self.patch[0]

    def window_steps(self, stride_frames: int | None, cache_frames: int) -> tuple[int, int]:
        """Length and cache of a decoding window in latent steps, both rounded down.

        Args:
            stride_frames: `tile_frames` where None.

        Raises:
            InputError: a stride below one latent step or a negative cache.
        """
        stride_frames, step = self.tile_frames if stride_frames is None else stride_frames, self.patch[0]
        if stride_frames < step or cache_frames < 0:
            raise InputError(
                f"stride_frames must be {step} or more and cache_frames 0 or more, "
                f"got {stride_frames} and {cache_frames}"
            )
        return stride_frames // step, cache_frames // step

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` gives the same config back."""
        data = asdict(self)
        data["patch"] = list(self.patch)
        if self.quantizer is not None:
            data["quantizer"]["levels"] = list(self.quantizer.levels)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ATokenConfig":
        """Strict inverse of `to_dict`.

        Raises:
            CheckpointError: an unknown key, a missing key or a value of the wrong kind; the
                message names it.
        """
        values = _known(cls, data)
        try:
            for half in ("encoder", "decoder"):
                values[half] = TransformerConfig(**_known(TransformerConfig, values[half]))
            if values.get("quantizer") is not None:
                values["quantizer"] = FSQConfig(**_known(FSQConfig, values["quantizer"]))
            return cls(**values)
        except KeyError as error:
            raise CheckpointError(f"ATokenConfig: missing key {error}") from None
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"ATokenConfig: {error}") from None


_SO400M = TransformerConfig(width=1152, blocks=27, heads=16, mlp=4304)
_BASE = TransformerConfig(width=768, blocks=12, heads=12, mlp=3072)
_SO_C = ATokenConfig(name="so-c", encoder=_SO400M, decoder=_SO400M)

PRESETS: dict[str, ATokenConfig] = {
    config.name: config
    for config in (
        _SO_C,
        replace(_SO_C, name="so-c-s1", latent_channels=32),
        replace(_SO_C, name="so-d", quantizer=FSQConfig()),
        ATokenConfig(name="base", encoder=_BASE, decoder=_BASE),
        # 4.4 M parameters: the packaged atoken-nano. atoken-nano-d has more blocks and a quantizer.
        ATokenConfig(
            name="nano",
            encoder=TransformerConfig(width=192, blocks=3, heads=4, mlp=768),
            decoder=TransformerConfig(width=192, blocks=3, heads=4, mlp=768),
        ),
        # The smaller of the two sizes whose scaling is compared (Fig. 7 at the size of a laptop).
        ATokenConfig(
            name="pico",
            encoder=TransformerConfig(width=96, blocks=2, heads=2, mlp=384),
            decoder=TransformerConfig(width=96, blocks=2, heads=2, mlp=384),
        ),
    )
}
"""The released models (so-c, so-c-s1, so-d) and smaller shapes of ours."""


def preset(name: str) -> ATokenConfig:
    """The config called `name`.

    Raises:
        CheckpointError: no such preset; the message lists those that exist.
    """
    try:
        return PRESETS[name]
    except KeyError:
        raise CheckpointError(f"no preset {name!r}; choose one of {', '.join(PRESETS)}") from None
