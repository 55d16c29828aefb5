"""AToken on 3D assets: how it looks at them, and which decoder makes Gaussians of what it decodes.

--option gaussians=3d_decode_gs.pt --option gathering=average --option occupancy=mesh
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atoken import checkpoint
from atoken.assets.gaussian_decoder import WEIGHTS_NAME
from atoken.assets.mesh_to_asset import Recipe
from atoken.config import ATokenConfig
from atoken.errors import CheckpointError, InputError
from harness.errors import BenchError
from harness.tokenizers.asset import AssetTokenizer, EncodedAsset, GaussianPictures, InputViews
from harness.tokenizers.base import LatentMode

if TYPE_CHECKING:
    from atoken.assets.mesh import Mesh
    from atoken.tokenizer import AToken

UNRENDERED = (
    "the model has no Gaussian decoder, and Gaussians of random weights are no result: name one with "
    "--option gaussians=3d_decode_gs.pt"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class AssetOptions:
    """How a mesh becomes tokens. All of it changes the result, so all of it is in the card.

    Attributes:
        occupancy: which voxels are taken, ``depth`` or ``mesh``.
        gathering: which views colour a voxel, ``nearest``, ``average`` or ``visible``; see
            `atoken.assets.mesh_to_asset.Recipe`.
    """

    occupancy: str
    gathering: str

    @classmethod
    def usual(cls, config: ATokenConfig) -> AssetOptions:
        """The model's own way, the release's where its config says nothing else."""
        return cls(occupancy=Recipe().occupancy, gathering=config.gathering)

    @classmethod
    def read(cls, config: ATokenConfig, *, occupancy: str | None, gathering: str | None) -> AssetOptions:
        """From the text of options; None for the way in which the model was trained.

        Raises:
            BenchError: no such way.
        """
        usual = cls.usual(config)
        options = cls(occupancy=occupancy or usual.occupancy, gathering=gathering or usual.gathering)
        try:
            options.recipe(InputViews(1, 1))
        except InputError as error:
            raise BenchError(f"--option {error}") from None
        return options

    def recipe(self, inputs: InputViews) -> Recipe:
        """The library's word for it."""
        names: dict[str, Any] = asdict(self)
        return Recipe(views=inputs.count, size=inputs.size, **names)

    def unlike(self, config: ATokenConfig) -> str:
        """What differs from the model's own way, for a row's title; empty where nothing does."""
        usual = asdict(self.usual(config))
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items() if value != usual[name])


def gaussian_weights(gaussians: str | None, folder: Path) -> dict[str, str]:
    """SHA-256 of the Gaussian decoder's file by name; none where there is none.

    Args:
        gaussians: as the user named it.
        folder: of the tokenizer's weights, which may hold one.

    Raises:
        CheckpointError: the named file does not exist.
    """
    path = folder if gaussians is None else Path(gaussians).expanduser()
    if path.is_dir():
        path = path / WEIGHTS_NAME
    if path.is_file():
        return {path.name: checkpoint.sha256_file(path)}
    if gaussians is not None:
        raise CheckpointError(f"{path}: no such Gaussian decoder; give the release's 3d_decode_gs.pt")
    return {}


class ATokenAssets(AssetTokenizer):
    """What an adapter of AToken needs for assets: views on black, voxels, latents, Gaussians."""

    _model: AToken
    _asset_options: AssetOptions
    _search: int

    def encode_asset(self, mesh: Mesh, inputs: InputViews, *, latent: LatentMode, seed: int) -> EncodedAsset:
        from atoken.assets.mesh_to_asset import voxelise

        asset = voxelise(mesh, self._asset_options.recipe(inputs), views=inputs.render(mesh))
        latents = self._model.encode([asset], search=self._search)
        if self._model.config.quantizer is not None:
            payload = self._model.quantize(latents)
        else:
            payload = latents.mean if latent == "mean" else latents.sample([seed])
        return EncodedAsset(payload=payload, tokens=len(asset), voxels=len(asset))

    def decode_asset(self, encoded: EncodedAsset) -> GaussianPictures:
        (gaussians,) = self._model.decode_gaussians(encoded.payload)
        return GaussianPictures(gaussians)
