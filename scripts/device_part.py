"""One part of scripts/on_device.py, in a process of its own.

    python scripts/device_part.py machine
    python scripts/device_part.py golden nfnet_f0_64
    python scripts/device_part.py digits
    python scripts/device_part.py cifar10 --data cifar10.npz
    python scripts/device_part.py speed ours nfnet_f0 --size 192 --batch 64 \
        --dtype bfloat16

The last line of the output is a JSON object: `checks`, and what was measured. A check
has its `value`, what was `expected` and whether it `passed`.
"""

import argparse
import json
import math
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
FLOAT32_ERROR = 1e-4
"""Relative error of logits that tests/reference_outputs asks for. A CPU has 1e-6 and
less; the rounding of operands to TF32 alone would cause more than this."""
ROUNDING = {
    "nf_resnet50_64": 0.0162,
    "nf_seresnet50_65": 0.0120,
    "nfnet_f0_64": 0.0063,
    "nf_regnet_b0_64": 0.0053,
    "skipinit_resnet50_64": 0.0058,
    "fixup_resnet50_64": 0.0063,
}
"""Relative error of logits that rounding to bfloat16 causes, whatever computes: that of
a float32 network whose signals and kernels are rounded between the layers
(tests/test_on_device.py)."""
ROUNDING_MARGIN = 1.5
"""Factor for the roundings inside of layers; a CPU has 0.83 to 1.1."""
DIGITS_ACCURACY = 0.985
"""Least test accuracy of configs/digits.py, as in .ci/run; 99.4 % is usual."""
DEVIATIONS = 5
"""Standard deviations above chance that the accuracy on CIFAR-10 has to be."""
SPLITS = "train", "test"
ROUND_SECONDS = 0.2
"""Least seconds of a task in one round, unless it takes longer."""
COMPUTING = re.compile("jax|libtpu|flax|optax|numpy|torch|timm|triton|cudnn|cublas")
"""Packages whose versions results depend on."""


def main() -> None:
    # The package, and tests/golden.py; the folder of this file is there already.
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    options = parse_arguments()
    result = PARTS[options.part](options)
    from nfnet_jax.utils.strict_json import dumps

    print(dumps(result), flush=True)


def parse_arguments() -> argparse.Namespace:
    import contender

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("machine")
    parts.add_parser("golden").add_argument("name")
    for name in ("digits", "cifar10"):
        training = parts.add_parser(name)
        training.add_argument("--data", help="file of arrays; without: as configured")
        training.add_argument(
            "--set", type=contender.key_and_value, action="append", default=[]
        )
    speed = parts.add_parser("speed")
    contender.add_arguments(speed)
    speed.add_argument("--matrix", type=int, default=16384)
    speed.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def check(value: float, *, least: float = -math.inf, most: float = math.inf) -> dict:
    """A number beside its bounds; what is not a number does not pass."""
    bounds = {"least": least, "most": most}
    expected = {name: bound for name, bound in bounds.items() if math.isfinite(bound)}
    return {"value": value, "expected": expected, "passed": least <= value <= most}


def machine(options) -> dict:
    """Devices and versions."""
    import jax

    devices = jax.devices()
    packages = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    return {
        "checks": {},
        "platform": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "devices": len(devices),
        "memory": devices[0].memory_stats(),
        "driver": driver(),
        "python": platform.python_version(),
        "packages": {n: v for n, v in packages.items() if COMPUTING.search(n)},
    }


def driver() -> str | None:
    """Line of nvidia-smi about the cards, their driver, limit and clocks."""
    if not shutil.which("nvidia-smi"):
        return None
    fields = "name,driver_version,memory.total,power.limit,clocks.max.sm"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def golden(options) -> dict:
    """Errors of a network's logits beside those of the published code.

    ‖logits − expected‖ / ‖expected‖ over both images, by dtype of the images.
    """
    import golden
    import jax

    from nfnet_jax.weights.haiku import from_haiku

    tree, images, outputs = golden.load(options.name)
    expected = outputs["logits"].astype(np.float64)
    model = golden.model_of(options.name)
    params = from_haiku(tree, model)
    most = {
        "float32": FLOAT32_ERROR,
        "bfloat16": ROUNDING_MARGIN * ROUNDING[options.name],
    }

    @jax.jit
    def logits(params, images):
        with jax.default_matmul_precision("highest"):
            return model.apply({"params": params}, images)

    def error(dtype):
        found = np.asarray(logits(params, images.astype(dtype)), np.float64)
        return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))

    return {
        "checks": {f"logits, {t}": check(error(t), most=most[t]) for t in most},
    }


