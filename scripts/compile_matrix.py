"""Compiles every config for TPUs and GPUs that are not here, into a table.

    python scripts/compile_matrix.py
    python scripts/compile_matrix.py --tpu_python A/bin/python --gpu_python B/bin/python

Each cell is one or more runs of `python -m nfnet_jax.plan --target ...`, in bfloat16:
where the batch of the config does not fit, the batch that the plan proposes instead.
Writes matrix.json and matrix.md to experiments/accelerators, after every cell; cells
that have a plan there already are not compiled again.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
from typing import Any, NamedTuple

from nfnet_jax.utils.units import number, percent, seconds, with_prefix

ROOT = pathlib.Path(__file__).parents[1]
TARGETS = ("h100:1", "h100:8", "v5e:1x1", "v5e:2x2", "v6e:2x2")
CIFAR10 = ("--image_shape=32x32x3", "--config.model.num_classes=10")
CIFAR100 = ("--image_shape=32x32x3", "--config.model.num_classes=100")
CONFIGS = {
    "digits.py": (),
    "cifar10.py": CIFAR10,
    "cifar100.py": CIFAR100,
    "cifar10_cpu.py": CIFAR10,
    "cifar10_original.py": CIFAR10,
    "cifar10_speedrun.py:0.08": CIFAR10,
    "finetune.py:images": (),
    "folder.py:images": (),
    "imagenet_nf_regnet.py:b0": (),
    "imagenet_nf_resnet.py:50": (),
    "imagenet_nfnet.py:f0": (),
}
"""Every config, and the shape of its data, which are not looked for."""
FSDP, REMAT = "--config.parallel.fsdp=True", "--config.train.remat=block"
ACCUMULATE = "--config.optim.accumulate=4"
BFLOAT16 = "--config.train.dtype=bfloat16"
MOST_RUNS = 3
"""Plans of one cell, each with a smaller batch than the one before."""
MOST_SECONDS = 1800


COLUMNS = (
    *("config", "target", "flags", "batch", "needed", "temporary", "there", "fits"),
    *("10⁶ cycles", "time", "images/s", "of the peak", "kernels", "sent"),
)


class Cell(NamedTuple):
    """One config with further flags on one target."""

    config: str
    target: str
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return " ".join((self.config, self.target, *self.flags))


def cells() -> list[Cell]:
    """All cells, the cheap ones first: GPUs, then small networks on TPUs."""
    whole = [Cell(config, target) for target in TARGETS for config in CONFIGS]
    options = [
        Cell(config, target, (flag,))
        for config, target in (
            ("cifar10.py", "v5e:2x2"),
            ("imagenet_nfnet.py:f0", "h100:8"),
            ("imagenet_nfnet.py:f0", "v5e:2x2"),
        )
        for flag in (FSDP, REMAT, ACCUMULATE)
    ]
    large = [Cell("imagenet_nfnet.py:f5", "v5e:16x16", (FSDP, REMAT))]

    def is_dear(cell: Cell) -> tuple[bool, bool]:
        return cell.target.startswith("v"), not cell.config.startswith(("c", "d"))

    return sorted([*whole, *options], key=is_dear) + large


class Matrix:
    """The results so far, in files of `folder`, by the names of cells."""

    def __init__(self, folder: pathlib.Path):
        self._json, self._table = folder / "matrix.json", folder / "matrix.md"
        self._lock = threading.Lock()
        self.results: dict[str, Any] = {}
        if self._json.exists():
            self.results = json.loads(self._json.read_text())

    def add(self, cell: Cell, result: dict[str, Any]) -> None:
        """Keeps a result and writes both files."""
        with self._lock:
            self.results[cell.name] = result
            order = [c.name for c in cells() if c.name in self.results]
            kept = {name: self.results[name] for name in order}
            self._json.parent.mkdir(parents=True, exist_ok=True)
            self._json.write_text(json.dumps(kept, indent=1) + "\n")
            self._table.write_text(table(kept))


def compile_cell(cell: Cell, python: str) -> dict[str, Any]:
    """Plans with the config's batch, or the largest one that the plans propose."""
    batch: tuple[str, ...] = ()
    tried: list[str] = []
    result: dict[str, Any] = {}
    while len(tried) < MOST_RUNS:
        result = plan(cell, batch, python)
        result["tried"] = list(tried)
        found = result.get("plan")
        if found is None or found["fits"]:
            break
        tried.append(result["error"])
        flag = "--config.data.batch_size="
        smaller = [text for text in found["remedies"] if text.startswith(flag)]
        if not smaller:
            break
        batch = (smaller[0],)
    return result


