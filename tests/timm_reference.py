"""Logits of timm with parameters that can be made without it.

    python tests/timm_reference.py

needs PyTorch and timm, and writes tests/reference_outputs/timm.npz: logits of two
images, `MODEL_SIZE` each, evaluation mode, float32 on a CPU, timm 1.0.31.
"""

import pathlib
import zlib

import numpy as np

OUTPUT = pathlib.Path(__file__).parent / "reference_outputs" / "timm.npz"
MODELS = (
    "dm_nfnet_f0",
    "nfnet_l0",
    "eca_nfnet_l0",
    "nf_regnet_b1",
    "nf_resnet50",
    "nf_seresnet50",
)
SIZES = (64, 65)


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The parameter `name` of a state dict, the same for everyone who asks."""
    normal = np.random.RandomState(zlib.crc32(name.encode())).standard_normal
    n = np.asarray(normal(shape))
    if name.endswith("skipinit_gain"):
        n = 0.5 + 0.25 * n
    elif name.endswith("gain"):
        n = 1 + 0.1 * n
    elif name.endswith("weight"):
        n = n / np.sqrt(np.prod(shape[1:]))
    else:
        n = 0.1 * n
    return np.asarray(n, np.float32)


def images(size: int) -> np.ndarray:
    """[2, size, size, 3]"""
    shape = (2, size, size, 3)
    return np.random.RandomState(0).standard_normal(shape).astype(np.float32)


def logits(name: str, size: int) -> np.ndarray:
    """Logits of timm's network `name` for `images(size)`."""
    import timm
    import torch

    model = timm.create_model(name).eval()
    state = {
        key: torch.from_numpy(fill(key, tuple(value.shape)))
        for key, value in model.state_dict().items()
    }
    model.load_state_dict(state)
    with torch.no_grad():
        return model(torch.from_numpy(images(size)).permute(0, 3, 1, 2)).numpy()


if __name__ == "__main__":
    np.savez(OUTPUT, **{f"{n}_{s}": logits(n, s) for n in MODELS for s in SIZES})
