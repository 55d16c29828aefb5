"""AToken: a unified visual tokenizer for images, videos and 3D assets.

from atoken import AToken

tok = AToken.from_pretrained("atoken-nano")
latents = tok.encode([image, video])
arrays = tok.decode(latents)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from atoken.config import ATokenConfig, FSQConfig, TransformerConfig, preset
from atoken.errors import ATokenError, CheckpointError, InputError

if TYPE_CHECKING:
    from atoken.tokenizer import AToken
    from atoken.tokens import ItemSpec, Latents, SparseTokens

__all__ = [
    "AToken",
    "ATokenConfig",
    "ATokenError",
    "CheckpointError",
    "FSQConfig",
    "InputError",
    "ItemSpec",
    "Latents",
    "SparseTokens",
    "TransformerConfig",
    "preset",
]

# Torch takes seconds to import; a command's --help must not wait for it.
_LATE = {
    "AToken": "atoken.tokenizer",
    "ItemSpec": "atoken.tokens",
    "Latents": "atoken.tokens",
    "SparseTokens": "atoken.tokens",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module 'atoken' has no attribute {name!r}")
