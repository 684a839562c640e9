"""A run in Weights & Biases, whose failures never end the training."""

import importlib.util
import os
import secrets
import sys
from collections.abc import Callable

from ml_collections import ConfigDict

from nfnet_jax.config import to_json
from nfnet_jax.training.workdir import read_json, write_json
from nfnet_jax.utils.errors import UserError

PROJECT = "nfnet_jax"


def check_wandb(config: ConfigDict) -> None:
    """Raises UserError if W&B is asked for and not installed."""
    if config.log.wandb and importlib.util.find_spec("wandb") is None:
        raise UserError("log.wandb needs the package wandb: pip install -e '.[wandb]'")


class WandbLog:
    """One W&B run for each work directory, continued when that is.

    Its files lie in `workdir`/wandb; the environment variables of W&B, such as
    WANDB_PROJECT and WANDB_MODE=offline, hold. The first failure of any kind is told in
    a line, and nothing is sent from then on.
    """

    def __init__(self, workdir: str, config: ConfigDict):
        self._run = None
        self._attempt(lambda: self._start(workdir, config))

    def write(self, step: int, row: dict[str, float]) -> None:
        """One row of metrics; `step` is their axis, so that rows of a step that a
        continued run takes again are taken too."""
        if self._run:
            self._attempt(lambda: self._run.log({"step": step} | row))

    def close(self, *, failed: bool) -> None:
        """Waits until all is sent."""
        if self._run:
            self._attempt(lambda: self._run.finish(exit_code=int(failed)))

    def _start(self, workdir: str, config: ConfigDict) -> None:
        import wandb

        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=config.name,
            dir=workdir,
            id=_run_id(workdir),
            resume="allow",
        )
        # What a continued run may change differs from what W&B has.
        run.config.update(to_json(config), allow_val_change=True)
        run.define_metric("*", step_metric="step")
        self._run = run

    def _attempt(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:
            self._run = None
            reason = " ".join(str(error).split()) or type(error).__name__
            sys.stderr.write(f"W&B: {reason}; the run goes on without it\n")


def _run_id(workdir: str) -> str:
    """The id of the work directory's W&B run, made when first asked for."""
    path = os.path.join(workdir, "wandb_run.json")
    if not os.path.exists(path):
        write_json(path, {"id": secrets.token_hex(4)})
    return read_json(path)["id"]
