"""Sources of data: each module opens one kind of data set by its name or arrays.

Their faces are `nfnet_jax.data.load.load_dataset` and `arrays.from_arrays`.
"""
