"""Seconds from the start of the process to the first completed training step.

    python scripts/benchmark_start.py --config configs/cifar10.py --config.data.dir=DIR

Arguments go to `python -m nfnet_jax.train`. The first run may have to compile and to
decode images; the next ones find both in the caches.
"""

import statistics
import subprocess
import sys
import tempfile
import time

RUNS = 4


def main() -> None:
    first, *warm = [seconds_to_first_step(sys.argv[1:]) for _ in range(RUNS)]
    print(f"first run {first:.1f} s")
    listed = ", ".join(f"{seconds:.1f}" for seconds in warm)
    print(f"with warm caches {statistics.median(warm):.1f} s ({listed})")


def seconds_to_first_step(arguments: list[str]) -> float:
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, "-m", "nfnet_jax.train", *arguments]
        command += ["--config.train.steps=2", "--config.log.every_steps=1"]
        command += ["--workdir", f"{workdir}/run"]
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                if line.startswith("step 1 completed"):
                    process.kill()
                    return time.perf_counter() - start
        sys.exit(f"training ended before its first step, exit code {process.wait()}")


if __name__ == "__main__":
    main()
