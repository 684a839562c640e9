"""Are normalizer-free networks independent of the batch, the memory, the devices?

    python -m experiments.independence.run

Measures what results.json lacks, and draws independence.png.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.independence.devices import losses_on
from experiments.panels import finish_each, lines, make_panels
from experiments.signal_runs import drawn, reproduce
from experiments.training_runs import QUICK, step_costs
from nfnet_jax import create_model
from nfnet_jax.data.sources.digits import load_digits

HERE = pathlib.Path(__file__).parent
KINDS = {"normalizer-free": "nf", "BatchNorm": "bn"}
BATCHES = (2, 8, 32, 128)
STEPS, DEVICES = 12, 8
LEAST = 1e-8
COSTLY = {"data.image_size": 32, "data.batch_size": 64}


def leakage(network: str, batch: int) -> dict[str, float]:
    """Influence of other examples on the first of a batch in training.

    All the others are replaced by other digits; ‖after − before‖ / ‖before‖ of its
    logits, and of the gradient of its loss with respect to all parameters.
    """
    images = load_digits().train.images[: 2 * batch - 1].astype(np.float32)
    images = jnp.asarray((images - images.mean()) / images.std())
    others = jnp.concatenate([images[:1], images[batch:]])
    model = create_model(network, 10)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images[:1])
    variables = drawn(shapes)
    label = jnp.zeros(1, jnp.int32)

    @jax.jit
    def first(params, images):
        def loss(params):
            logits, _ = model.apply(
                variables | {"params": params},
                images,
                train=True,
                rngs={"dropout": jax.random.key(0)},
                mutable=["batch_stats"],
            )
            logits = logits[:1]
            entropy = optax.softmax_cross_entropy_with_integer_labels(logits, label)
            return entropy.sum(), logits

        gradient, logits = jax.grad(loss, has_aux=True)(params)
        return logits, gradient

    before, after = (first(variables["params"], x) for x in (images[:batch], others))
    difference = jax.tree.map(jnp.subtract, after, before)
    logits, gradient = (
        float(optax.tree.norm(d) / optax.tree.norm(b))
        for d, b in zip(difference, before, strict=True)
    )
    return {"logits": logits, "gradient": gradient}


def costs(quick: bool) -> dict:
    changes, size = (QUICK, "10_1") if quick else (COSTLY, "10_1")
    variants = {
        label: changes | {"model.name": f"{kind}_wrn_{size}", "optim.agc.clipping": 0.0}
        for label, kind in list(KINDS.items())[: 1 if quick else None]
    }
    return step_costs("digits", variants, rounds=2 if quick else 11)


def runs(quick: bool) -> dict:
    batches = BATCHES[:1] if quick else BATCHES
    kinds = {} if quick else KINDS
    measured = {
        f"leakage, {label}, batch {batch}": functools.partial(
            leakage, f"{kind}_wrn_10_1", batch
        )
        for label, kind in KINDS.items()
        for batch in batches
    }
    on_devices = {
        f"{devices} devices, {mode}, {label}": functools.partial(
            losses_on, f"{kind}_wrn_10_1", mode, devices, STEPS
        )
        for label, kind in kinds.items()
        for devices, mode in ((1, "jit"), (DEVICES, "jit"), (DEVICES, "pmap"))
    }
    return measured | on_devices | {"costs": functools.partial(costs, quick)}


def draw(results: dict, path: pathlib.Path) -> None:
    figure, grid = make_panels(2)
    leaks, losses = grid[0]
    measured = [b for b in BATCHES if f"leakage, BatchNorm, batch {b}" in results]
    series = {
        f"{label}, {what}": (
            measured,
            [_drawn(results[f"leakage, {label}, batch {b}"][what]) for b in measured],
        )
        for label in KINDS
        for what in ("logits", "gradient")
    }
    lines(leaks, series, marker="o", ms=3)
    leaks.set(
        title="the other examples replaced",
        xlabel="examples in the batch",
        ylabel="relative change of the first",
        xscale="log",
        yscale="log",
    )
    lines(losses, _differences(results), marker="o", ms=3)
    losses.set(
        title=f"{DEVICES} devices against one",
        xlabel="update",
        ylabel="|difference of the loss|",
        yscale="log",
    )
    finish_each(figure, path)


def _drawn(value: float) -> float:
    """On a logarithmic axis, which has no 0."""
    return max(value, LEAST)


def _differences(results: dict) -> dict:
    """|loss on all devices − loss on one|, update by update."""
    series = {}
    for mode in ("jit", "pmap"):
        for label in KINDS:
            one = results.get(f"1 devices, jit, {label}")
            many = results.get(f"{DEVICES} devices, {mode}, {label}")
            if one and many:
                difference = np.abs(np.subtract(many["losses"], one["losses"]))
                series[f"{label}, {mode}"] = (
                    range(1, 1 + len(difference)),
                    [_drawn(value) for value in difference],
                )
    return series


def main(argv: list[str] | None = None) -> None:
    reproduce(HERE, __doc__, runs, draw, "independence.png", argv=argv)


if __name__ == "__main__":
    main()
