"""Fine-tuning NF-ResNet-50 on a folder of images.

    python -m nfnet_jax.train --config configs/finetune.py:PATH_OF_THE_FOLDER

PATH holds a directory of images per class, or such directories in `train` and `test`.
The ImageNet weights are downloaded once; only the classifier is new. To train nothing
else, which is faster:

    --config.optim.freeze=stem,stages_ --config.optim.agc.clipping=0

To start from a run of one's own instead:

    --config.model.weights=runs/NAME --config.model.name=NAME_OF_ITS_MODEL

Not measured yet.
"""

from nfnet_jax.config import base_config


def get_config(folder: str = "images"):
    config = base_config()
    config.name = "finetune"
    config.model.name = "nf_resnet50"
    config.model.weights = "timm_nf_resnet50"
    config.data.name = f"folder:{folder}"
    # The network's own is 256; 224 is a quarter cheaper.
    config.data.image_size = 224
    config.data.batch_size = 32
    config.data.eval_batch_size = 100
    config.data.augment.crop_padding = 16
    config.data.augment.flip = True
    config.optim.learning_rate = 0.02
    config.optim.body_rate = 0.1
    config.optim.weight_decay = 1e-5
    config.optim.agc.clipping = 0.02
    config.optim.ema_decay = 0.99
    config.train.epochs = 8.0
    config.train.label_smoothing = 0.1
    return config
