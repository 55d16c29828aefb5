"""Loss terms of the paper's section 3.3, one a file; a trainer weighs and sums them (eq. 4 and 6)."""

from atoken.training.losses.kl import kl_divergence, kl_per_token
from atoken.training.losses.pixels import MSE_FLOOR, item_means, item_mse, l1, log_mse

__all__ = ["MSE_FLOOR", "item_means", "item_mse", "kl_divergence", "kl_per_token", "l1", "log_mse"]
