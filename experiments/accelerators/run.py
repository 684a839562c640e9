"""Programs of a plain training step as the compilers of TPUs and GPUs make them.

    python experiments/accelerators/run.py ours nfnet_f0 --target v5e
    python experiments/accelerators/run.py haiku nfnet_f0 --target v5e \
        --haiku FOLDER_OF_nfnets

Compiles a step of SGD without momentum for one chip that need not be here: forward and
backward in bfloat16, float32 parameters, published training size. Nothing is run. For
v5e JAX needs libtpu, for h100 jax-cuda12-plugin and nvidia-cuda-nvcc-cu12, and the
published code dm-haiku; README.md has the versions. Prints a row of its table and keeps
all numbers in results.json.
"""

import argparse
import importlib
import importlib.metadata
import json
import pathlib
import subprocess
import sys
import time

from nfnet_jax.planning.costs import estimated_cycles, kernels
from nfnet_jax.planning.hlo import Program
from nfnet_jax.planning.target import (
    Target,
    parse_target,
    prepare,
    quiet,
    target_mesh,
)

TARGETS = {"v5e": "v5e:1x1", "h100": "h100:1"}
NETWORKS = {
    # Image size, and module, class and options of the published code.
    "nfnet_f0": (192, "nfnet", "NFNet", {}),
    "nf_resnet50": (224, "nf_resnet", "NF_ResNet", {"drop_rate": 0.0}),
}
CLASSES = 1000
LEARNING_RATE = 0.1
HERE = pathlib.Path(__file__).parent
REPOSITORY = HERE.parents[1]


def main() -> None:
    options = parse_arguments()
    target = parse_target(TARGETS[options.target])
    prepare(target)
    size = NETWORKS[options.network][0]
    network = ours(options.network, size, target.platform)
    if options.code == "haiku":
        network = haiku(options.network, size, options.haiku)
    started = time.perf_counter()
    compiled = compile_step(*network, size, options.batch, target)
    result = {
        "code": options.code,
        "network": options.network,
        "target": options.target,
        "size": size,
        "batch": options.batch,
        "source": source(options.code),
        "versions": versions(),
        "compile_seconds": round(time.perf_counter() - started, 1),
        **numbers(compiled, target),
    }
    print(row(result))
    keep(result, pathlib.Path(options.output))
    if options.text:
        pathlib.Path(options.text).write_text(compiled.as_text(), encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("code", choices=("ours", "haiku"))
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--target", choices=TARGETS, required=True)
    parser.add_argument("--batch", type=int, default=64, help="images on the chip")
    parser.add_argument("--haiku", help="folder that contains the published `nfnets`")
    parser.add_argument("--output", default=HERE / "results.json")
    parser.add_argument("--text", help="file for the text of the compiled program")
    options = parser.parse_args()
    if options.code == "haiku" and not options.haiku:
        parser.error("haiku needs --haiku, the folder that contains `nfnets`")
    return options


def ours(name: str, size: int, platform: str):
    """This project's network: `forward(params, images, key)`, shapes of `params`."""
    import jax
    import jax.numpy as jnp

    from nfnet_jax import create_model, for_platform
    from nfnet_jax.ops.conv import native_operations

    model = for_platform(create_model(name, CLASSES), platform)

    def init(key):
        with native_operations():
            return model.init(key, jnp.zeros((1, size, size, 3)))["params"]

    def forward(params, images, key):
        rngs = {"dropout": key}
        return model.apply({"params": params}, images, train=True, rngs=rngs)

    return forward, jax.eval_shape(init, jax.random.key(0))


def haiku(name: str, size: int, checkout: str):
    """The published network, as `ours`.

    Like its own experiment it computes in the dtype of the parameters, which are cast
    to bfloat16 on the way in, and their gradients to float32 on the way out.
    """
    import jax
    import jax.numpy as jnp

    sys.path.insert(0, checkout)
    hk = importlib.import_module("haiku")
    _, module, class_name, arguments = NETWORKS[name]
    network = getattr(importlib.import_module(f"nfnets.{module}"), class_name)
    transformed = hk.transform(
        lambda x: network(CLASSES, **arguments)(x, is_training=True)["logits"]
    )

    def forward(params, images, key):
        narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
        return transformed.apply(narrow, key, images).astype(jnp.float32)

    images = jnp.zeros((1, size, size, 3))
    return forward, jax.eval_shape(transformed.init, jax.random.key(0), images)


def compile_step(forward, params, size: int, batch: int, target: Target):
    """Compiles θ ← θ − η ∇ loss(θ) for one chip, the old parameters given away."""
    import jax
    import jax.numpy as jnp
    import optax

    chip = jax.sharding.SingleDeviceSharding(target_mesh(target).devices.flat[0])

    def placed(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=chip)

    def step(params, images, labels):
        def loss(params):
            logits = forward(params, images, jax.random.key(0))
            return optax.softmax_cross_entropy_with_integer_labels(
                logits, labels
            ).mean()

        gradients = jax.grad(loss)(params)
        return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, gradients)

    traced = jax.jit(step, donate_argnums=0).trace(
        jax.tree.map(lambda leaf: placed(leaf.shape, leaf.dtype), params),
        placed((batch, size, size, 3), jnp.bfloat16),
        placed((batch,), jnp.int32),
    )
    with quiet():
        return traced.lower(lowering_platforms=(target.platform,)).compile()


