"""NF-ResNet-50 to 288 on ImageNet, after the published comparison of ResNets.

    python -m nfnet_jax.train --config configs/imagenet_nf_resnet.py:50

The argument is the depth: 50, 101, 152, 200 or 288. Batch, epochs and rate are those of
the comparison, the rest is the recipe of the NF-RegNets at their lowest weight decay.
The published code of the comparison mixes no images, keeps no average, decays weights
by 1e-4 and the rate to 0:

    --config.train.mixup=0 --config.train.cutmix=False --config.optim.ema_decay=0
    --config.optim.weight_decay=1e-4 --config.optim.schedule.final_fraction=0

Source: Brock, De and Smith 2021, "Characterizing signal propagation to close the
performance gap in unnormalized ResNets" [SP], and its code.

What the paper reports is in its table of ResNets, for 50 and 288 layers. NOT measured
here.
"""

from nfnet_jax.config import base_config, choose

VARIANTS = {depth: f"nf_resnet{depth}" for depth in ("50", "101", "152", "200", "288")}


def get_config(depth: str = "50"):
    config = base_config()
    config.model.name = choose(VARIANTS, depth)
    config.name = f"imagenet_nf_resnet_{depth}"
    config.data.name = "tfds:imagenet2012"
    config.data.eval_split = "validation"
    config.data.image_size = 224
    config.data.crop = "crop_resize"
    config.data.batch_size = 1024
    config.data.eval_batch_size = 512
    config.data.augment.random_resized_crop = True
    config.data.augment.flip = True
    config.optim.learning_rate = 0.1
    config.optim.base_batch_size = 256
    config.optim.weight_decay = 5e-5
    config.optim.schedule.warmup_epochs = 5.0
    # Of 0.4, the peak at the published batch: the cosine ends at 0.001.
    config.optim.schedule.final_fraction = 0.0025
    config.optim.agc.clipping = 0.0
    config.optim.ema_decay = 0.99999
    config.train.epochs = 90.0
    config.train.label_smoothing = 0.1
    config.train.mixup = 0.2
    config.train.cutmix = True
    config.eval.every_epochs = 5.0
    config.checkpoint.every_epochs = 1.0
    return config
