"""Average pooling."""

import flax.linen as nn
import jax


class AveragePool(nn.Module):
    """2x2 average pooling, stride 2, `SAME`; edge windows divide by their real pixels.

    [N, H, W, C] -> [N, ceil(H / 2), ceil(W / 2), C]. A module, so that the analysis
    sees what it does to the signal.
    """

    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.avg_pool(
            x,
            window_shape=(2, 2),
            strides=(2, 2),
            padding="SAME",
            count_include_pad=False,
        )
