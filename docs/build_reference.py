"""Writes the reference of the public modules as HTML, from their docstrings (pdoc).

    python docs/build_reference.py --output runs/reference

Any warning is an error.
"""

import argparse
import pathlib
import warnings

import nfnet_jax

PUBLIC = (
    "nfnet_jax",
    "nfnet_jax.analysis",
    "nfnet_jax.config",
    "nfnet_jax.data.sources.arrays",
    "nfnet_jax.data.dataset",
    "nfnet_jax.utils.errors",
    "nfnet_jax.inference.export",
    "nfnet_jax.inference.fold",
    "nfnet_jax.weights.haiku",
    "nfnet_jax.weights.load",
    "nfnet_jax.weights.timm",
    "nfnet_jax.layers.activations",
    "nfnet_jax.ops.conv",
    "nfnet_jax.layers.correlated_conv",
    "nfnet_jax.layers.dropout",
    "nfnet_jax.layers.residual",
    "nfnet_jax.layers.squeeze_excite",
    "nfnet_jax.layers.ws_conv",
    "nfnet_jax.models.blocks",
    "nfnet_jax.models.statistics",
    "nfnet_jax.models.network",
    "nfnet_jax.models.nf_air",
    "nfnet_jax.models.nf_regnet",
    "nfnet_jax.models.nf_resnet",
    "nfnet_jax.models.nfnet",
    "nfnet_jax.models.registry",
    "nfnet_jax.models.stage",
    "nfnet_jax.models.variant",
    "nfnet_jax.optim.agc",
    "nfnet_jax.optim.factory",
    "nfnet_jax.optim.groups",
    "nfnet_jax.optim.rules",
    "nfnet_jax.optim.sam",
    "nfnet_jax.optim.schedules",
    "nfnet_jax.optim.tree",
    "nfnet_jax.training.experiment",
    "nfnet_jax.training.loop",
    "nfnet_jax.training.step",
    "nfnet_jax.training.trained",
    "nfnet_jax.inference.predict",
)
"""Modules to build on; the others are free to change."""


REPEATED = (r"!nfnet_jax\.analysis\.",)
"""Its modules called like functions: pdoc would take them for pages of their own."""


def resolve_lazy_names() -> None:
    """Puts into the package what its `__getattr__` finds, for pdoc to see it."""
    for name in nfnet_jax.__all__:
        setattr(nfnet_jax, name, getattr(nfnet_jax, name))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    output = parser.parse_args(argv).output
    import pdoc

    resolve_lazy_names()
    pdoc.render.configure(docformat="google", footer_text="nfnet_jax")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.pdoc(*PUBLIC, *REPEATED, output_directory=output)
    print(output / "index.html")


if __name__ == "__main__":
    main()
