"""Networks of bfloat16 images: the program that TPUs get, and its gradients."""

import collections
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jax import export
from small_networks import OPTIONS, logits_in_training, small_network

PRODUCT = re.compile(r"stablehlo\.(convolution|dot_general|dot)\b.*: \((.*?)\) ->")
OPERAND = re.compile(r"tensor<(?:(.*)x)?(\w+)>")


DISTINCT = ("nf_air_16", "timm_nf_ecaresnet50", "nf_regnet_b0", "bn_wrn_10_1")
DISTINCT += ("skipinit_wrn_10_1", "fixup_wrn_10_1")
"""Networks that have every kind of parameter; the others combine them."""


def products(text):
    """(operation, [(shape, dtype), ...]) of every convolution and matrix product."""
    for line in text.splitlines():
        if found := PRODUCT.search(line):
            operands = [OPERAND.fullmatch(part.strip()) for part in found[2].split(",")]
            yield found[1], [(tuple(map(int, o[1].split("x"))), o[2]) for o in operands]
        else:
            assert not re.search(r"stablehlo\.(convolution|dot)", line), line


def is_float32_on_purpose(operands) -> bool:
    """Pooled vectors [N, C], or standardization: see `layers.precision`."""
    shapes = [shape for shape, _ in operands]
    linear = all(len(shape) == 2 for shape in shapes)
    # Along the channels of [N, C, 1], Efficient Channel Attention's.
    eca = all(len(shape) == 3 and 1 in shape[1:] for shape in shapes)
    # Correlation of a 3x3 window's pixels, times its kernel.
    correlated = any(shape == (9, 9) for shape in shapes)
    return linear or eca or correlated


@pytest.mark.parametrize("name", OPTIONS)
def test_every_product_of_a_tpu_program_has_bfloat16_operands(name):
    model, variables = small_network(name)

    def loss(params, x):
        logits = logits_in_training(model, variables | {"params": params}, x)
        return jax.nn.log_softmax(logits)[:, 0].sum()

    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables["params"]
    )
    images = jax.ShapeDtypeStruct((8, 32, 32, 3), jnp.bfloat16)
    step = jax.jit(jax.grad(loss, (0, 1)))
    text = export.export(step, platforms=["tpu"])(shapes, images).mlir_module()
    counts = collections.Counter()
    for operation, operands in products(text):
        dtypes = {dtype for _, dtype in operands}
        assert dtypes == {"bf16"} or is_float32_on_purpose(operands), operands
        counts[operation, *dtypes] += 1
    # Forward, and the gradients of images and kernel; convolutions alike are one.
    assert counts["convolution", "bf16"] >= 9


@pytest.mark.parametrize("name", OPTIONS)
def test_the_signal_keeps_the_dtype_of_the_images(name):
    model, variables = small_network(name)
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
        logits, signals = jax.eval_shape(
            lambda x: model.apply(variables, x, return_stages=True),
            jax.ShapeDtypeStruct((2, 32, 32, 3), dtype),
        )
        assert {signal.dtype for signal in signals} == {jnp.dtype(dtype)}
        assert logits.dtype == jnp.float32


def by_kind(gradients):
    """Vectors of all gradients of kernels, of biases, ..., float64."""
    kinds = collections.defaultdict(list)
    for path, leaf in sorted(traverse_util.flatten_dict(gradients).items()):
        kinds[re.sub(r"bias\d.*", "bias", path[-1])].append(np.ravel(leaf))
    return {kind: np.concatenate(parts).astype(float) for kind, parts in kinds.items()}


@pytest.mark.parametrize("name", DISTINCT)
def test_gradients_of_every_kind_are_as_near_as_those_of_kernels(name):
    model, variables = small_network(name)
    pixels = np.abs(np.random.default_rng(0).standard_normal((16, 24, 24, 3)))
    pixels = jnp.asarray(pixels, jnp.bfloat16)

    @jax.jit
    def gradients(params, x):
        def energy(params):
            """Squares: what opens a branch or lifts a channel adds to their mean."""
            options = {"train": True, "return_stages": True}
            (logits, signals), _ = model.apply(
                variables | {"params": params}, x, mutable=["batch_stats"], **options
            )
            every = (logits, *signals)
            return sum(jnp.square(y.astype(jnp.float32)).mean() for y in every)

        return jax.grad(energy)(params)

    found = by_kind(gradients(variables["params"], pixels))
    exact = by_kind(gradients(variables["params"], pixels.astype(jnp.float32)))
    errors = {
        kind: np.linalg.norm(found[kind] - exact[kind]) / np.linalg.norm(exact[kind])
        for kind in exact
    }
    assert max(errors.values()) <= max(0.02, errors["kernel"]), errors
    assert errors["kernel"] < 0.07
