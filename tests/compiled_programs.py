"""Compiles programs for one accelerator that is not here, and writes their texts.

    python tests/compiled_programs.py TARGET DIRECTORY

`step` and `evaluation` are those of a small CIFAR network in bfloat16, `grouped` is a
convolution on the rows of each device; the others have one fault each. NAME.hlo is the
optimized program, NAME.mlir the one before any compiler.
"""

import pathlib
import sys

from nfnet_jax.config import load
from nfnet_jax.planning.target import parse_target, prepare, quiet, target_mesh

ROOT = pathlib.Path(__file__).parents[1]
BATCH = 368
"""Images of a batch; no other size of the program, nor are a half and a quarter."""
SIDE = 32


def main(name: str, directory: str) -> None:
    target, folder = parse_target(name), pathlib.Path(directory)
    prepare(target)
    import jax

    mesh = target_mesh(target)
    programs = faulty(mesh) | steps(mesh)
    for program, traced in programs.items():
        with quiet():
            lowered = traced.lower(lowering_platforms=(target.platform,))
            (folder / f"{program}.hlo").write_text(lowered.compile().as_text())
        (folder / f"{program}.mlir").write_text(lowered.as_text())
    (state, _), _ = programs["step"].in_avals
    (folder / "state.txt").write_text(str(len(jax.tree.leaves(state))))


def steps(mesh) -> dict:
    """Traced train and evaluation step of an NF-WRN-10-1, images streamed."""
    from nfnet_jax.planning.abstract import AbstractRun, DataShape

    changes = {
        "model.name": "nf_wrn_10_1",
        "train.dtype": "bfloat16",
        "data.batch_size": BATCH,
        "data.eval_batch_size": BATCH,
    }
    config = load(str(ROOT / "configs/cifar10.py"), changes)
    run = AbstractRun(config, DataShape((SIDE, SIDE, 3), 10, None, "as given"), mesh)
    return {"step": run.trace_training()[0], "evaluation": run.trace_evaluation()[0]}


def faulty(mesh) -> dict:
    """Traced programs: a convolution in float32, a batch that is gathered, a grouped
    convolution that the compiler divides, images that are transposed, and a state that
    is not donated; beside them, the grouped one as it should be."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding

    from nfnet_jax.training.parallel import ROWS, WHOLE, on_rows

    rows, whole = NamedSharding(mesh, ROWS), NamedSharding(mesh, WHOLE)

    def images(dtype, channels=16):
        return jax.ShapeDtypeStruct((BATCH, SIDE, SIDE, channels), dtype, sharding=rows)

    def convolve(kernel, x):
        layout = ("NHWC", "HWIO", "NHWC")
        groups = x.shape[-1] // kernel.shape[2]
        return jax.lax.conv_general_dilated(
            *(x, kernel, (1, 1), "SAME"),
            dimension_numbers=layout,
            feature_group_count=groups,
        )

    def single(kernel, x):
        x, kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
        return convolve(kernel, x).astype(jnp.bfloat16)

    def gathered(kernel, x):
        everywhere = jax.lax.with_sharding_constraint(x, whole)
        return kernel + everywhere[::-1].mean(0, dtype=jnp.float32).mean()

    def transposed(kernel, x):
        return convolve(kernel, x).swapaxes(0, 3) + jnp.bfloat16(1)

    kernel = jax.ShapeDtypeStruct((3, 3, 16, 16), jnp.bfloat16, sharding=whole)
    state = jax.ShapeDtypeStruct((3, 3, 16, 16), jnp.float32, sharding=whole)
    grouped = jax.ShapeDtypeStruct((3, 3, 8, 128), jnp.bfloat16, sharding=whole)
    x, wide = images(jnp.bfloat16), images(jnp.bfloat16, 128)
    return {
        "grouped": jax.jit(on_rows(mesh, convolve)).trace(grouped, wide),
        "undivided": jax.jit(convolve).trace(grouped, wide),
        "float32": jax.jit(single).trace(kernel, x),
        "gathered": jax.jit(gathered, donate_argnums=0, out_shardings=whole).trace(
            state, x
        ),
        "transposed": jax.jit(transposed).trace(kernel, x),
        "copied": jax.jit(lambda state: state + 1, out_shardings=whole).trace(state),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
