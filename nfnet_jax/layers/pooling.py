"""Average pooling."""

import flax.linen as nn
import jax


def average_pool(x: jax.Array) -> jax.Array:
    """2x2 average pooling, stride 2, `SAME`; edge windows divide by their real pixels.

    [N, H, W, C] -> [N, ceil(H / 2), ceil(W / 2), C].
    """
    return nn.avg_pool(
        x,
        window_shape=(2, 2),
        strides=(2, 2),
        padding="SAME",
        count_include_pad=False,
    )
