"""Traces of some steps by JAX's profiler."""

import contextlib
import os
from collections.abc import Callable

import jax

from nfnet_jax.training.logging.console import Stopwatch
from nfnet_jax.training.timeline import Timeline
from nfnet_jax.training.workdir import writing


def traced_steps(first_step: int, plan: Timeline, count: int) -> range:
    """At most `count` steps, in which a process that starts after `first_step` compiles
    nothing.

    Programs are compiled in the first step of a process, in the first one on images of
    full size, and in evaluations. The trace begins after the first of these steps and
    ends before the others.
    """
    start = first_step + 2
    if start == plan.small_steps + 1:
        start += 1
    stop = start + count
    next_evaluation = -(-start // plan.eval_every) * plan.eval_every
    stop = min(stop, plan.steps + 1, next_evaluation + 1)
    if start <= plan.small_steps:
        stop = min(stop, plan.small_steps + 1)
    return range(start, stop)


class Trace:
    """Traces `steps` into `workdir`/profile; a context manager that ends the trace.

    In a run of several processes only the first one is traced. `stopwatch` does not
    count the time of the trace.
    """

    def __init__(
        self,
        workdir: str,
        steps: range,
        stopwatch: Stopwatch,
        say: Callable[[str], None],
    ):
        self._path = os.path.join(workdir, "profile")
        # Processes of one host would write the same file.
        self._steps = steps if jax.process_index() == 0 else range(0)
        self._stopwatch, self._say = stopwatch, say
        self._trace, self._mark = contextlib.ExitStack(), contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._mark.close()
        with writing(self._path):
            self._trace.close()

    def before(self, step: int, state) -> None:
        """Begins the trace if `step` is its first one, and marks the step in it."""
        if step not in self._steps:
            return
        if step == self._steps[0]:
            jax.block_until_ready(state)
            self._stopwatch.stop(step - 1)
            with writing(self._path):
                os.makedirs(self._path, exist_ok=True)
                self._trace.enter_context(jax.profiler.trace(self._path))
        mark = jax.profiler.StepTraceAnnotation("train", step_num=step)
        self._mark.enter_context(mark)

    def after(self, step: int, state) -> None:
        """Ends the trace if `step` is its last one, and prints where the trace is."""
        self._mark.close()
        if not self._steps or step != self._steps[-1]:
            return
        jax.block_until_ready(state)
        with writing(self._path):
            self._trace.close()
        self._stopwatch.start(step)
        self._say(
            f"profile of steps {self._steps[0]} to {step}: {self._path}; open it by "
            f"'pip install tensorboard xprof && tensorboard --logdir {self._path}', or "
            "its *.trace.json.gz at https://ui.perfetto.dev"
        )
