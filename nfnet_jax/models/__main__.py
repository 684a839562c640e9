"""Lists models, all or those whose name matches a pattern.

    python -m nfnet_jax.models
    python -m nfnet_jax.models 'nfnet_f*'

Prints parameters, multiply-adds, sides of the images and published accuracies.
"""

from typing import Any

from nfnet_jax import cli
from nfnet_jax.utils.errors import UserError

COLUMNS = "{:20} {:>13} {:>15} {:>6} {:>5} {:>7} {:>6} {:>6}"
TITLES = ("parameters", "multiply-adds", "train", "test", "classes", "top-1", "top-5")


def main(argv: list[str]) -> None:
    """One line per model whose name matches the pattern, which is shell-style."""
    patterns = cli.parse(argv, __doc__, arguments="[PATTERN]").arguments
    if len(patterns) > 1:
        raise UserError(f"unexpected argument {patterns[1]!r}, expected one pattern")
    from nfnet_jax.models.registry import list_models
    from nfnet_jax.models.statistics import model_info

    pattern = "".join(patterns) or "*"
    names = list_models(pattern)
    if not names:
        raise UserError(f"{pattern!r} matches none of {', '.join(list_models())}")
    print(COLUMNS.format("model", *TITLES))
    for name in names:
        print(_row(model_info(name)), flush=True)


def _row(info: Any) -> str:
    return COLUMNS.format(
        info.name,
        f"{info.parameters:,}",
        f"{info.multiply_adds / 1e9:.2f} G",
        info.train_size,
        info.test_size,
        info.num_classes,
        *("-" if value is None else value for value in (info.top1, info.top5)),
    )


if __name__ == "__main__":
    cli.run(main)
