"""Parameters like those of initialization, without compiling `model.init`."""

import jax
import numpy as np


def open_variables(model, images):
    """Kernels normal with variance 1 / fan-in, gains and skip gains 1, the rest 0."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            fan_in = np.prod(leaf.shape[-4:-1])
            return rng.normal(0, fan_in**-0.5, leaf.shape).astype("float32")
        value = float(path[-1].key in ("gain", "skip_gain"))
        return np.full(leaf.shape, value, "float32")

    shapes = jax.eval_shape(model.init, jax.random.key(0), images[:1])
    return {"params": jax.tree_util.tree_map_with_path(draw, shapes["params"])}
