"""Outputs of the published reference code, and the parameters that they belong to."""

import functools
import json
import pathlib
import zlib

import numpy as np

from nfnet_jax.models.network import Network
from nfnet_jax.models.registry import create_model

GOLDEN = pathlib.Path(__file__).parent / "reference_outputs"
OPTIONS = {
    "nf_resnet50_64": {"gamma": "published"},
    "nf_seresnet50_65": {"gamma": "published", "se_ratio": 0.25, "activation": "silu"},
    "nfnet_f0_64": {"gamma": "published"},
    "nf_regnet_b0_64": {"gamma": "published"},
    "skipinit_resnet50_64": {},
    "fixup_resnet50_64": {},
}
"""Overrides that make this project's networks those of the files."""


def model_of(name: str) -> Network:
    """Returns the network whose outputs the file holds."""
    model = name.rpartition("_")[0].replace("nf_seresnet50", "nf_resnet50")
    return create_model(model, 1000, **OPTIONS[name])


def load(name: str) -> tuple[dict, np.ndarray, dict[str, np.ndarray]]:
    """Haiku tree, images, reference outputs."""
    shapes = json.loads((GOLDEN / f"{name}.params.json").read_text())
    tree = {
        module: {name: _fill(module, name, tuple(shape)) for name, shape in own.items()}
        for module, own in shapes.items()
    }
    size = int(name.rsplit("_", 1)[1])
    images = np.random.RandomState(0).standard_normal((2, size, size, 3))
    return tree, images.astype(np.float32), dict(np.load(GOLDEN / f"{name}.npz"))


def _fill(module: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    normal = np.random.RandomState(zlib.crc32(f"{module}:{name}".encode()))
    n = np.asarray(normal.standard_normal(shape))
    rules = {
        "w": lambda: n / np.sqrt(np.prod(shape[:-1])),
        "gain": lambda: 1 + 0.1 * n,
        "skip_gain": lambda: 0.5 + 0.25 * n,
    }
    return rules.get(name, functools.partial(np.multiply, 0.1, n))().astype(np.float32)
