"""Keys of the config: default, meaning and valid values of each.

A key whose default is None starts unset.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from nfnet_jax.config.kinds import (
    Choice,
    FileName,
    Float,
    Int,
    Key,
    Path,
    Patterns,
    Shares,
    Switch,
    Text,
)

BEST_METRICS: dict[str, Callable[..., Any]] = {
    "accuracy": max,
    "accuracy_ema": max,
    "loss": min,
    "loss_ema": min,
}
"""Scores of an evaluation, `_ema` of the averaged parameters, and which is best."""

ACTIVATIONS = (
    *("celu", "elu", "gelu", "gelu_erf", "identity", "leaky_relu", "log_sigmoid"),
    *("relu", "relu6", "selu", "sigmoid", "silu", "soft_sign", "softplus", "tanh"),
)

SECTIONS: dict[str, Any] = dict(
    name=FileName("run", "name of the default work directory, runs/NAME"),
    seed=Int(
        0,
        "seed of initialization, shuffling, augmentation and dropout",
        "[0, 4294967296)",
    ),
    model=dict(
        name=Text("nf_wrn_16_2", "network, one of nfnet_jax.list_models()"),
        num_classes=Int(None, "logits; unset: the data set's classes", "[1, inf)"),
        weights=Path(
            None,
            "weights to start from: a published name, a file, or the work directory of "
            "a run; unset: none",
        ),
        activation=Choice(None, "nonlinearity", ACTIVATIONS),
        gamma=Choice(None, "activation gain γ", ("exact", "published", "none")),
        alpha=Float(None, "scale α of the residual branches", "(0, inf)"),
        beta=Choice(
            None,
            "divisor β of a block's input: its predicted std, its variance or none",
            ("std", "var", "none"),
        ),
        stochastic_depth=Float(
            None,
            "stochastic depth: block i of B is dropped at this rate times i / B",
            "[0, 1)",
        ),
        drop_rate=Float(None, "dropout before the classifier", "[0, 1)"),
        se_ratio=Float(None, "squeeze-excite ratio, 0: none"),
        attention=Choice(
            None,
            "channel attention in the branches: squeeze-excite or efficient",
            ("se", "eca"),
        ),
        width_multiplier=Float(None, "factor of the widths of all stages", "(0, inf)"),
        expansion=Float(
            None, "width inside a block, as a share of the block's width", "(0, inf)"
        ),
        group_width=Int(
            None, "channels of a group in grouped convolutions", "[1, inf)"
        ),
        skip_gain=Switch(None, "False: no learned scalar on residual branches"),
        raw_shortcut=Switch(
            None, "True: projection shortcuts read x instead of act(x) / β, an ablation"
        ),
        gamma_in_kernel=Switch(
            None, "True: γ multiplies kernels, stem and projections too"
        ),
        pooled=Switch(None, "True: projection shortcuts average 2x2 pixels"),
        pool_gain=Float(
            None,
            "factor of pooled shortcuts; 2 keeps the variance of white noise",
            "(0, inf)",
        ),
        weight_standardization=Switch(None, "False: plain convolutions, an ablation"),
    ),
    data=dict(
        name=Path("digits", "data set: digits, tfds:NAME or folder:PATH"),
        dir=Path(
            None, "directory of TFDS sets; unset: TFDS_DATA_DIR or TFDS's default"
        ),
        train_split=Text(
            "train", "training split in TFDS's syntax: train[10%:20%]+test"
        ),
        eval_split=Text("test", "evaluation split in TFDS's syntax: train[90%:]"),
        image_size=Int(
            None,
            "side of the images in pixels; unset: as stored (a folder needs it)",
            "[1, 16384)",
        ),
        eval_image_size=Int(
            None,
            "side of the images in evaluation, in pixels; unset: data.image_size",
            "[1, 16384)",
        ),
        crop=Choice(
            "training",
            "crop of evaluation images that are resized: as in training, or a "
            "published form",
            ("training", "resize_crop_32", "crop_resize"),
        ),
        batch_size=Int(128, "examples per update", "[1, inf)"),
        eval_batch_size=Int(500, "examples per evaluation step", "[1, inf)"),
        loader=Choice(
            "auto",
            "memory: decoded, on the devices; stream: decoded by workers as it is "
            "needed; auto: memory where a quarter of the machine's and of a device's "
            "is enough, unless resized images are to be cropped by random_resized_crop",
            ("auto", "memory", "stream"),
        ),
        workers=Int(
            None,
            "processes that decode a stream, 0: none but this one; unset: one a core, "
            "at most 16",
        ),
        max_bad_fraction=Float(
            0.01, "share of a split whose images may be broken", "[0, 1)"
        ),
        augment=dict(
            random_resized_crop=Switch(
                False, "crops of 8 to 100 % of the area, aspect 3/4 to 4/3, resized"
            ),
            repeats=Int(1, "times that an example is drawn in a row", "[1, inf)"),
            crop_padding=Int(0, "pixels of mirrored padding around random crops"),
            flip=Switch(False, "flip half of the images left to right"),
            alternate_flip=Switch(
                False, "flip each image in every other epoch instead of at random"
            ),
            randaugment=dict(
                layers=Int(0, "RandAugment's distortions of an image; 0: none"),
                magnitude=Int(
                    10, "magnitude of each of RandAugment's distortions", "[0, 20]"
                ),
            ),
            cutout=Int(0, "side in pixels of the square set to the mean; 0: none"),
            erasing=Float(
                0.0, "share of images with a rectangle set to the mean", "[0, 1]"
            ),
        ),
    ),
    optim=dict(
        name=Choice("sgd", "update rule", ("sgd", "adamw", "lamb", "muon")),
        muon=dict(
            adam_share=Float(
                0.1,
                "rate of Adam, for all but convolution kernels, as a factor of Muon's",
            )
        ),
        learning_rate=Float(
            0.1, "peak learning rate, for a batch of optim.base_batch_size"
        ),
        base_batch_size=Int(
            None,
            "batch that the learning rate is for; with another data.batch_size it "
            "grows or shrinks in proportion; unset: never",
            "[1, inf)",
        ),
        momentum=Float(0.9, "momentum of SGD and Muon", "[0, 1)"),
        nesterov=Switch(True, "Nesterov's form of momentum, in SGD and Muon"),
        adam=dict(
            b1=Float(0.9, "β₁ of AdamW and LAMB: decay of the first moment", "[0, 1)"),
            b2=Float(
                0.999, "β₂ of AdamW and LAMB: decay of the second moment", "[0, 1)"
            ),
            eps=Float(
                1e-8,
                "ε of AdamW and LAMB, added to the root of the second moment",
                "(0, inf)",
            ),
        ),
        weight_decay=Float(
            5e-4,
            "factor of the parameter in SGD's and Muon's gradient, in AdamW's and "
            "LAMB's update",
        ),
        weight_decay_exclude=Patterns(
            ("bias$", "gain$"), "parameters exempt from weight decay, by path"
        ),
        schedule=dict(
            name=Choice(
                "cosine",
                "decay of the learning rate",
                ("cosine", "linear", "step", "constant"),
            ),
            warmup_epochs=Float(1.0, "epochs of linear warm-up"),
            final_fraction=Float(
                0.0, "learning rate at the end, as a share of the peak", "[0, 1]"
            ),
            boundaries=Shares(
                (0.5, 0.75),
                "places where the step schedule drops, as shares of the run",
            ),
            factor=Float(
                0.1, "factor of the step schedule at each boundary", "(0, inf)"
            ),
        ),
        sam=dict(
            rho=Float(
                0.0, "length ρ of sharpness-aware minimization's ascent step; 0: none"
            ),
            fraction=Float(
                1.0,
                "share of the batch in sharpness-aware minimization's ascent step",
                "(0, 1]",
            ),
        ),
        agc=dict(
            clipping=Float(
                0.1, "λ of AGC: largest gradient norm / weight norm; 0: no AGC"
            ),
            eps=Float(1e-3, "ε of AGC: least weight norm that is assumed", "(0, inf)"),
            exclude=Patterns(
                ("classifier", "skip_gain"), "parameters exempt from AGC, by path"
            ),
        ),
        freeze=Patterns((), "parameters that are not trained, by path"),
        body_rate=Float(
            1.0,
            "learning rate of all but the classifier, as a factor of the classifier's",
            "(0, inf)",
        ),
        ema_decay=Float(
            0.999, "decay of the average of the parameters; 0: no average", "[0, 1)"
        ),
        accumulate=Int(1, "microbatches that an update is computed in", "[1, inf)"),
    ),
    train=dict(
        epochs=Float(10.0, "passes over the training split", "(0, inf)"),
        steps=Int(None, "updates of the run; unset: train.epochs", "[1, inf)"),
        small_size=Int(
            None,
            "side of the images in the first part of a run, in pixels; unset: no such "
            "part",
            "[1, inf)",
        ),
        small_share=Float(
            0.5, "share of the updates that see images of train.small_size", "[0, 1]"
        ),
        label_smoothing=Float(
            0.0, "share of a label that is spread over all classes", "[0, 1)"
        ),
        mixup=Float(
            0.0, "parameter of the Beta distribution of MixUp's ratio; 0: no MixUp"
        ),
        cutmix=Switch(False, "CutMix; with MixUp too, half of the batch each"),
        dtype=Choice("float32", "dtype of the activations", ("float32", "bfloat16")),
        on_nan=Choice(
            "stop",
            "where loss or gradient are not finite: end the run, leave the update out, "
            "or go back to the last checkpoint and on without the batches up to that "
            "one",
            ("stop", "skip", "rewind"),
        ),
        remat=Choice(
            "none",
            "block: gradients compute the inside of every block again, which takes a "
            "third more computation and a fraction of the memory",
            ("none", "block"),
        ),
    ),
    parallel=dict(
        mode=Choice(
            "jit",
            "one program over all devices, or one on each (pmap)",
            ("jit", "pmap"),
        ),
        fsdp=Switch(
            False, "split parameters, optimizer state and average over the devices"
        ),
    ),
    eval=dict(
        every_epochs=Float(1.0, "epochs between evaluations; 0: at the end only")
    ),
    checkpoint=dict(
        every_epochs=Float(0.0, "epochs between checkpoints; 0: at the end only"),
        every_steps=Int(
            None, "steps between further checkpoints; unset: none", "[1, inf)"
        ),
        every_minutes=Float(10.0, "minutes between further checkpoints; 0: none"),
        keep=Int(2, "number of last checkpoints that are kept", "[1, inf)"),
        best_metric=Choice(
            None,
            "score whose best checkpoint is kept too; unset: none",
            tuple(BEST_METRICS),
        ),
    ),
    log=dict(
        every_steps=Int(50, "steps between lines of metrics", "[1, inf)"),
        tensorboard=Switch(True, "write TensorBoard events"),
        wandb=Switch(False, "send metrics to Weights & Biases"),
        profile_steps=Int(
            0, "steps that JAX's profiler traces into WORKDIR/profile; 0: none"
        ),
        gradient_ratios=Switch(
            False, "write gradient / weight norms of all layers every log.every_steps"
        ),
    ),
)
"""The config's sections, as a config file sees them."""


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Key]:
    keys: dict[str, Key] = {}
    for name, entry in section.items():
        if isinstance(entry, dict):
            keys |= _flat(entry, f"{prefix}{name}.")
        elif entry.default is None and "unset" not in entry.meaning:
            meaning = f"{entry.meaning}; unset: as the model defines it"
            keys[prefix + name] = dataclasses.replace(entry, meaning=meaning)
        else:
            keys[prefix + name] = entry
    return keys


KEYS = _flat(SECTIONS)
"""Keys by path: {"optim.learning_rate": Float(0.1, ...), ...}."""