def plan(cell: Cell, batch: tuple[str, ...], python: str) -> dict[str, Any]:
    """One run of the command: its line, its numbers, and its error if it has one."""
    data = CONFIGS.get(cell.config, ())
    arguments = [
        *("-m", "nfnet_jax.plan", "--config", f"configs/{cell.config}"),
        *("--target", cell.target, BFLOAT16, *cell.flags, *data, *batch),
    ]
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "plan.json"
        command = [python, *arguments, f"--output={output}"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                timeout=MOST_SECONDS,
            )
            error = (done.stderr.strip().splitlines() or [""])[-1]
        except subprocess.TimeoutExpired:
            error = f"error: not compiled in {MOST_SECONDS} s"
        result = {"command": " ".join(["python", *arguments])}
        if output.exists():
            result["plan"] = json.loads(output.read_text())
        if "plan" not in result or not result["plan"]["fits"]:
            result["error"] = error.removeprefix("error: ")
        return result


def table(results: dict[str, Any]) -> str:
    """Results as Markdown, a row each."""
    versions = {
        f"{name} {version}"
        for result in results.values()
        for name, version in result.get("plan", {}).get("versions", {}).items()
    }
    head = f"""# Every config, compiled for devices that are not here

    python scripts/compile_matrix.py

Compiled in bfloat16 by {", ".join(sorted(versions))};
nothing was run. Memory is that of a device in training, and what programs may take
there; cycles, time and share of the peak are estimated by the TPU compiler, sending
left out. GPU compilers estimate none.

| {" | ".join(COLUMNS)} |
|{"---|" * len(COLUMNS)}"""
    return "\n".join([head, *(_row(*item) for item in results.items())]) + "\n"


def _row(name: str, result: dict[str, Any]) -> str:
    config, target, *flags = name.split(" ")
    first = [config, target, ", ".join(f.removeprefix("--config.") for f in flags)]
    found = result.get("plan")
    if found is None:
        reason = result["error"].replace("|", "/")
        return _line([*first, "", "", "", "", reason])
    step = found["training"]
    sizes = (step["needed"], step["temporary"], found["memory"])
    fits = "yes" if found["fits"] else "no"
    larger = f", after {len(result['tried'])} larger" if result["tried"] else ""
    estimate = ["", "", "", ""]
    if step["cycles"]:
        estimate = [
            number(step["cycles"] / 1e6),
            seconds(step["seconds"]),
            number(step["examples_per_second"]),
            percent(step["peak_share"], 1),
        ]
    sent = sum(step["collectives"].values())
    return _line(
        [
            *(*first, str(found["batch_size"])),
            *("" if size is None else with_prefix(size, "B") for size in sizes),
            *(fits + larger, *estimate),
            str(step["kernels"] or ""),
            with_prefix(sent, "B") if sent else "",
        ]
    )


def _line(columns: list[str]) -> str:
    empty = [""] * (len(COLUMNS) - len(columns))
    return f"| {' | '.join([*columns, *empty])} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tpu_python", default=sys.executable)
    parser.add_argument("--gpu_python", default=sys.executable)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="cells with this text in their name")
    folder = ROOT / "experiments" / "accelerators"
    parser.add_argument("--folder", type=pathlib.Path, default=folder)
    flags = parser.parse_args()
    matrix = Matrix(flags.folder)
    missing = [c for c in cells() if "plan" not in matrix.results.get(c.name, {})]
    missing = [c for c in missing if flags.only in c.name]

    def work(cell: Cell) -> None:
        is_tpu = cell.target.startswith("v")
        result = compile_cell(cell, flags.tpu_python if is_tpu else flags.gpu_python)
        matrix.add(cell, result)
        print(cell.name, "-", result.get("error", "fits"), flush=True)

    with concurrent.futures.ThreadPoolExecutor(flags.jobs) as pool:
        list(pool.map(work, missing))


if __name__ == "__main__":
    main()
