"""NF-ResNet-50 to 288 on ImageNet, after the published comparison of ResNets.

    python -m nfnet_jax.train --config configs/imagenet_nf_resnet.py:50

The argument is the depth: 50, 101, 152, 200 or 288. Batch, epochs and rate are those of
the comparison, the rest is the recipe of the NF-RegNets at their lowest weight decay.
The published code of the comparison mixes no images, keeps no average, decays weights
by 1e-4 and the rate to 0:

    --config.train.mixup=0 --config.train.cutmix=False --config.optim.ema_decay=0
    --config.optim.weight_decay=1e-4 --config.optim.schedule.final_fraction=0

Source: Brock, De and Smith 2021, "Characterizing signal propagation to close the
performance gap in unnormalized ResNets", arXiv 2101.08692, and its code.

What the paper reports is in its table of ResNets, for 50 and 288 layers. NOT measured
here.
"""

from nfnet_jax.config import choose
from nfnet_jax.config.recipes import imagenet_recipe

VARIANTS = {depth: f"nf_resnet{depth}" for depth in ("50", "101", "152", "200", "288")}


def get_config(depth: str = "50"):
    # Crops and flips, MixUp and CutMix, label smoothing, warm-up, parameter average.
    config = imagenet_recipe(choose(VARIANTS, depth), 224)
    config.data.crop = "crop_resize"
    config.data.batch_size = 1024
    config.optim.learning_rate = 0.1
    config.optim.base_batch_size = 256
    config.optim.weight_decay = 5e-5
    # Of 0.4, the peak at the published batch: the cosine ends at 0.001.
    config.optim.schedule.final_fraction = 0.0025
    config.optim.agc.clipping = 0.0
    config.train.epochs = 90.0
    return config
