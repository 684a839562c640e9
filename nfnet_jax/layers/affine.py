"""Signals that end in a factor and a term for each channel: bias, attention, gains."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from nfnet_jax.ops.precision import Images, Kernel, at_least_float32, in_float32

PerChannel = float | Float[Array, "..."]
"""Numbers that broadcast against [N, H, W, C] and are constant over pixels."""


class Affine(NamedTuple):
    """Signal scale · x + shift, neither multiplied nor added yet.

    A branch ends in a bias, attention, a skip gain and α. One by one, each of them and
    the gradient of each is a pass over all pixels. Joined, they are one scale and one
    shift, applied with the sum of the residual block, and the gradients of all of them
    follow from two sums over pixels.

    mean: means of x over pixels [N, 1, 1, C], at least float32, if they are known.
    """

    x: Images
    scale: PerChannel = 1.0
    shift: PerChannel = 0.0
    mean: Float[Array, "N 1 1 C"] | None = None

    def times(self, factor: PerChannel) -> "Affine":
        """Returns the signal times `factor`."""
        factor = jnp.asarray(factor, at_least_float32(self.x.dtype))
        scale, shift = self.scale * factor, self.shift * factor
        return self._replace(scale=scale, shift=shift)

    def means(self) -> Float[Array, "N C"]:
        """Means of the signal over pixels, at least float32."""
        mean = pixel_means(self.x) if self.mean is None else self.mean
        return (self.scale * mean + self.shift)[:, 0, 0]

    def added_to(self, other: "Affine") -> Images:
        """Returns the sum of both signals, in one pass where `other` has no scale."""
        if not isinstance(other.scale, float) or other.scale != 1:
            other = Affine(other.value())
        shift = jnp.asarray(self.shift + other.shift)
        return _sum(other.x, self.x, jnp.asarray(self.scale), shift)

    def value(self) -> Images:
        """Returns scale · x + shift."""
        return _value(self.x, jnp.asarray(self.scale), jnp.asarray(self.shift))


def pixel_means(x: Images) -> Float[Array, "N 1 1 C"]:
    """Means over pixels, at least float32."""
    return x.mean((1, 2), keepdims=True, dtype=at_least_float32(x.dtype))


def pointwise_means(x: Images, kernel: Kernel) -> Float[Array, "N 1 1 O"]:
    """Means over pixels of the 1x1 convolution of `x`, which are that of the means.

    Known before the convolution is computed, they let attention scale its output in
    the pass that writes it.
    """
    means = pixel_means(x).reshape(len(x), 1, 1, -1)
    return means @ kernel[0, 0].astype(means.dtype)


def as_affine(x: Images | Affine) -> Affine:
    """Returns `x` itself, or images as an `Affine` of scale 1 and shift 0."""
    return x if isinstance(x, Affine) else Affine(x)


def as_images(x: Images | Affine) -> Images:
    """Returns images themselves, or the value of an `Affine`."""
    return x.value() if isinstance(x, Affine) else x


@in_float32
def _sum(shortcut, x, scale, shift):
    return shortcut + (scale * x + shift)


@in_float32
def _value(x, scale, shift):
    return scale * x + shift
