"""NF-RegNet-B0 to B5 on ImageNet, as published.

    python -m nfnet_jax.train --config configs/imagenet_nf_regnet.py:b0

The argument names the variant, b0 to b5, and sets its image sizes and weight decay;
dropout and stochastic depth come with the network. The peak rate is 0.4 for the
published batch of 1024; with another batch, set `--config.optim.learning_rate` too.

Source: Brock, De and Smith 2021, "Characterizing signal propagation to close the
performance gap in unnormalized ResNets", arXiv 2101.08692, and its code.

What the paper reports is in its table of NF-RegNets. NOT measured here.
"""

from nfnet_jax.config import choose
from nfnet_jax.config.recipes import imagenet_recipe

VARIANTS = {
    # side in training, in evaluation, weight decay
    "b0": (192, 224, 5e-5),
    "b1": (224, 256, 6e-5),
    "b2": (240, 272, 7e-5),
    "b3": (288, 320, 8e-5),
    "b4": (320, 384, 9e-5),
    "b5": (384, 456, 1e-4),
}


def get_config(variant: str = "b0"):
    train_size, eval_size, weight_decay = choose(VARIANTS, variant)
    # Crops and flips, MixUp and CutMix, label smoothing, warm-up, parameter average.
    config = imagenet_recipe(f"nf_regnet_{variant}", train_size, eval_size)
    config.data.crop = "crop_resize"
    config.data.batch_size = 1024
    config.optim.learning_rate = 0.4
    config.optim.weight_decay = weight_decay
    # Of 0.4: the cosine ends at 0.001.
    config.optim.schedule.final_fraction = 0.0025
    config.optim.agc.clipping = 0.0
    config.train.epochs = 360.0
    return config
