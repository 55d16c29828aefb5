"""The adapter contract for 3D assets: a mesh goes in, something comes out that any camera can look at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from harness.asset_views import Draw, Unlit
from harness.tokenizers.base import Adapter, LatentMode

if TYPE_CHECKING:
    from atoken.assets.cameras import Camera
    from atoken.assets.gaussians import Gaussians
    from atoken.assets.mesh import Mesh
    from atoken.assets.render import Views


@dataclass(frozen=True, slots=True)
class InputViews:
    """The pictures that a protocol lets a tokenizer make an asset of.

    Attributes:
        count: cameras on TRELLIS's sphere (Hammersley without its random offset, mostly above).
        size: pixels along their sides.
        draw: what draws them, and the views that are measured.
    """

    count: int
    size: int
    draw: Draw = field(default_factory=Unlit)

    def render(self, mesh: Mesh) -> Views:
        """Colour, alpha and depth of all of them.

        Raises:
            InputError: this mesh cannot be drawn.
        """
        from atoken.assets.cameras import hammersley_views

        return self.draw(mesh, hammersley_views(self.count, mostly_above=True), self.size)


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedAsset:
    """The code of one asset, with what metrics need to know of it.

    Attributes:
        payload: the adapter's own object.
        tokens: how many.
        voxels: how many of the grid's cells it says something of; None where it has no grid.
    """

    payload: Any
    tokens: int
    voxels: int | None = None


class Rendered(ABC):
    """A reconstruction that can be looked at.

    Attributes:
        gaussians: what it is made of, in the unit cube; None where it is of something else.
    """

    gaussians: Gaussians | None = None

    @abstractmethod
    def render(self, camera: Camera, size: int) -> Tensor:
        """One picture.

        Args:
            camera: from where.
            size: pixels along its sides.

        Returns:
            float32 ``[size, size, 4]``: sRGB times alpha (premultiplied), and alpha in 0..1. Colours may pass their
            alpha; they are clamped once they lie on a ground.
        """

    def pictures(self, cameras: Sequence[Camera], size: int) -> Iterator[Tensor]:
        """`render` from each camera; what draws many at once better than one by one may do so."""
        for camera in cameras:
            yield self.render(camera, size)


class GaussianPictures(Rendered):
    """A set of Gaussians, drawn as AToken's release draws them."""

    def __init__(self, gaussians: Gaussians) -> None:
        self.gaussians: Gaussians = gaussians

    def render(self, camera: Camera, size: int) -> Tensor:
        from atoken.assets.splat import Renderer, render

        # Not gsplat on CUDA: its borders differ from the release's, and a figure must not hang on what is installed.
        renderer: Renderer = "torch" if self.gaussians.means.is_cuda else "auto"
        return render(self.gaussians, camera, size, size, renderer=renderer)


class AssetTokenizer(Adapter):
    """Anything that reconstructs 3D assets, behind one adapter.

    An asset's reconstruction depends on its mesh, the input views and its seed alone;
    `harness.tokenizers.contract` checks it.

    Attributes:
        unrendered: why nothing that it decodes can be looked at (weights that are missing); then it is only asked
            to encode, and cells of pictures are absent with this reason. None where it can.
    """

    unrendered: str | None = None

    @abstractmethod
    def encode_asset(self, mesh: Mesh, inputs: InputViews, *, latent: LatentMode, seed: int) -> EncodedAsset:
        """Encode one asset.

        Args:
            mesh: in the unit cube, z up.
            inputs: the views that it may look at.
            latent: the mean of the posterior, or a sample of it.
            seed: of this asset; only a sampled latent uses it.

        Raises:
            InputError: it cannot take this asset; the run names it and goes on.
        """

    @abstractmethod
    def decode_asset(self, encoded: EncodedAsset) -> Rendered:
        """Reconstruct; only called where `unrendered` is None."""
