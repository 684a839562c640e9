"""One network waiting for its turn; started by scripts/benchmark.py.

Prints a JSON object of facts when it is ready, then for every line `train`, `infer`,
`matmul` or `memory` on its input one with the `seconds` that the task took.
"""

import argparse
import ast
import functools
import json
import resource
import sys
import time

LEARNING_RATE, MOMENTUM = 0.01, 0.9
MATRIX = 2048


def jax_contender(options):
    """This project's network: training step, and the folded network at inference."""
    import jax
    import jax.numpy as jnp

    from nfnet_jax import create_model
    from nfnet_jax.inference.fold import fold
    from nfnet_jax.models.statistics import multiply_adds
    from nfnet_jax.utils.runtime import keep_host_memory

    keep_host_memory()
    model = create_model(options.model, 1000, **dict(options.option))
    shape = (options.batch, options.size, options.size, 3)
    images = jax.random.normal(jax.random.key(0), shape, options.dtype)
    labels = jnp.arange(options.batch)
    params = jax.jit(model.init)(jax.random.key(0), images[:1])["params"]
    facts = {"multiply_adds": multiply_adds(model, shape[1:])}
    run = jax_tasks(
        lambda p, x, key: model.apply(
            {"params": p}, x, train=True, rngs={"dropout": key}
        ),
        params,
        images,
        labels,
        facts,
    )
    plain, constants = fold(model, params)
    infer = jax.jit(lambda p, x: plain.apply({"params": p}, x))
    run["infer"] = lambda: infer(constants, images)
    return facts, run, jax.block_until_ready


def jax_tasks(forward, params, images, labels, facts):
    """Compiles a step of Nesterov SGD; `facts` gets how long that took."""
    import jax
    import jax.numpy as jnp
    import optax

    optimizer = optax.sgd(LEARNING_RATE, MOMENTUM, nesterov=True)

    def step(params, state, key):
        def loss(p):
            logits = forward(p, images, key).astype(jnp.float32)
            return optax.softmax_cross_entropy_with_integer_labels(
                logits, labels
            ).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    # A copy, because the step gives its arguments away.
    carried = [jax.tree.map(jnp.copy, params), optimizer.init(params)]
    key = jax.random.key(0)
    start = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*carried, key).compile()
    facts["compile_seconds"] = time.perf_counter() - start

    facts["temporary_bytes"] = compiled.memory_analysis().temp_size_in_bytes

    def train():
        carried[:] = compiled(*carried, key)
        return carried

    return {"train": train, "matmul": matrix_product(MATRIX, images.dtype)}


def matrix_product(size, dtype):
    """A task: the product of two random matrices, `size` x `size`, made when needed."""
    import jax
    import jax.numpy as jnp

    @functools.cache
    def factors():
        keys = jax.random.split(jax.random.key(0))
        return [jax.random.normal(key, (size, size), dtype) for key in keys]

    product = jax.jit(jnp.matmul)
    return lambda: product(*factors())


def timm_contender(options):
    """A network of timm, channels last; without weights from anywhere.

    Parameters are float32; images of bfloat16 make it compute by `torch.autocast`.
    """
    import timm
    import torch

    torch.manual_seed(0)
    dtype = getattr(torch, options.dtype)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = timm.create_model(options.model).to(
        device, memory_format=torch.channels_last
    )
    images = torch.randn(options.batch, 3, options.size, options.size)
    images = images.to(device, dtype, memory_format=torch.channels_last)
    labels = torch.arange(options.batch, device=device)
    optimizer = torch.optim.SGD(
        model.parameters(), LEARNING_RATE, MOMENTUM, nesterov=True
    )
    compiling = device == "cuda" and not options.eager
    forward = torch.compile(model) if compiling else model
    mixed = torch.autocast(device, dtype, enabled=dtype is not torch.float32)

    def train():
        model.train()
        optimizer.zero_grad()
        with mixed:
            logits = forward(images)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    def infer():
        model.eval()
        with torch.inference_mode(), mixed:
            return forward(images)

    def wait(_):
        if device == "cuda":
            torch.cuda.synchronize()

    return {}, {"train": train, "infer": infer}, wait


def haiku_contender(options):
    """The published code in `options.checkout`; `options.model` is MODULE:CLASS."""
    import importlib

    import haiku as hk
    import jax
    import jax.numpy as jnp

    sys.path.insert(0, options.checkout)
    # What the published code uses and current JAX calls otherwise.
    jax.tree_multimap = jax.tree.map
    module, _, name = options.model.partition(":")
    network = getattr(importlib.import_module(f"nfnets.{module}"), name)
    shape = (options.batch, options.size, options.size, 3)
    images = jax.random.normal(jax.random.key(0), shape, options.dtype)
    forward = hk.transform(
        lambda x, is_training: network(1000)(x, is_training=is_training)["logits"]
    )
    params = jax.jit(lambda k: forward.init(k, images, True))(jax.random.key(0))
    facts: dict = {}
    run = jax_tasks(
        lambda p, x, key: forward.apply(p, key, x, True),
        params,
        images,
        jnp.arange(options.batch),
        facts,
    )
    infer = jax.jit(lambda p, x: forward.apply(p, None, x, False))
    run["infer"] = lambda: infer(params, images)
    return facts, run, jax.block_until_ready


CONTENDERS = {
    "ours": jax_contender,
    "timm": timm_contender,
    "haiku": haiku_contender,
}
"""Functions that make one: facts, tasks that may return before their work is done, and
the function that waits for what a task has returned."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    options = parser.parse_args()
    facts, tasks, wait = CONTENDERS[options.kind](options)
    for task in tasks.values():
        wait(task())
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        print(json.dumps({"seconds": timed(tasks, wait, line.strip())}), flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that describe one contender."""
    parser.add_argument("kind", choices=CONTENDERS)
    parser.add_argument("model")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--option", type=key_and_value, action="append", default=[])
    parser.add_argument("--checkout")
    parser.add_argument("--eager", action="store_true", help="timm not compiled")


def key_and_value(text: str) -> tuple:
    """("se_ratio", 0.25) from "se_ratio=0.25"."""
    key, _, value = text.partition("=")
    try:
        return key, ast.literal_eval(value)
    except (SyntaxError, ValueError) as error:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected KEY=VALUE, a Python literal"
        ) from error


def timed(tasks, wait, name: str) -> float | None:
    """Seconds of a task, None where there is no such one; for `memory`, MiB.

    A first run is not counted: threads of the contender before may still spin, and the
    caches hold its data.
    """
    if name == "memory":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if name not in tasks:
        return None
    wait(tasks[name]())
    return seconds(tasks[name], wait)


def seconds(task, wait, repeats: int = 1) -> float:
    """Seconds that a task takes, if it is started `repeats` times in a row."""
    start = time.perf_counter()
    for _ in range(repeats):
        pending = task()
    wait(pending)
    return (time.perf_counter() - start) / repeats


if __name__ == "__main__":
    main()
