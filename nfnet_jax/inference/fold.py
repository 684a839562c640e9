"""Folding of a trained network into a plain one that standardizes nothing.

Weight standardization, gains, γ, β, α and skip gains are constants once training has
ended. Every factor moves into the kernel that reads the scaled signal, or into the one
that writes it: s · (W ∗ x) = (s · W) ∗ x = W ∗ (s · x), whatever the activation before.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from nfnet_jax.layers.activations import activation_gain
from nfnet_jax.layers.ws_conv import standardize
from nfnet_jax.models.network import Network
from nfnet_jax.models.registry import create_model, find, model_options
from nfnet_jax.utils.errors import UserError

Params = dict[str, Any]
PLAIN = {
    "weight_standardization": False,
    "gamma": "none",
    "gamma_in_kernel": False,
    "var_eps": 0.0,
    "alpha": 1.0,
    "beta": "none",
    "stochastic_depth": 0.0,
    "drop_rate": 0.0,
}
"""Options of a network without scales and without anything that training needs."""


def fold(model: Network, params: Params) -> tuple[Network, Params]:
    """A plain network and its parameters, with the logits of `model` for inference.

    With h = act(x), unscaled, in every place where `model` computes γ · act(x) / β:

        kernel = Ŵ of the standardized kernel W,   times γ / β where it reads h of a
                 block, γ inside a branch or stem and in the classifier,
        and at the end of a branch kernel and bias times α · skip_gain.

    Channel attention on the output of a branch must see the unscaled branch: there
    α · skip_gain stays the skip gain of the folded network, which otherwise has none.
    Its pooled features (`features=True`) are γ times smaller than those of `model`.

    Args:
      model: made by `create_model`; a baseline only if of the SkipInit kind.
      params: its parameters, float32.

    Raises:
      UserError: `model` has no spec, or is one that cannot be folded (`is_foldable`).
    """
    if not is_foldable(model):
        raise UserError(
            f"{model.spec.name} cannot be folded: only residual networks without "
            "BatchNorm and without Fixup's biases before padded convolutions can"
        )
    folding = _Folding.of(model)
    name, num_classes, overrides = model.spec
    changes = PLAIN | {"skip_gain": folding.output_attention}
    plain = create_model(name, num_classes, **(dict(overrides) | changes))
    betas = [stage.betas for stage in model.stages]
    return plain, jax.jit(functools.partial(folding.network, betas))(params)


def is_foldable(model: Network) -> bool:
    """False for BatchNorm, Fixup and plain networks.

    BatchNorm stands before the activation and Fixup's biases before zero padding:
    neither is a factor of a kernel. The folding of plain networks is not written.

    Raises:
      UserError: `model` has no spec.
    """
    if not model.spec.name:
        raise UserError("the network has no spec, expected one made by create_model")
    return find(model.spec.name).foldable


@dataclasses.dataclass(frozen=True)
class _Folding:
    """Constants of a network, and the folding of its parameters part by part.

    `gamma` follows activations, `kernel_gamma` multiplies standardized kernels.
    `convs`: names in a branch, in order. `output_attention`: ends every branch.
    `raw_shortcut`: projections read what was not activated.
    """

    gamma: float
    kernel_gamma: float
    alpha: float
    var_eps: float
    convs: tuple[str, ...]
    output_attention: bool
    raw_shortcut: bool

    @classmethod
    def of(cls, model: Network) -> "_Folding":
        options, branch = model_options(model.spec), model.stages[0].transition.branch
        gamma = activation_gain(options.activation, options.gamma)
        return cls(
            gamma=1.0 if options.gamma_in_kernel else gamma,
            kernel_gamma=gamma if options.gamma_in_kernel else 1.0,
            alpha=options.alpha,
            var_eps=options.var_eps,
            convs=tuple(spec.name for spec in branch.convs),
            output_attention=bool(branch.attention) and not branch.attention_inside,
            raw_shortcut=options.raw_shortcut,
        )

    def network(self, betas: Sequence[Sequence[float]], params: Params) -> Params:
        """All parameters; `betas` stage by stage."""
        stages = {
            f"stages_{i}": self.stage(params[f"stages_{i}"], own)
            for i, own in enumerate(betas)
        }
        stem, head = self.stem(params["stem"]), self.head(params["head"])
        return {"stem": stem, **stages, "head": head}

    def stem(self, stem: Params) -> Params:
        """One convolution, or several with activations between them."""
        if "kernel" in stem:
            return self.conv(stem)
        first, *others = sorted(stem)
        inner = {name: self.conv(stem[name], reads=self.gamma) for name in others}
        return {first: self.conv(stem[first]), **inner}

    def head(self, head: Params) -> Params:
        """Classifier of an activated, final convolution of a raw signal."""
        folded = {"classifier": self.conv(head["classifier"], reads=self.gamma)}
        if "final_conv" in head:
            folded["final_conv"] = self.conv(head["final_conv"])
        return folded

    def stage(self, stage: Params, betas: Sequence[float]) -> Params:
        """Transition block and further blocks, stacked or each under its name."""
        first, *others = map(jnp.asarray, betas)
        folded = {"transition": self.block(stage["transition"], first)}
        if "blocks" in stage:
            return folded | {"blocks": self.block(stage["blocks"], jnp.stack(others))}
        for i, beta in enumerate(others):
            folded[f"blocks_{i}"] = self.block(stage[f"blocks_{i}"], beta)
        return folded

    def block(self, block: Params, beta: jax.Array) -> Params:
        """One block, or a stack of blocks with the layer axis leading in β, too."""
        h = self.gamma / beta
        scale = self.alpha * block.get("skip", {"skip_gain": 1.0})["skip_gain"]
        output = 1.0 if self.output_attention else scale
        branch, (first, *inner, last) = block["branch"], self.convs
        folded = {
            "branch": {
                **branch,
                first: self.conv(branch[first], reads=h),
                **{name: self.conv(branch[name], reads=self.gamma) for name in inner},
                last: self.conv(branch[last], reads=self.gamma, writes=output),
            }
        }
        if self.output_attention:
            folded["skip"] = {"skip_gain": jnp.broadcast_to(scale, beta.shape)}
        if "shortcut" in block:
            reads = 1.0 if self.raw_shortcut else h
            folded["shortcut"] = self.conv(block["shortcut"], reads)
        return folded

    def conv(self, layer: Params, reads=1.0, writes=1.0) -> Params:
        """kernel = reads · writes · Ŵ, bias = writes · bias; a linear layer, too.

        The factors are scalars, or have the layer axis of the parameters.
        """
        kernel = layer["kernel"]
        if "gain" in layer:
            standardize_layers = jnp.vectorize(
                functools.partial(standardize, var_eps=self.var_eps),
                signature="(h,w,c,o),(o)->(h,w,c,o)",
            )
            kernel = standardize_layers(kernel, self.kernel_gamma * layer["gain"])
        folded = {"kernel": _times(kernel, reads * writes)}
        if "bias" in layer:
            folded["bias"] = _times(layer["bias"], writes)
        return folded


def _times(array: jax.Array, factor: float | jax.Array) -> jax.Array:
    """array · factor; the axes of `factor` are the leading ones of `array`."""
    factor = jnp.asarray(factor)
    return array * factor.reshape(*factor.shape, *[1] * (array.ndim - factor.ndim))
