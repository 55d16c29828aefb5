"""From the decoder's voxel features to 3D Gaussians (FACTS section 9): the network of `3d_decode_gs.pt`.

Shape legend: L voxels of a pack, C width, H heads, D channels a head, G Gaussians a voxel.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from math import expm1, log
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atoken import checkpoint
from atoken.assets.gaussians import Gaussians
from atoken.errors import CheckpointError, InputError
from atoken.files import replacing
from atoken.mlp import MLP
from atoken.weights_file import write_safetensors

__all__ = ["GaussianDecoder", "GaussianDecoderConfig", "Windows", "voxel_positions"]

WEIGHTS_NAME = "gaussians.safetensors"
CONFIG_NAME = "gaussians.json"

SOFTCAP = 30.0
"""Scaled scores pass through 30 tanh(s / 30)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GaussianDecoderConfig:
    """Shape and constants; the defaults are the released decoder's.

    Attributes:
        channels: features of a voxel, the first 16 x 16 x 3 of the tokenizer decoder's output.
        resolution: voxels along an axis of the unit cube.
        window: voxels along an axis of an attention window.
        reach: how far a Gaussian may move, in voxels on both sides together (`voxel_size` in the release).
        scaling_bias, opacity_bias: what a zero output becomes.
        smallest_scale: standard deviation that is added in quadrature (the 3D filter).
        rotation_rate: multiplier of the rotation outputs.
    """

    channels: int = 768
    width: int = 768
    blocks: int = 12
    heads: int = 12
    mlp: int = 3072
    gaussians: int = 32
    resolution: int = 64
    window: int = 8
    reach: float = 1.5
    scaling_bias: float = 4e-3
    opacity_bias: float = 0.1
    smallest_scale: float = 9e-4
    rotation_rate: float = 0.1

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise CheckpointError(f"GaussianDecoderConfig: width {self.width} is not a multiple of heads {self.heads}")

    @classmethod
    def read(cls, path: Path) -> "GaussianDecoderConfig":
        """From a file that `GaussianDecoder.save_pretrained` wrote.

        Raises:
            CheckpointError: another file, or one that this version does not know.
        """
        try:
            values = json.loads(path.read_text())
            for field in fields(cls):
                if type(values[field.name]) not in ({int, float} if field.type is float else {int}):
                    raise CheckpointError(f"{path}: {field.name} is {values[field.name]!r}; write it anew")
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: no config of a Gaussian decoder ({error}); write it anew") from None


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Which voxels attend to one another.

    Attributes:
        order: [L] int64, voxels window by window, windows of one size side by side.
        runs: (windows, voxels in each) of that order.
    """

    order: Tensor
    runs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, voxels: Tensor, items: Tensor, window: int, shift: int) -> "Windows":
        """Cut space into cubes of `window` voxels, moved by `shift`; items never share one.

        Args:
            voxels: [L, 3] int64, none negative.
            items: [L] int64, the item of each voxel.
        """
        x, y, z = ((voxels + shift) // window).unbind(1)
        # One number a cube: finding equal numbers takes a tenth of finding equal rows, in the same order.
        side = (int(voxels.max()) + shift) // window + 1 if len(voxels) else 1
        cubes = ((items * side + x) * side + y) * side + z
        _, index, counts = torch.unique(cubes, return_inverse=True, return_counts=True)
        # By size, then by window: windows of one size are one batch of attention.
        rank = torch.argsort(counts, stable=True)
        place = torch.empty_like(rank)
        place[rank] = torch.arange(len(rank), device=rank.device)
        order = torch.argsort(place[index], stable=True)
        runs = tuple((len(list(group)), size) for size, group in groupby(counts[rank].tolist()))
        return cls(order, runs)


class _WindowAttention(nn.Module):
    def __init__(self, config: GaussianDecoderConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.width // config.heads
        self.to_qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.to_out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """[L, C] -> [L, C]."""
        qkv = self.to_qkv(x)[windows.order].unflatten(-1, (3, self.heads, self.head_dim))
        outputs, start = [], 0
        for count, size in windows.runs:
            end = start + count * size
            # [windows, heads, voxels, channels]
            q, k, v = qkv[start:end].unflatten(0, (count, size)).permute(2, 0, 3, 1, 4).unbind(0)
            scores = (q @ k.transpose(-1, -2)).float() * self.head_dim**-0.5
            weights = torch.softmax(SOFTCAP * torch.tanh(scores / SOFTCAP), dim=-1).to(v.dtype)
            outputs.append((weights @ v).transpose(1, 2).flatten(0, 1).flatten(1))
            start = end
        attended = torch.empty_like(x)
        attended[windows.order] = torch.cat(outputs).to(x.dtype)
        out: Tensor = self.to_out(attended)
        return out


class _Block(nn.Module):
    def __init__(self, config: GaussianDecoderConfig) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(config.width, eps=1e-6)
        self.attn = _WindowAttention(config)
        self.norm2 = nn.RMSNorm(config.width, eps=1e-6)
        self.mlp = MLP(config.width, config.mlp, bias=False)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        x = x + self.attn(self.norm1(x), windows)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class GaussianDecoder(nn.Module):
    """Windowed transformer over occupied voxels, G Gaussians from each.

    Differs from the release where that is weak: an item's result does not depend on its batch mates
    (there, scores are not capped if every window of a layer happens to hold exactly 8 voxels).
    """

    offset_perturbation: Tensor

    def __init__(self, config: GaussianDecoderConfig | None = None) -> None:
        """Random weights; see `from_pretrained`."""
        super().__init__()
        self.config = config = config or GaussianDecoderConfig()
        self.input_layer = nn.Linear(config.channels, config.width, bias=False)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.blocks))
        # xyz, colour, scale, rotation, opacity of each Gaussian.
        self.out_layer = nn.Linear(config.width, 14 * config.gaussians)
        # Where the Gaussians of a voxel stand at first (Hammersley points); comes with the checkpoint.
        self.register_buffer("offset_perturbation", torch.zeros(config.gaussians, 3))

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "GaussianDecoder":
        """Load the released `3d_decode_gs.pt` (or the same tensors as `.safetensors`), in evaluation mode.

        The perceptual loss that its file also holds (`lpips_loss.*`) is left out.

        Args:
            path: that file, or a folder that `save_pretrained` wrote.

        Raises:
            CheckpointError: no such file, a broken or foreign one, or other shapes.
        """
        path = Path(path)
        if path.is_dir():
            path = path / WEIGHTS_NAME
        # Released files have no config: they are of the default shape.
        beside = path.with_name(CONFIG_NAME)
        config = GaussianDecoderConfig.read(beside) if path.name == WEIGHTS_NAME and beside.is_file() else None
        weights = checkpoint.open_weights(checkpoint.locate(path))
        with torch.device("meta"):
            model = cls(config)
        checkpoint.load_into(model, weights, device=torch.device(device), dtype=dtype)
        return model.eval()

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Whether `save_pretrained` wrote a Gaussian decoder into the folder."""
        return (folder / WEIGHTS_NAME).is_file()

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> Path:
        """Write `gaussians.json` and `gaussians.safetensors`, beside a tokenizer's files or alone.

        Args:
            dtype: to store weights in (constants stay as they are); all as they are if not given.

        Returns:
            The weights file.

        Raises:
            WriteError: the system refused.
        """
        constants = dict(self.named_buffers())
        state = {key: value if key in constants else value.to(dtype) for key, value in self.state_dict().items()}
        path = Path(folder) / WEIGHTS_NAME
        write_safetensors(state, path)
        with replacing(path.with_name(CONFIG_NAME)) as aside:
            aside.write_text(json.dumps(asdict(self.config), indent=2) + "\n")
        return path

    def forward(self, features: Tensor, voxels: Tensor, lengths: Sequence[int]) -> Tensor:
        """Raw outputs of each voxel.

        Args:
            features: [L, channels], the tokenizer decoder's first channels, in its [-1, 1] scale.
            voxels: [L, 3] whole numbers, 0 to resolution - 1.
            lengths: voxels of each item, one after another.

        Returns:
            [L, 14 G]: xyz [G, 3], colour [G, 3], scale [G, 3], rotation [G, 4], opacity [G].

        Raises:
            InputError: the parts do not fit together.
        """
        if features.ndim != 2 or tuple(voxels.shape) != (len(features), 3) or sum(lengths) != len(features):
            raise InputError(
                f"features must be [L, C], voxels [L, 3] and lengths sum to L; got {list(features.shape)}, "
                f"{list(voxels.shape)} and {sum(lengths)}"
            )
        if len(voxels) and not 0 <= int(voxels.min()) <= int(voxels.max()) < self.config.resolution:
            raise InputError(f"voxels must lie in 0 to {self.config.resolution - 1}, got {voxels.aminmax()}")
        voxels = voxels.to(device=features.device, dtype=torch.int64)
        items = torch.repeat_interleave(torch.tensor(list(lengths), device=features.device))
        window = self.config.window
        # Even blocks cut at multiples of the window, odd ones half a window off.
        cuts = [Windows.of(voxels, items, window, shift) for shift in (0, window // 2)]
        dtype = self.input_layer.weight.dtype
        x = self.input_layer(features.to(dtype)) + voxel_positions(voxels, self.config.width).to(dtype)
        for index, block in enumerate(self.blocks):
            x = block(x, cuts[index % 2])
        raw: Tensor = self.out_layer(F.layer_norm(x.float(), (self.config.width,)).to(dtype))
        return raw

    def gaussians(self, raw: Tensor, voxels: Tensor) -> Gaussians:
        """Gaussians of raw outputs [L, 14 G] at voxels [L, 3], G of each voxel one after another; float32."""
        config, count = self.config, self.config.gaussians
        sizes = [3 * count, 3 * count, 3 * count, 4 * count, count]
        parts = torch.split(raw.float(), sizes, dim=-1)
        offset, colour, scale, rotation = (part.reshape(len(raw), count, -1) for part in parts[:4])
        corner = (voxels.to(raw.device).float() + 0.5).unsqueeze(1) / config.resolution
        moved = torch.tanh(offset + self.offset_perturbation.float()) * (0.5 * config.reach / config.resolution)
        upright = torch.tensor([1.0, 0.0, 0.0, 0.0], device=raw.device)
        scales = F.softplus(scale + log(expm1(config.scaling_bias)))
        return Gaussians(
            means=(corner + moved - 0.5).flatten(0, 1),
            features_dc=colour.flatten(0, 1),
            log_scales=0.5 * (scales.square() + config.smallest_scale**2).log().flatten(0, 1),
            quaternions=(rotation * config.rotation_rate + upright).flatten(0, 1),
            opacity_logits=(parts[4] + log(config.opacity_bias / (1 - config.opacity_bias))).flatten(),
        )


def voxel_positions(voxels: Tensor, width: int) -> Tensor:
    """Sine and cosine embedding of whole-number positions [L, 3]: [L, width] float32.

    Each axis has width // 6 frequencies 10000^(-m / f), its sines, then its cosines; zeros fill up.
    """
    count = width // 3 // 2
    frequencies = 1.0 / 10000.0 ** (torch.arange(count, dtype=torch.float32, device=voxels.device) / count)
    angles = voxels.to(torch.float32).unsqueeze(-1) * frequencies
    embedding = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return F.pad(embedding, (0, width - embedding.shape[1]))
