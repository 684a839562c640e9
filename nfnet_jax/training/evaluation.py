"""Accuracy and loss on the test split."""

import contextlib
import sys
from collections.abc import Callable, Sequence

import jax
from ml_collections import ConfigDict

from nfnet_jax.data.batches import Batches
from nfnet_jax.data.dataset import Dataset
from nfnet_jax.optim.tree import Params
from nfnet_jax.training.checkpoint.manager import Checkpoints
from nfnet_jax.training.data_spec import find_data_facts
from nfnet_jax.training.setup import Run, set_up
from nfnet_jax.training.state import TrainState
from nfnet_jax.training.step import make_eval_step
from nfnet_jax.training.workdir import check_network


def make_tester(
    config: ConfigDict, run: Run
) -> Callable[[TrainState], dict[str, float]]:
    """`test(state)` -> `accuracy`, `loss` of the parameters, and with `_ema` of their
    average, on the test split of `run`."""
    eval_step = make_eval_step(config, run.model, run.test, run.facts)

    def test(state: TrainState) -> dict[str, float]:
        plain, ema = evaluate(
            eval_step,
            [
                {"params": params, "batch_stats": state.batch_stats}
                for params in (state.params, state.ema_params)
            ],
            run.test,
        )
        return plain | {f"{name}_ema": value for name, value in ema.items()}

    return test


def score_checkpoint(
    config: ConfigDict, workdir: str, dataset: Dataset | None = None
) -> dict[str, float]:
    """Scores of the last checkpoint in `workdir`, with its `step`.

    `dataset` replaces that of the config. Its classes are those of the run by name;
    some may be missing.

    Raises:
      UserError: there is no sound checkpoint, the config is of another network, or the
        data have other classes.
    """
    check_network(workdir, config)
    facts = find_data_facts(workdir)
    run = set_up(config, facts=facts, dataset=dataset)
    with Checkpoints(workdir) as checkpoints:
        state = checkpoints.restore(run.state)
    if not facts:
        sys.stderr.write(
            f"{workdir} has no data.json: classes are taken in the order of the data, "
            "images normalized by their moments\n"
        )
    return {"step": int(state.step)} | make_tester(config, run)(state)


def evaluate(
    eval_step: Callable, variables: Sequence[Params], batches: Batches
) -> list[dict[str, float]]:
    """For each of `variables`, in one pass over the batches of a `make_eval_step`:
    `accuracy` in [0, 1] and mean cross entropy `loss`."""
    with contextlib.closing(batches.iterate(0)) as host_batches:
        sums = [
            [eval_step(v, host_batch, number) for v in variables]
            for number, host_batch in enumerate(host_batches)
        ]
    totals = jax.tree.map(lambda *parts: float(sum(parts)), *jax.device_get(sums))
    return [
        {
            "accuracy": total["correct"] / total["examples"],
            "loss": total["loss"] / total["examples"],
        }
        for total in totals
    ]
