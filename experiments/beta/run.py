"""What does dividing by the variance, or by nothing, do to the branches by depth?

    python -m experiments.beta.run

Measures what results.json lacks, and draws branches.png.
"""

import functools
import pathlib

from matplotlib.figure import Figure

from experiments.signal_runs import arguments, measured, noise, resume

HERE = pathlib.Path(__file__).parent
BETAS = {
    "std": ("standard deviation", "#0072b2"),
    "var": ("variance", "#d55e00"),
    "none": ("1", "#009e73"),
}


def runs(quick: bool) -> dict:
    name, size = ("nf_wrn_10_1", 16) if quick else ("nf_wrn_604_1", 128)
    images = noise(2, size)
    return {
        beta: functools.partial(measured, name, images, beta=beta) for beta in BETAS
    }


def draw(results: dict[str, dict], path: pathlib.Path) -> None:
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    branch, signal = figure.subplots(1, 2)
    for beta, (label, colour) in BETAS.items():
        values = results[beta]
        style = {"color": colour, "label": f"β = {label}", "lw": 1.2}
        blocks = range(1, 1 + len(values["branch_var"]))
        branch.plot(blocks, values["branch_var"], **style)
        signal.plot(values["avg_var"], **style)
    predicted = results["std"]["predicted_var"]
    signal.plot(blocks, predicted, "k--", lw=1, label="predicted")
    branch.plot(blocks, [1] * len(predicted), "k--", lw=1)
    branch.set(ylabel="branch variance", ylim=0)
    signal.set(ylabel="average channel variance", yscale="log")
    for panel in (branch, signal):
        panel.set_xlabel("blocks passed")
        panel.grid(alpha=0.3)
    signal.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main(argv: list[str] | None = None) -> None:
    flags = arguments(HERE, __doc__).parse_args(argv)
    results = resume(flags.output / "results.json", runs(flags.quick))
    draw(results, flags.output / "branches.png")


if __name__ == "__main__":
    main()
