"""Branches by depth, divided by the predicted deviation, the variance, or nothing.

    python -m experiments.beta.run

Measures and trains what results.json lacks, and draws branches.png.
"""

import functools
import pathlib

from experiments.panels import BLACK, blocks_from, finish, lines, make_panels
from experiments.signal_runs import measured, noise, reproduce
from experiments.training_runs import trainability

HERE = pathlib.Path(__file__).parent
BETAS = {"std": "standard deviation", "var": "variance", "none": "1"}
RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
DEPTHS = {
    16: ({"train.epochs": 6.0}, 1),
    100: ({"train.epochs": 2.0, "data.batch_size": 32}, 1),
}
"""Changes, and seeds of the trainings."""
OPEN = {"model.skip_gain": False, "optim.agc.clipping": 0.0}
"""Neither gains that close the branches nor clipping stand between β and training."""


def runs(quick: bool) -> dict:
    name, size = ("nf_wrn_10_1", 16) if quick else ("nf_wrn_604_1", 128)
    depths = {} if quick else DEPTHS
    images = noise(2, size)

    def train(depth, beta):
        changes, seeds = depths[depth]
        network = {"model.name": f"nf_wrn_{depth}_1", "model.beta": beta}
        return trainability("digits", changes | network | OPEN, RATES, 20, seeds)

    trainings = {
        f"training, {depth} layers, {beta}": functools.partial(train, depth, beta)
        for depth in depths
        for beta in BETAS
    }
    signals = {
        beta: functools.partial(measured, name, images, beta=beta) for beta in BETAS
    }
    return signals | trainings


def draw(results: dict[str, dict], path: pathlib.Path) -> None:
    figure, (panels,) = make_panels(3)
    branch, signal, trained = panels
    for panel, key, start in ((branch, "branch_var", 1), (signal, "avg_var", 0)):
        series = {
            f"β = {label}": (blocks_from(start, results[beta][key]), results[beta][key])
            for beta, label in BETAS.items()
        }
        lines(panel, series)
        panel.set_xlabel("blocks passed")
    predicted = results["std"]["predicted_var"]
    signal.plot(blocks_from(1, predicted), predicted, **BLACK)
    branch.axhline(1, label="predicted", **BLACK)
    branch.set(ylabel="branch variance", yscale="log")
    signal.set(ylabel="average channel variance", yscale="log")
    lines(trained, _stable_rates(results), marker="o", ms=4)
    depths = list(next(iter(_stable_rates(results).values()))[0])
    trained.set(xlabel="layers", ylabel="highest stable learning rate", yscale="log")
    trained.set_xticks(depths)
    finish(figure, path, ncols=4)


def _stable_rates(results: dict[str, dict]) -> dict:
    depths = [d for d in DEPTHS if f"training, {d} layers, std" in results]
    return {
        beta: (
            depths,
            [
                results.get(f"training, {d} layers, {beta}", {}).get("rate")
                for d in depths
            ],
        )
        for beta in BETAS
    }


def main(argv: list[str] | None = None) -> None:
    reproduce(HERE, __doc__, runs, draw, "branches.png", argv=argv)


if __name__ == "__main__":
    main()
