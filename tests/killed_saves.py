"""Processes that save and are killed meanwhile: python killed_saves.py WORKDIR KILLS.

Each continues from the newest checkpoint, which must hold the state of its step, and
saves one step after the other until kill -9.
"""

import os
import random
import signal
import sys
import time

import jax
import numpy as np
from small_states import make_state

from nfnet_jax.training.checkpoint import Checkpoints


def save_on(workdir: str, ready: int) -> None:
    """Saves until killed; writes a byte to `ready` after every completed save."""
    step = 0
    with Checkpoints(workdir) as checkpoints:
        if checkpoints.latest_step is not None:
            state = checkpoints.restore(large(0))
            step = int(state.step)
            jax.tree.map(np.testing.assert_array_equal, state, large(step))
        while True:
            checkpoints.save(large(step + 1))
            checkpoints.save(large(step + 2))
            step += 2
            os.write(ready, b"1")


def large(step: int):
    """State of a megabyte, so that writing takes a while."""
    return make_state(step).replace(batch_stats=np.full(2**18, step, np.float32))


def main(workdir: str, kills: int) -> None:
    draw = random.Random(0)
    for _ in range(kills):
        reader, writer = os.pipe()
        # What JAX starts it starts in the child: the parent computes nothing.
        child = os.fork()
        if not child:
            os.close(reader)
            save_on(workdir, writer)
        os.close(writer)
        if os.read(reader, 1) != b"1":
            sys.exit("a process could not continue")
        time.sleep(draw.uniform(0, 0.5))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(reader)
        assert os.WTERMSIG(status) == signal.SIGKILL


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
