"""NF-ResNet-50 from scratch on a folder of images, of any size.

    python -m nfnet_jax.train --config configs/folder.py:PATH_OF_THE_FOLDER

PATH holds a directory of images per class, or such directories in `train` and `test`.
With few images per class, configs/finetune.py gets further in less time.

Not measured yet. The recipe is that of the NFNets (Brock, De, Smith, Simonyan 2021b,
"High-performance large-scale image recognition without normalization", arXiv
2102.06171) for a smaller batch, with AGC as loose as that allows and without
RandAugment.
"""

from nfnet_jax.config import base_config


def get_config(folder: str = "images"):
    config = base_config()
    config.name = "folder"
    config.model.name = "nf_resnet50"
    config.data.name = f"folder:{folder}"
    config.data.image_size = 224
    config.data.crop = "crop_resize"
    config.data.batch_size = 256
    config.data.eval_batch_size = 256
    config.data.augment.random_resized_crop = True
    config.data.augment.flip = True
    config.optim.learning_rate = 0.1
    config.optim.base_batch_size = 256
    config.optim.weight_decay = 5e-5
    config.optim.schedule.warmup_epochs = 5.0
    config.train.epochs = 90.0
    config.train.label_smoothing = 0.1
    config.train.mixup = 0.2
    config.train.cutmix = True
    config.train.dtype = "bfloat16"
    config.eval.every_epochs = 1.0
    config.checkpoint.every_epochs = 1.0
    return config
