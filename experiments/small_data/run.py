"""Do normalizer-free networks reach BatchNorm's accuracy on small data sets?

    python -m experiments.small_data.run [--data_dir DATA_DIR]

Trains what results.json lacks, and draws accuracy.png. With DATA_DIR, which holds
CIFAR-10 as TFDS prepares it, on a fifth of that too.
"""

import functools
import pathlib

from experiments.panels import dots, finish, lines, make_panels
from experiments.signal_runs import arguments, resume
from experiments.training_runs import QUICK, trained
from nfnet_jax.cli import prepare_jax

HERE = pathlib.Path(__file__).parent
KINDS = {"normalizer-free": "nf", "BatchNorm": "bn"}
DIGITS = {
    "file": "digits",
    "network": "wrn_10_1",
    "rates": (0.05, 0.1, 0.2, 0.4),
    "seeds": 5,
    "changes": {"train.epochs": 15.0},
    "tuning": {"data.train_split": "train[:80%]", "data.eval_split": "train[80%:]"},
}
CIFAR = {
    "file": "cifar10",
    "network": "wrn_10_1",
    "rates": (0.1, 0.2, 0.4),
    "seeds": 3,
    "changes": {
        "data.batch_size": 64,
        "data.train_split": "train[:20%]",
        "train.epochs": 8.0,
    },
    "tuning": {"data.eval_split": "train[90%:94%]"},
    "causes": {
        "open branches": {"model.skip_gain": False},
        "open, α = 0.5": {"model.skip_gain": False, "model.alpha": 0.5},
        "no AGC": {"optim.agc.clipping": 0.0},
    },
}
"""`tuning`: which rates are compared on, in training images that are held out.
`causes`: what else the normalizer-free network is trained with, at its best rate."""
QUICKLY = {"rates": (0.1,), "seeds": 1, "changes": QUICK, "tuning": {}}


def changes_of(setting: dict, kind: str) -> dict:
    """The common recipe; BatchNorm is trained without AGC, as usual."""
    agc = {} if kind == "nf" else {"optim.agc.clipping": 0.0}
    return setting["changes"] | {"model.name": f"{kind}_{setting['network']}"} | agc


def tuning_runs(data: str, setting: dict) -> dict:
    return {
        f"{data}, {label}, rate {rate}": functools.partial(
            trained,
            setting["file"],
            changes_of(setting, kind) | setting["tuning"],
            rate,
        )
        for label, kind in KINDS.items()
        for rate in setting["rates"]
    }


def tuned_accuracies(data: str, label: str, setting: dict, results: dict) -> list:
    """On the held-out images, rate by rate; 0 where the loss was not finite."""
    names = [f"{data}, {label}, rate {rate}" for rate in setting["rates"]]
    return [results[name]["test_accuracy"] or 0.0 for name in names]


def final_runs(data: str, setting: dict, results: dict) -> dict:
    """Every seed at the best rate of the tuning runs in `results`."""
    runs = {}
    for label, kind in KINDS.items():
        scores = tuned_accuracies(data, label, setting, results)
        best = setting["rates"][scores.index(max(scores))]
        causes = setting.get("causes", {}) if kind == "nf" else {}
        for cause, more in {"": {}, **causes}.items():
            name = ", ".join(filter(None, (data, label, cause)))
            changes = changes_of(setting, kind) | more
            for seed in range(1, 1 + setting["seeds"]):
                runs[f"{name}, seed {seed}"] = functools.partial(
                    trained, setting["file"], changes, best, seed
                )
    return runs


def accuracies(data: str, label: str, results: dict) -> list[float]:
    return [
        100 * (result["test_accuracy"] or 0.0)
        for name, result in results.items()
        if name.startswith(f"{data}, {label}, seed")
    ]


def draw(settings: dict, results: dict, path: pathlib.Path) -> None:
    figure, grid = make_panels(2, len(settings))
    for (data, setting), (tuning, final) in zip(settings.items(), grid, strict=True):
        series = {
            label: (
                setting["rates"],
                [100 * a for a in tuned_accuracies(data, label, setting, results)],
            )
            for label in KINDS
        }
        lines(tuning, series, marker="o", ms=4)
        tuning.set(
            title=f"{data}, held-out training images",
            xlabel="peak learning rate",
            ylabel="accuracy, %",
            xscale="log",
        )
        tuning.set_xticks(setting["rates"], map(str, setting["rates"]))
        tuning.minorticks_off()
        labels = [*KINDS, *(f"normalizer-free, {c}" for c in setting.get("causes", ()))]
        columns = {
            label.replace(" ", "\n").replace("-", "-\n"): accuracies(
                data, label, results
            )
            for label in labels
        }
        dots(final, columns)
        final.set(title=f"{data}, test images, by seed", ylabel="accuracy, %")
    finish(figure, path, ncols=2)


def settings_of(quick: bool, data_dir: str | None) -> dict[str, dict]:
    if quick:
        return {"digits": DIGITS | QUICKLY}
    settings = {"digits": DIGITS}
    if data_dir:
        changes = CIFAR["changes"] | {"data.dir": data_dir}
        settings["CIFAR-10, a fifth"] = CIFAR | {"changes": changes}
    return settings


def main(argv: list[str] | None = None) -> None:
    flags = arguments(HERE, __doc__, "--data_dir").parse_args(argv)
    prepare_jax()
    path = flags.output / "results.json"
    settings = settings_of(flags.quick, flags.data_dir)
    for data, setting in settings.items():
        results = resume(path, tuning_runs(data, setting))
        results = resume(path, final_runs(data, setting, results))
    draw(settings, results, flags.output / "accuracy.png")


if __name__ == "__main__":
    main()
