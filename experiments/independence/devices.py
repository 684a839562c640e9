"""A program: losses of a run of configs/digits.py on some simulated devices.

    python -m experiments.independence.devices MODEL MODE DEVICES STEPS

prints as JSON the losses and, of a program under jit, the bytes that a device sends.
"""

import json
import os
import subprocess
import sys


def losses_on(model: str, mode: str, devices: int, steps: int) -> dict:
    """Output of this program, run in a process of its own."""
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_PLATFORMS": "cpu",
        # Compiling takes longer than running.
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-m", __name__, model, mode, str(devices), str(steps)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def main(model: str, mode: str, devices: str, steps: str) -> None:
    from experiments.training_runs import short_config
    from nfnet_jax.cli import prepare_jax
    from nfnet_jax.planning.traffic import collective_bytes
    from nfnet_jax.training.experiment import Experiment

    prepare_jax()
    config = short_config("digits", {"model.name": model, "parallel.mode": mode})
    run = Experiment(config)
    step, state, fed = run.train_step, run.state, next(run.train_batches.iterate(0))
    found = {}
    if mode == "jit":
        step = step.lower(state, fed).compile()
        found["bytes_sent"] = collective_bytes(step.as_text(), int(devices))
    losses = []
    for _ in range(int(steps)):
        state, metrics = step(state, fed)
        losses.append(float(metrics["loss"]))
    print(json.dumps(found | {"losses": losses}))


if __name__ == "__main__":
    main(*sys.argv[1:])
