"""Small stand-ins for 3D assets: boxes in memory, a tokenizer that is simple, a metric that is exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atoken.assets.cameras import Camera
from atoken.assets.mesh import Mesh
from atoken.assets.render import Renderer, RenderSettings
from atoken.errors import InputError
from harness.data.base import AssetSource, Model, Sample, SampleError
from harness.metrics.asset_base import AssetMeasured, AssetMeter, AssetMetric, AssetTotals, ViewPair, premultiplied
from harness.metrics.base import Cell
from harness.plan import Plan
from harness.protocol import AssetRules
from harness.tokenizers.asset import AssetTokenizer, EncodedAsset, InputViews, Rendered
from harness.tokenizers.asset_contract import box
from harness.tokenizers.base import LatentMode, TokenizerCard
from tests.harness import fakes

RULES = AssetRules(input_views=2, input_size=8, views="four", size=12)


@dataclass(frozen=True)
class Box:
    """A box of these sides; `broken` says why it cannot be read, `refused` that the tokenizer will not take it."""

    sides: tuple[float, float, float] = (1, 0.8, 0.6)
    broken: str | None = None
    refused: bool = False


class Boxes(AssetSource):
    """Boxes, the same for everyone."""

    name, title, credits = "boxes", "Boxes", "made up"

    def __init__(self, *boxes: Box, expected: int | None = None) -> None:
        self.expected = expected
        self._boxes = boxes
        self._samples = [Sample(f"box/{index:03d}.glb") for index in range(len(boxes))]

    @property
    def samples(self) -> Sequence[Sample]:
        return self._samples

    def open(self, index: int) -> Model:
        one = self._boxes[index]
        if one.broken == "crash":
            raise OverflowError("too much")
        if one.broken is not None:
            raise SampleError(self._samples[index].id, one.broken)
        mesh = box(sides=one.sides)
        if one.refused:
            mesh = Mesh("refused", mesh.vertices, mesh.faces, mesh.material_of_face, mesh.materials)
        return Model(mesh, mesh.content_hash)


class Dim(AssetTokenizer):
    """Draws the mesh darker by a factor; a sample by another factor. Counts what it was asked for."""

    def __init__(self, factor: float = 0.75, *, unrendered: str | None = None, fault: str = "") -> None:
        self.card = TokenizerCard(
            name="dim",
            title="dim",
            modalities=("asset",),
            token_type="transform",
            latent_modes=("mean", "sample"),
            source="tests",
        )
        self.factor, self.unrendered, self.fault = factor, unrendered, fault
        self.encoded: list[str] = []
        self.decoded = 0

    def encode_asset(self, mesh: Mesh, inputs: InputViews, *, latent: LatentMode, seed: int) -> EncodedAsset:
        if mesh.name == "refused":
            raise InputError("too fine a mesh")
        assert (inputs.count, inputs.size) == (RULES.input_views, RULES.input_size)
        self.encoded.append(mesh.name)
        noise = float(torch.rand(1, generator=torch.Generator().manual_seed(seed)))
        factor = self.factor * (1 - 0.1 * noise) if latent == "sample" else self.factor
        voxels = int(1000 * np.prod(np.ptp(mesh.vertices, axis=0)))
        return EncodedAsset(payload=(mesh, factor), tokens=2 * voxels, voxels=voxels)

    def decode_asset(self, encoded: EncodedAsset) -> Rendered:
        self.decoded += 1
        mesh, factor = encoded.payload
        return _Dimmed(mesh, factor, self.fault)


class _Dimmed(Rendered):
    def __init__(self, mesh: Mesh, factor: float, fault: str) -> None:
        self._renderer, self._factor, self._fault = Renderer(mesh), factor, fault

    def render(self, camera: Camera, size: int) -> Tensor:
        colours, _ = self._renderer.view(camera, RenderSettings(height=size, width=size))
        view = premultiplied(colours, torch.device("cpu"))
        view[..., :3] *= self._factor
        match self._fault:
            case "nan":
                return view * float("nan")
            case "size":
                return view[1:]
            case "dtype":
                return view.double()
            case "refuses":
                raise InputError("cannot be drawn")
        return view


class MeanError(AssetMetric):
    """Mean absolute error on black, of the asset and of each view."""

    columns = ("error", "error voxels")
    frame_columns = ("error",)
    higher_is_better = False

    def start(self) -> AssetMeter:
        return _MeanError()

    def cells(self, table: Mapping[str, np.ndarray], features: Mapping[str, np.ndarray], *, seed: int) -> list[Cell]:
        values = table["error"]
        return [Cell(name="error", value=float(values.mean()), n=len(values), higher_is_better=False)]


class _MeanError(AssetMeter):
    def __init__(self) -> None:
        self.errors: list[float] = []

    def update(self, pair: ViewPair) -> None:
        reference, reconstruction = pair.on("black")
        assert reference.dtype == reconstruction.dtype == torch.uint8
        assert reference.shape == reconstruction.shape == (1, 3, RULES.size, RULES.size)
        self.errors.append(float((reference.double() - reconstruction.double()).abs().mean()))

    def finish(self, totals: AssetTotals) -> AssetMeasured:
        columns = {"error": float(np.mean(self.errors)), "error voxels": float(totals.voxels or 0)}
        return AssetMeasured(columns=columns, views={"error": np.array(self.errors)})


def asset_plan(**changes: Any) -> Plan:
    """A plan of the stand-ins."""
    rules = changes.pop("asset", RULES)
    protocol = {"experiment": "asset-recon", "prepare": "unit_cube|unlit", "asset": rules}
    protocol |= {"eight_bit": "half-even", **changes.pop("protocol", {})}
    parts: dict[str, Any] = {
        "experiment": "asset-recon",
        "tokenizer": Dim(),
        "dataset": Boxes(Box(), Box((0.4, 1, 0.9)), Box((1, 1, 0.2))),
        "metrics": [MeanError()],
        "protocol": fakes.protocol(**protocol),
    }
    return fakes.plan(**{**parts, **changes, "settings": {"shard_size": 1, **changes.get("settings", {})}})
