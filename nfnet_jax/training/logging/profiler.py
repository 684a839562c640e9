"""A trace of some steps by JAX's profiler."""

import contextlib
import os
from collections.abc import Callable

import jax

from nfnet_jax.training.logging.stopwatch import Stopwatch
from nfnet_jax.training.timeline import Timeline
from nfnet_jax.training.workdir import writing


def traced_steps(first_step: int, plan: Timeline, count: int) -> range:
    """At most `count` steps that compile nothing, of a process that starts after
    `first_step`.

    The first step of a process compiles, the first one on images of full size too, and
    evaluations do: the trace begins after the one and ends before the others.
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

    Of several processes the first one alone is traced. The time of the trace is no
    training time of `stopwatch`.
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
        self._running = False
        self._marks = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._marks.close()
        self._stop()

    def before(self, step: int, state) -> None:
        """Begins the trace if `step` is its first one, and marks the step in it."""
        if step not in self._steps:
            return
        if step == self._steps[0]:
            jax.block_until_ready(state)
            self._stopwatch.stop(step - 1)
            with writing(self._path):
                os.makedirs(self._path, exist_ok=True)
                jax.profiler.start_trace(self._path)
            self._running = True
        mark = jax.profiler.StepTraceAnnotation("train", step_num=step)
        self._marks.enter_context(mark)

    def after(self, step: int, state) -> None:
        """Ends the trace if `step` is its last one, and says where it is."""
        if step not in self._steps:
            return
        self._marks.close()
        if step != self._steps[-1]:
            return
        jax.block_until_ready(state)
        self._stop()
        self._stopwatch.start(step)
        self._say(
            f"profile of steps {self._steps[0]} to {step}: {self._path}; open it by "
            f"'pip install tensorboard xprof && tensorboard --logdir {self._path}', or "
            "its *.trace.json.gz at https://ui.perfetto.dev"
        )

    def _stop(self) -> None:
        if self._running:
            self._running = False
            with writing(self._path):
                jax.profiler.stop_trace()