def digits(options) -> dict:
    """The training of configs/digits.py."""
    result = train("digits", options)
    accuracy = check(result["accuracy"], least=DIGITS_ACCURACY)
    return result | {"checks": result["checks"] | {"accuracy": accuracy}}


def cifar10(options) -> dict:
    """The first steps of configs/cifar10.py, whose test accuracy beats chance."""
    result = train("cifar10", options)
    chance = 0.1
    deviation = math.sqrt(chance * (1 - chance) / result["test_examples"])
    accuracy = check(result["accuracy"], least=chance + DEVIATIONS * deviation)
    return result | {"checks": result["checks"] | {"accuracy": accuracy}}


def train(name: str, options) -> dict:
    """Trains as a config says; the mean loss of the last interval is below the first's.

    The data are those of the config, or of the file `options.data`: arrays
    `train_images`, uint8 [N, H, W, C], `train_labels` [N], and `test_…`.
    """
    from nfnet_jax.config.files import load
    from nfnet_jax.data.sources.arrays import from_arrays
    from nfnet_jax.training.experiment import Experiment
    from nfnet_jax.training.loop import train

    config = load(ROOT / "configs" / f"{name}.py", dict(options.set))
    if options.data:
        arrays = np.load(options.data)
        pairs = {p: (arrays[f"{p}_images"], arrays[f"{p}_labels"]) for p in SPLITS}
        dataset = from_arrays(pairs)
    else:
        dataset = Experiment(config).loaded_dataset
    with tempfile.TemporaryDirectory() as workdir:
        result = train(config, workdir, dataset=dataset)
        lines = pathlib.Path(workdir, "metrics.jsonl").read_text("utf-8").splitlines()
    rows = map(json.loads, lines)
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    return {
        "checks": {"last loss": check(losses[-1], most=losses[0])},
        "losses": losses,
        "accuracy": result["test_accuracy"],
        "test_examples": len(dataset.test),
        "steps": result["steps"],
        "seconds": result["seconds"],
        "images_per_second": {"train": result["images_per_second"]},
    }


def speed(options) -> dict:
    """Seconds of a training step and of inference, in turns with a matrix product.

    Inference is of the folded network. `matrix_share`: of the rate of the matrix
    product, which more than all of it would show not to have been waited for. An update
    counts as three times the multiply-adds forward.
    """
    import contender

    if options.kind == "timm":
        check_torch()
    started = time.perf_counter()
    facts, tasks, wait = contender.CONTENDERS[options.kind](options)
    wait(tasks["train"]())
    facts["ready_seconds"] = time.perf_counter() - started
    facts["peak_bytes"] = peak_bytes(options.kind)
    if options.kind == "ours":
        tasks["matmul"] = contender.matrix_product(options.matrix, options.dtype)
    repeats = {}
    for name, task in tasks.items():
        contender.seconds(task, wait)
        once = contender.seconds(task, wait)
        repeats[name] = max(1, math.ceil(ROUND_SECONDS / once))
    rounds = [
        {n: contender.seconds(task, wait, repeats[n]) for n, task in tasks.items()}
        for _ in range(options.rounds)
    ]
    median = {name: statistics.median(r[name] for r in rounds) for name in tasks}
    result = facts | {
        "checks": {},
        "images_per_second": {
            name: options.batch / median[name] for name in ("train", "infer")
        },
        "median_seconds": median,
        "rounds": rounds,
    }
    if options.kind != "ours":
        return result
    rate = 2 * options.matrix**3 / median["matmul"]
    operations = 2 * facts["multiply_adds"] * options.batch
    share = {
        name: times * operations / median[name] / rate
        for name, times in (("train", 3), ("infer", 1))
    }
    checks = {f"matrix share, {name}": check(share[name], most=1) for name in share}
    return result | {"checks": checks, "matrix_share": share, "matrix_flops": rate}


def peak_bytes(kind: str) -> int | None:
    """Most memory that was in use on the device, None where it does not tell."""
    if kind == "timm":
        import torch

        return torch.cuda.max_memory_allocated()
    import jax

    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def check_torch() -> None:
    """Ends the process unless PyTorch computes on a GPU."""
    import torch

    if not torch.cuda.is_available():
        sys.exit("PyTorch sees no GPU")


PARTS = {part.__name__: part for part in (machine, golden, digits, cifar10, speed)}

if __name__ == "__main__":
    main()
