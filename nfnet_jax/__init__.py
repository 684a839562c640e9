"""Convolutional networks without normalization layers, in JAX and Flax.

The names here work in any Flax and optax program; see `examples/`. Importing the
package imports nothing else before a name is used. The papers:

- Brock, De, Smith 2021a, "Characterizing signal propagation to close the performance
  gap in unnormalized ResNets" (arXiv 2101.08692): NF-ResNets, NF-RegNets, β, γ.
- Brock, De, Smith, Simonyan 2021b, "High-performance large-scale image recognition
  without normalization" (arXiv 2102.06171): NFNets, adaptive gradient clipping.
- De, Smith 2020, "Batch normalization biases residual blocks towards the identity
  function in deep networks" (arXiv 2002.10444): skip gains that start at 0.
- Qiao et al. 2019, "Micro-batch training with batch-channel normalization and weight
  standardization" (arXiv 1903.10520): weight standardization.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nfnet_jax.layers.activations import activation_gain, scaled_activation
    from nfnet_jax.layers.dropout import StochasticDepth
    from nfnet_jax.layers.residual import SkipGain, beta_schedule
    from nfnet_jax.layers.ws_conv import WSConv, standardize
    from nfnet_jax.models.network import for_platform
    from nfnet_jax.models.registry import create_model, list_models
    from nfnet_jax.optim.agc import adaptive_gradient_clipping
    from nfnet_jax.optim.sam import sam_value_and_grad
    from nfnet_jax.weights.load import load_pretrained

__version__ = "0.1.0"
__all__ = [
    "SkipGain",
    "StochasticDepth",
    "WSConv",
    "__version__",
    "activation_gain",
    "adaptive_gradient_clipping",
    "beta_schedule",
    "create_model",
    "for_platform",
    "list_models",
    "load_pretrained",
    "sam_value_and_grad",
    "scaled_activation",
    "standardize",
]

_HOMES = {
    "weights.load": ("load_pretrained",),
    "layers.activations": ("activation_gain", "scaled_activation"),
    "layers.dropout": ("StochasticDepth",),
    "layers.residual": ("SkipGain", "beta_schedule"),
    "layers.ws_conv": ("WSConv", "standardize"),
    "models.network": ("for_platform",),
    "models.registry": ("create_model", "list_models"),
    "optim.agc": ("adaptive_gradient_clipping",),
    "optim.sam": ("sam_value_and_grad",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f".{home}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
