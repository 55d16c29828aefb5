"""Loss terms of the paper's section 3.3, one a file; a trainer weighs and sums them (eq. 4 and 6)."""

from atoken.training.losses.clip_similarity import Embed, OpenClipTower, clip_distance
from atoken.training.losses.distill import Directions, distillation
from atoken.training.losses.gram import GramForm, gram_from
from atoken.training.losses.kl import kl_divergence, kl_per_token
from atoken.training.losses.lpips import LpipsHeads
from atoken.training.losses.patchgan import PatchDiscriminator, adaptive_weight, discriminator_loss, generator_loss
from atoken.training.losses.pixels import MSE_FLOOR, item_means, item_mse, l1, log_mse
from atoken.training.losses.resize import to_square
from atoken.training.losses.sigmoid import sigmoid_loss
from atoken.training.losses.vgg import VGG16Trunk

__all__ = [
    "MSE_FLOOR",
    "Directions",
    "Embed",
    "GramForm",
    "LpipsHeads",
    "OpenClipTower",
    "PatchDiscriminator",
    "VGG16Trunk",
    "adaptive_weight",
    "clip_distance",
    "discriminator_loss",
    "distillation",
    "generator_loss",
    "gram_from",
    "item_means",
    "item_mse",
    "kl_divergence",
    "kl_per_token",
    "l1",
    "log_mse",
    "sigmoid_loss",
    "to_square",
]
