"""Options that all normalizer-free networks share, and the entries of family tables."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from nfnet_jax.layers.activations import ScaledActivation, activation_gain
from nfnet_jax.layers.residual import Nonlinearity, ResidualBlock, beta_schedule
from nfnet_jax.layers.ws_conv import WSConv

PADDINGS = ("SAME", "symmetric")
TIMM = {
    "gamma": "published",
    "gamma_in_kernel": True,
    "padding": "symmetric",
    "skip_gain": False,
    "var_eps": 1e-5,
}
"""Options of networks as PyTorch image models (timm) defines them."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings that every normalizer-free network has.

    `activation`, `gamma`: see `scaled_activation`. `alpha`: scale of the branches.
    `beta`: see `beta_schedule`. `stochastic_depth`: drop rate that the last block would
    have, growing linearly from 0 in the first. `drop_rate`: dropout before the
    classifier. `weight_standardization=False`: plain convolutions, an ablation.
    `skip_gain=False`: branches without a learned scalar, open from the start.
    `raw_shortcut=True`: projections of x instead of activation(x) / β, an ablation.
    `pool_gain`: factor of the averages of pooled shortcuts; 2 keeps the variance of
    white noise.

    Differences of timm from the reference: `gamma_in_kernel=True`: γ multiplies every
    standardized kernel, stem and projections included, instead of following the
    activations. `padding`: "SAME", or "symmetric" for every stride. `var_eps`: see
    `standardize`.
    """

    activation: str = "relu"
    gamma: str = "exact"
    alpha: float = 0.2
    beta: str = "std"
    stochastic_depth: float = 0.0
    drop_rate: float = 0.0
    weight_standardization: bool = True
    skip_gain: bool = True
    raw_shortcut: bool = False
    pool_gain: float = 1.0
    gamma_in_kernel: bool = False
    padding: str = "SAME"
    var_eps: float = 0.0

    def __post_init__(self):
        activation_gain(self.activation, self.gamma)
        if self.padding not in PADDINGS:
            raise ValueError(f"padding {self.padding!r}: expected one of {PADDINGS}")
        if not self.var_eps >= 0:
            raise ValueError(f"var_eps {self.var_eps}: expected at least 0")
        beta_schedule((1,), self.alpha, self.beta)
        for name in ("alpha", "pool_gain"):
            if not (value := getattr(self, name)) > 0:
                raise ValueError(f"{name} {value}: expected a positive number")
        for name in ("stochastic_depth", "drop_rate"):
            rate = getattr(self, name)
            if not 0 <= rate < 1:
                raise ValueError(f"{name} {rate}: expected a rate in [0, 1)")

    def scaled_activation(self) -> ScaledActivation:
        """Activation of the network, with γ unless the kernels have it."""
        gamma = "none" if self.gamma_in_kernel else self.gamma
        gain = activation_gain(self.activation, gamma)
        return ScaledActivation(self.activation, gain)

    def conv(self, **settings: Any) -> Callable[..., nn.Module]:
        """Constructor of the network's convolutions; `settings` of `WSConv`."""
        in_kernel = self.gamma if self.gamma_in_kernel else "none"
        return functools.partial(
            WSConv,
            standardized=self.weight_standardization,
            gamma=activation_gain(self.activation, in_kernel),
            var_eps=self.var_eps,
            padding=self.padding,
            pool_gain=self.pool_gain,
            **settings,
        )

    def block(self, activation: Nonlinearity) -> Callable[..., nn.Module]:
        """Constructor of residual blocks: (branch, shortcut=None) -> block."""
        return functools.partial(
            ResidualBlock,
            activation=activation,
            alpha=self.alpha,
            skip_gain=self.skip_gain,
            raw_shortcut=self.raw_shortcut,
        )


@dataclasses.dataclass(frozen=True)
class Variant:
    """A builder, its settings, and published facts about the resulting network.

    `build(num_classes, options, **own)` makes the network; `settings` are fields of
    `Options` and keywords of `build` together. `train_size`, `test_size`: sides of the
    square images. `num_classes`: of the data set it was published for. `top1`, `top5`:
    published ImageNet accuracies in percent, None where there are none.

    `crop`, `mean`, `std`: preparation of the images in the published evaluation; the
    arguments of `data.preprocess.Preprocessing`, with `test_size`.

    `foldable`: `inference.fold` can write the network without scales.
    `initialized_from_images`: some parameters are computed from the images that it is
    initialized with. `follows_beta_schedule`: the signal starts every block with the
    variance that `expected_std` predicts.
    """

    build: Callable
    settings: Mapping[str, Any]
    train_size: int
    test_size: int
    num_classes: int = 1000
    top1: float | None = None
    top5: float | None = None
    crop: str | float = "crop_resize"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    foldable: bool = True
    initialized_from_images: bool = False
    follows_beta_schedule: bool = True


def cifar_variant(
    build: Callable, settings: Mapping[str, Any], **traits: Any
) -> Variant:
    """Entry of a network for the 32x32 pixels and the ten classes of CIFAR-10."""
    return Variant(build, settings, 32, 32, num_classes=10, crop="training", **traits)
