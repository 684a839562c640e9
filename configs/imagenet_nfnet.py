"""NFNet-F0 to F6 on ImageNet, as published.

    python -m nfnet_jax.train --config configs/imagenet_nfnet.py:f0

The argument names the variant, f0 to f6, and sets its image sizes, its RandAugment and,
for f6, SAM; dropout and stochastic depth come with the network. The rate follows the
batch: `--config.data.batch_size=1024` trains at a quarter of it. AGC covers what it
covers in the published code: all but the classifier's kernel.

Source: Brock, De, Smith and Simonyan 2021, "High-performance large-scale image
recognition without normalization", arXiv 2102.06171, and its code; f5 was also trained
with SAM (`--config.optim.sam.rho=0.05 --config.optim.sam.fraction=0.203125`).

Published top-1 accuracy in percent, NOT measured here: f0 83.6, f1 84.7, f2 85.1,
f3 85.7, f4 85.9, f5 86.0, f6 86.5 (with SAM).
"""

from nfnet_jax.config import choose
from nfnet_jax.config.recipes import imagenet_recipe

VARIANTS = {
    # side in training, in evaluation, RandAugment magnitude, SAM's ρ
    "f0": (192, 256, 5, 0.0),
    "f1": (224, 320, 10, 0.0),
    "f2": (256, 352, 10, 0.0),
    "f3": (320, 416, 15, 0.0),
    "f4": (384, 512, 15, 0.0),
    "f5": (416, 544, 15, 0.0),
    "f6": (448, 576, 15, 0.05),
}


def get_config(variant: str = "f0"):
    train_size, eval_size, magnitude, rho = choose(VARIANTS, variant)
    # Crops and flips, MixUp and CutMix, label smoothing, warm-up, parameter average.
    config = imagenet_recipe(f"nfnet_{variant}", train_size, eval_size)
    config.data.crop = "resize_crop_32"
    config.data.batch_size = 4096
    config.data.augment.randaugment.layers = 4
    config.data.augment.randaugment.magnitude = magnitude
    config.optim.learning_rate = 0.1
    config.optim.base_batch_size = 256
    config.optim.weight_decay = 2e-5
    config.optim.agc.clipping = 0.01
    config.optim.agc.exclude = ("classifier/kernel$",)
    config.optim.sam.rho = rho
    # The published 20 %, in whole examples on up to 64 devices.
    config.optim.sam.fraction = 13 / 64 if rho else 1.0
    config.train.epochs = 360.0
    config.train.dtype = "bfloat16"
    return config