def numbers(compiled, target: Target) -> dict:
    """All that the compiler tells about the program."""
    memory, program = compiled.memory_analysis(), Program(compiled.as_text())
    found = {
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
    }
    if target.is_gpu:
        by_kind = kernels(program)
        return found | {
            "kernels": by_kind.total(),
            "kernels_by_kind": dict(by_kind.most_common()),
        }
    by_operation = estimated_cycles(program)
    return found | {
        "bytes_accessed": compiled.cost_analysis()["bytes accessed"],
        "cycles": by_operation.total(),
        "cycles_by_operation": dict(by_operation.most_common()),
    }


def source(code: str) -> str:
    """Name of the code that was compiled: the last commit that changed this package,
    with "+" if there are changes since."""
    if code == "haiku":
        return "published"
    git = ["git", "-C", str(REPOSITORY)]
    package = ["--", "nfnet_jax"]
    commit, changes = (
        subprocess.run([*git, *words, *package], capture_output=True, text=True).stdout
        for words in (["log", "-1", "--format=%h"], ["status", "--porcelain"])
    )
    return commit.strip() + "+" * bool(changes)


def versions() -> dict[str, str]:
    """Versions of what compiled the program."""
    names = "jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "nvidia-cuda-nvcc-cu12"
    present = {
        d.metadata["Name"]: d.version for d in importlib.metadata.distributions()
    }
    return {name: present[name] for name in names if name in present}


def row(result: dict) -> str:
    """Markdown, as in README.md."""
    megabytes = f"{result['temporary_bytes'] / 1e6:,.0f}"
    if result["target"] == "h100":
        kinds = result["kernels_by_kind"]
        names = "cuDNN", "reduction", "transpose"
        cells = [result["kernels"], *(kinds.get(name, 0) for name in names), megabytes]
    else:
        gigabytes = f"{result['bytes_accessed'] / 1e9:.1f}"
        cells = [f"{result['cycles'] / 1e6:.1f}", megabytes, gigabytes]
    label = f"{result['network']}, {result['code']}, {result['source']}"
    return f"| {' | '.join(map(str, [label, *cells]))} |"


def keep(result: dict, path: pathlib.Path) -> None:
    """Puts the result into the file, in the place of one of the same code."""
    results = json.loads(path.read_text("utf-8")) if path.exists() else {}
    key = [result[name] for name in ("code", "network", "target", "source")]
    results[", ".join(key)] = result
    path.write_text(json.dumps(results, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
