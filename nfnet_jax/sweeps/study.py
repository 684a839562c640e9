"""A study that any number of workers share: each trial is taken once.

All trials are queued when the study is made; workers take them from the queue until
none is left. A killed worker sends no heartbeat any more, and another worker takes its
trial up again, from the last checkpoint.
"""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import optuna
import sqlalchemy.event
import sqlalchemy.exc
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, Trial, TrialState

from nfnet_jax.sweeps.space import Space, Values
from nfnet_jax.sweeps.trial import Failed
from nfnet_jax.utils.errors import UserError
from nfnet_jax.utils.files import check_local

PLACE = "place"
"""User attribute of a trial: its index among the planned ones."""
VALUES = "values"
"""User attribute of a trial: the config keys that it set."""
_HEARTBEAT_SECONDS, _GRACE_SECONDS, _RETRIES = 5, 20, 3
_POLL_SECONDS = 2
_READY_SECONDS = 60


@contextlib.contextmanager
def open_storage(url: str) -> Iterator[RDBStorage]:
    """Opens a database by SQLAlchemy's URL, or an SQLite file, and closes it.

    Raises:
      UserError: it cannot be opened.
    """
    if "://" not in url:
        check_local(url, "--storage")
        url = f"sqlite:///{url}"
    # Several workers may want to write to the same file.
    patience = {"timeout": 60} if url.startswith("sqlite") else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = RDBStorage(
                url,
                {"connect_args": patience},
                heartbeat_interval=_HEARTBEAT_SECONDS,
                grace_period=_GRACE_SECONDS,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(
                    _RETRIES
                ),
            )
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--storage {url!r} cannot be opened ({reason}), expected a file or a URL "
            "such as sqlite:///sweep.db or postgresql://HOST/NAME"
        ) from error
    if storage.engine.dialect.name == "sqlite":
        _lock_transactions(storage.engine)
    try:
        yield storage
    finally:
        storage.engine.dispose()


def _lock_transactions(engine: sqlalchemy.Engine) -> None:
    """Lets one transaction of an SQLite file be open at a time.

    By itself SQLite locks at the first write, when two workers may have read already
    that the same trial waits.
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def leave_begin_to_us(connection, record):
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def open_study(
    storage: RDBStorage,
    name: str,
    space: Space,
    definition: list[str],
    direction: Literal["maximize", "minimize"],
    prune: bool,
) -> optuna.Study:
    """Opens the study `name`, or makes it with all its trials waiting.

    `definition` is all that defines the sweep.

    Raises:
      UserError: the study in the storage is of another sweep.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner() if prune else optuna.pruners.NopPruner()
    options: dict[str, Any] = {"sampler": optuna.samplers.TPESampler()}
    options |= {"study_name": name, "storage": storage, "pruner": pruner}
    try:
        study = optuna.create_study(direction=direction, **options)
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(**options)
        _check_same(study, definition)
        return study
    for place, point in enumerate(space.planned()):
        study.enqueue_trial(point, user_attrs={PLACE: place})
    study.set_user_attr("definition", definition)
    return study


def _check_same(study: optuna.Study, definition: list[str]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while (found := study.user_attrs.get("definition")) is None:
        if time.monotonic() > deadline:
            raise UserError(
                f"study {study.study_name!r} was never completed by the worker that "
                "made it: choose another --study"
            )
        time.sleep(0.1)
    if found != definition:
        theirs = [line for line in found if line not in definition]
        ours = [line for line in definition if line not in found]
        raise UserError(
            f"study {study.study_name!r} is another sweep ({'; '.join(theirs)} there, "
            f"{'; '.join(ours)} here): choose another --study or --storage"
        )


Objective = Callable[[int, Values, Callable[[int, float], bool]], float]
"""Function (place, values, hopeless) -> value of a trial; raises as `trial.train`."""


def work(study: optuna.Study, space: Space, objective: Objective) -> None:
    """Takes waiting trials until all of the study's have ended, here or elsewhere."""

    def try_one(trial: Trial) -> float:
        if PLACE not in trial.user_attrs:
            raise _NoneLeft

        def hopeless(step: int, value: float) -> bool:
            trial.report(value, step)
            return trial.should_prune()

        try:
            values = space.suggest(trial)
            trial.set_user_attr(VALUES, values)
            return objective(trial.user_attrs[PLACE], values, hopeless)
        except (Failed, UserError) as reason:
            trial.set_user_attr("error", str(reason))
            raise

    while states := {trial.state for trial in planned_trials(study)} & _OPEN:
        if TrialState.WAITING in states:
            study.optimize(try_one, n_trials=1, catch=(Failed, UserError, _NoneLeft))
        else:
            time.sleep(_POLL_SECONDS)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                optuna.storages.fail_stale_trials(study)


_OPEN = {TrialState.WAITING, TrialState.RUNNING}


class _NoneLeft(Exception):
    """Another worker was faster to take the last trial."""


def planned_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the last attempt at each trial, in the order of the plan."""
    last = {
        trial.user_attrs[PLACE]: trial
        for trial in study.get_trials(deepcopy=False)
        if PLACE in trial.user_attrs
    }
    return [last[place] for place in sorted(last)]
