"""AToken: a unified visual tokenizer for images, videos and 3D assets.

from atoken import AToken

tok = AToken.from_pretrained("atoken-nano")
latents = tok.encode([image, video, Asset.from_mesh("chair.glb")])
picture, clip, chair = tok.decode(latents)

blocks = tok.decode_video(tok.encode_video(frames))  # of any length, as a stream
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from atoken.config import ATokenConfig, FSQConfig, TransformerConfig, preset
from atoken.errors import ATokenError, CheckpointError, InputError

if TYPE_CHECKING:
    from atoken.assets.asset import Asset, VoxelFeatures
    from atoken.assets.gaussian_decoder import GaussianDecoder
    from atoken.assets.gaussians import Gaussians
    from atoken.parts import join_video, split_video
    from atoken.space import SpaceTiles
    from atoken.tokenizer import AToken
    from atoken.tokens import ItemSpec, Latents, PosteriorSampler, SparseTokens

__all__ = [
    "AToken",
    "ATokenConfig",
    "ATokenError",
    "Asset",
    "CheckpointError",
    "FSQConfig",
    "GaussianDecoder",
    "Gaussians",
    "InputError",
    "ItemSpec",
    "Latents",
    "PosteriorSampler",
    "SpaceTiles",
    "SparseTokens",
    "TransformerConfig",
    "VoxelFeatures",
    "join_video",
    "preset",
    "split_video",
]

# Torch takes seconds to import; a command's --help must not wait for it.
_LATE = {
    "AToken": "atoken.tokenizer",
    "Asset": "atoken.assets.asset",
    "GaussianDecoder": "atoken.assets.gaussian_decoder",
    "Gaussians": "atoken.assets.gaussians",
    "ItemSpec": "atoken.tokens",
    "Latents": "atoken.tokens",
    "PosteriorSampler": "atoken.tokens",
    "SpaceTiles": "atoken.space",
    "SparseTokens": "atoken.tokens",
    "VoxelFeatures": "atoken.assets.asset",
    "join_video": "atoken.parts",
    "split_video": "atoken.parts",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module 'atoken' has no attribute {name!r}")
