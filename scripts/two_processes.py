"""Starts one run as two processes of this machine, as a trial of several hosts.

    python scripts/two_processes.py --config configs/digits.py --workdir runs/pair

takes the flags of nfnet_jax.train and adds those that connect the processes. Each
simulates JAX_NUM_CPU_DEVICES devices, by default two. When one fails, the other gets
SIGTERM, and after ten seconds SIGKILL.
"""

import os
import socket
import subprocess
import sys
import time

PROCESSES = 2
PATIENCE_SECONDS = 10


def main(arguments: list[str]) -> int:
    """Runs the processes; the exit code of the first that failed, 0 if none did."""
    environment = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"} | os.environ
    command = [sys.executable, "-m", "nfnet_jax.train", *arguments]
    command += [f"--coordinator=127.0.0.1:{free_port()}", f"--processes={PROCESSES}"]
    running = [
        subprocess.Popen([*command, f"--process={process}"], env=environment)
        for process in range(PROCESSES)
    ]
    try:
        return first_failure(running)
    finally:
        stop(running)


def stop(running: list[subprocess.Popen]) -> None:
    """Ends the processes, by SIGKILL where SIGTERM does not in ten seconds."""
    for process in running:
        process.terminate()
    deadline = time.monotonic() + PATIENCE_SECONDS
    for process in running:
        try:
            process.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def first_failure(running: list[subprocess.Popen]) -> int:
    """Waits for all processes to succeed or for one to fail; 0 or its exit code."""
    while True:
        codes = [process.poll() for process in running]
        failed = [code for code in codes if code]
        if failed or None not in codes:
            return failed[0] if failed else 0
        time.sleep(0.1)


def free_port() -> int:
    """TCP port that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
