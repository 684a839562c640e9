"""Convolutions of few channels, over blocks of pixels that share the channels.

A TPU multiplies matrices of 128 x 128 numbers and keeps 128 of them side by side. The
16 to 64 channels of a stem, or inside the first stage of a ResNet, leave most of both
idle. Here such a signal is [N, H/h, W/w, h w C]: a block of h x w pixels in each place.
Its kernel has the weights of the kernel of pixels in some places, zeros in the others.

Along one axis, let pixels be at 0 ... L - 1. Where the first block of a signal starts
is a choice: a 3x3 convolution reads the pixels -1 to 2 for the block of 0 and 1, so
that two blocks of its input do if these start one pixel earlier than those of its
output. Such blocks reach beyond the image: `border` pixels at every edge, set to 0.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nfnet_jax.ops.precision import Images, Kernel
from nfnet_jax.ops.windows import Pair, Pairs

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
PIXEL, PAIR, SQUARE = (1, 1), (1, 2), (2, 2)


class BlockConv(NamedTuple):
    """Convolution of `stride` from blocks of `inputs` to blocks of `outputs` pixels.

    start: pixels from the start of an input block to the window of its output block,
      at most 0.
    border: pixels at every edge of its input that lie outside of the image.
    padding: blocks of zeros around the input.
    """

    stride: int
    inputs: Pair
    outputs: Pair
    start: Pair = (0, 0)
    border: int = 0
    padding: Pairs = ((0, 0), (0, 0))

    def __call__(self, x: Images, kernel: Kernel) -> Images:
        """Convolves blocks [N, H, W, h w C] with a kernel [KH, KW, C, O].

        Returns blocks of `outputs`, of O channels for each of their pixels.
        """
        if self.border:
            x = x * _inside(x.shape, self.inputs, self.border).astype(x.dtype)
        steps = tuple(
            self.stride * out // into
            for out, into in zip(self.outputs, self.inputs, strict=True)
        )
        return lax.conv_general_dilated(
            x, self.kernel(kernel), steps, self.padding, dimension_numbers=DIMENSIONS
        )

    def kernel(self, kernel: Kernel) -> Kernel:
        """Kernel of blocks with the weights of a kernel [KH, KW, C, O] of pixels."""
        rows, columns = (
            self._taps(axis, kernel.shape[axis]).astype(kernel.dtype) for axis in (0, 1)
        )
        blocks = jnp.einsum("pta,qub,tuco->abcpqo", rows, columns, kernel)
        height, width, channels = blocks.shape[:3]
        (h, w), features = self.inputs, math.prod(blocks.shape[3:])
        blocks = blocks.reshape(height // h, h, width // w, w, channels, features)
        blocks = blocks.transpose(0, 2, 1, 3, 4, 5)
        return blocks.reshape(height // h, width // w, h * w * channels, features)

    def _taps(self, axis: int, size: int) -> np.ndarray:
        """[outputs, size, pixels], 1 where a tap of an output's window is a pixel."""
        outputs, first = self.outputs[axis], -self.start[axis]
        reach = first + self.stride * (outputs - 1) + size
        pixels = -(-reach // self.inputs[axis]) * self.inputs[axis]
        output, tap = np.mgrid[:outputs, :size]
        return np.eye(pixels)[first + self.stride * output + tap]


class LeavePairs(NamedTuple):
    """1x1 convolution from pairs of pixels [N, H, W/2, 2 C] to pixels [N, H, W, O].

    The transpose of the one that `ENTER_PAIRS` is, whose kernel gradient it has: that
    of a convolution with dilated input would reverse the large gradient of its output.
    """

    inputs: Pair = PAIR
    outputs: Pair = PIXEL

    def __call__(self, x: Images, kernel: Kernel) -> Images:
        """Convolves pairs with a kernel [1, 1, C, O]."""
        return _leave(x, kernel)


@jax.custom_vjp
def _leave(x: Images, kernel: Kernel) -> Images:
    height, pairs = x.shape[1:3]
    shape = (len(x), height, 2 * pairs, kernel.shape[-1])
    enter = functools.partial(_enter_transposed, kernel=kernel)
    return jax.linear_transpose(enter, jax.ShapeDtypeStruct(shape, x.dtype))(x)[0]


def _enter_transposed(x: Images, kernel: Kernel) -> Images:
    return ENTER_PAIRS(x, kernel.swapaxes(2, 3))


def _save(x, kernel):
    return _leave(x, kernel), (x, kernel)


def _gradients(saved, grad):
    x, kernel = saved
    x_grad, vjp = jax.vjp(functools.partial(_enter_transposed, grad), kernel)
    return x_grad, vjp(x)[0]


_leave.defvjp(_save, _gradients)

STEM = (
    BlockConv(2, PIXEL, SQUARE, padding=((4, 5), (4, 5))),
    BlockConv(1, SQUARE, SQUARE, border=2),
    BlockConv(1, SQUARE, SQUARE, border=1),
    BlockConv(2, SQUARE, PIXEL, padding=((0, 1), (0, 1))),
)
"""3x3 convolutions of strides 2, 1, 1, 2, "SAME", of images whose sides 4 divides."""
ENTER_PAIRS = BlockConv(1, PIXEL, PAIR)
"""1x1 convolution whose output is in pairs along W, which 2 must divide."""
PAIRS_3X3 = BlockConv(1, PAIR, PAIR, start=(0, -1), padding=((1, 1), (1, 1)))
"""3x3 "SAME" convolution of pairs."""


def _inside(shape: tuple[int, ...], size: Pair, border: int) -> np.ndarray:
    """Mask [H, W, C] of the pixels in blocks of `size` that are inside the image."""
    height, width, channels = shape[1:]

    def axis(blocks: int, size: int) -> np.ndarray:
        pixels = np.arange(blocks * size)
        inside = (border <= pixels) & (pixels < len(pixels) - border)
        return inside.reshape(blocks, size)

    rows, columns = axis(height, size[0]), axis(width, size[1])
    mask = rows[:, None, :, None] & columns[None, :, None, :]
    mask = mask.reshape(height, width, math.prod(size))
    return np.repeat(mask, channels // math.prod(size), -1)[None]
