"""A worker whose trials only sleep: worker.py STORAGE LOG SECONDS."""

import os
import sys
import time

from nfnet_jax.sweeps import study
from nfnet_jax.sweeps.space import make_space

# Of the order of what the test takes, not of what a training takes.
study._HEARTBEAT_SECONDS, study._GRACE_SECONDS, study._POLL_SECONDS = 1, 3, 0.2
POINTS = 6


def main(storage: str, log: str, seconds: str) -> None:
    space = make_space(["data.batch_size=1,2,3,4,5,6"], [], None, None)
    opened = study.open_study(
        study.open_storage(storage), "test", space, space.describe(), "maximize", False
    )

    def objective(place, values, hopeless):
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{place} {os.getpid()}\n")
        time.sleep(float(seconds))
        return -((values["data.batch_size"] - 4) ** 2)

    study.work(opened, space, objective)


if __name__ == "__main__":
    main(*sys.argv[1:])
