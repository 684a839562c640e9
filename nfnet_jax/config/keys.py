"""Every key of the config: its default, its meaning, its check."""

import dataclasses
import itertools
import re
from collections.abc import Callable
from typing import Any

from nfnet_jax.utils.paths import scheme_of

_OVERRIDES = "; unset: as the model defines it"
# Parameters and rates are float32: what that type cannot hold is no number.
_LIMIT = 2.0**128

BEST_METRICS: dict[str, Callable[..., Any]] = {
    "accuracy": max,
    "accuracy_ema": max,
    "loss": min,
    "loss_ema": min,
}
"""Scores of an evaluation, `_ema` of the averaged parameters, and what is best."""


@dataclasses.dataclass(frozen=True)
class Key:
    """A default (or the type of one that starts unset), a meaning, a check.

    `valid` gets a set value and tells whether it is one of `expected`.
    """

    default: Any
    meaning: str
    expected: str = "any value"
    valid: Callable[[Any], bool] = lambda value: True
    choices: tuple[str, ...] = ()

    @property
    def unset(self) -> bool:
        return isinstance(self.default, type)


def _number(default, meaning, low=0.0, high=_LIMIT, *, open_low=False, open_high=True):
    """A number between two bounds; neither nan nor infinite."""
    kind = "a whole number" if default is int or type(default) is int else "a number"
    left, right = "(["[not open_low], ")]"[not open_high]
    if high == _LIMIT:
        expected = f"{kind} {'above' if open_low else 'of at least'} {low:g}"
    else:
        expected = f"{kind} in {left}{low:g}, {high:.15g}{right}"

    def valid(value):
        above = value > low if open_low else value >= low
        below = value < high if open_high else value <= high
        return above and below

    return Key(default, meaning, expected, valid)


def _switch(default, meaning: str) -> Key:
    return Key(default, meaning, "true or false")


def _choice(default: str, meaning: str, *choices: str) -> Key:
    expected = f"one of {', '.join(choices)}"
    return Key(default, meaning, expected, choices.__contains__, choices)


def _text(default, meaning: str) -> Key:
    return Key(default, meaning, "a non-empty text", bool)


def _path(default, meaning: str) -> Key:
    """A path, in data.name behind the kind of the set."""

    def valid(value):
        return bool(value) and not scheme_of(value.removeprefix("folder:"))

    expected = "a non-empty text, in which a path is of this machine: no gs://, ..."
    return Key(default, meaning, expected, valid)


def _file_name(default: str, meaning: str) -> Key:
    expected = "a plain name of letters, digits, '_', '-' and '.'"
    pattern = re.compile(r"\w[\w.\-]*")
    return Key(default, meaning, expected, lambda value: bool(pattern.fullmatch(value)))


def _patterns(default: tuple[str, ...], meaning: str) -> Key:
    def valid(value):
        return all(isinstance(pattern, str) and pattern for pattern in value)

    expected = "a list of regular expressions such as ['bias$', 'gain$']"
    return Key(default, meaning, expected, valid)


def _increasing_shares(value) -> bool:
    ends = (0, *value, 1)
    return all(
        isinstance(right, int | float) and left < right
        for left, right in itertools.pairwise(ends)
    )


KEYS: dict[str, Key] = {
    "name": _file_name("run", "names the default work directory, runs/NAME"),
    "seed": _number(0, "of initialization, shuffling, augmentation, dropout", 0, 2**32),
    "model.name": _text("nf_wrn_16_2", "see nfnet_jax.list_models()"),
    "model.num_classes": _number(int, "logits; unset: the data set's classes", 1),
    "model.weights": _path(
        str,
        "to start from: a published name, a file, or the work directory of a run; "
        "unset: none",
    ),
    "model.activation": _text(str, "nonlinearity" + _OVERRIDES),
    "model.gamma": _text(str, "activation gain: exact, published or none" + _OVERRIDES),
    "model.alpha": _number(float, "scale of the branches" + _OVERRIDES, open_low=True),
    "model.beta": _text(
        str, "what divides a block's input: std, var, none" + _OVERRIDES
    ),
    "model.stochastic_depth": _number(float, "drop rate of blocks" + _OVERRIDES, 0, 1),
    "model.drop_rate": _number(
        float, "dropout before the classifier" + _OVERRIDES, 0, 1
    ),
    "model.se_ratio": _number(float, "squeeze-excite ratio, 0: none" + _OVERRIDES),
    "model.attention": _text(
        str, "what scales channels in a branch: se or eca" + _OVERRIDES
    ),
    "model.width_multiplier": _number(
        float, "of the widths of all stages" + _OVERRIDES, open_low=True
    ),
    "model.expansion": _number(
        float,
        "width inside a block, as a share of its width" + _OVERRIDES,
        open_low=True,
    ),
    "model.group_width": _number(
        int, "channels of a group in grouped convolutions" + _OVERRIDES, 1
    ),
    "model.skip_gain": _switch(
        bool, "False: no learned scalar on branches" + _OVERRIDES
    ),
    "model.raw_shortcut": _switch(
        bool, "True: projections read x instead of act(x) / β, an ablation" + _OVERRIDES
    ),
    "model.gamma_in_kernel": _switch(
        bool, "True: γ multiplies kernels, stem and projections too" + _OVERRIDES
    ),
    "model.pooled": _switch(
        bool, "True: projections of ResNets average 2x2 pixels" + _OVERRIDES
    ),
    "model.pool_gain": _number(
        float,
        "factor of pooled shortcuts, 2 keeps the variance of white noise" + _OVERRIDES,
        open_low=True,
    ),
    "model.weight_standardization": _switch(bool, "False: an ablation" + _OVERRIDES),
    "data.name": _path("digits", "digits, tfds:NAME or folder:PATH"),
    "data.dir": _path(str, "of TFDS sets; unset: TFDS_DATA_DIR or TFDS's default"),
    "data.train_split": _text("train", "by TFDS's syntax: train[10%:20%]+test"),
    "data.eval_split": _text("test", "by TFDS's syntax: train[90%:]"),
    "data.image_size": _number(
        int, "pixels of the side; unset: as stored (a folder needs it)", 1, 2**14
    ),
    "data.eval_image_size": _number(
        int, "pixels of the side in evaluation; unset: data.image_size", 1, 2**14
    ),
    "data.crop": _choice(
        "training",
        "of evaluation images that are resized: as in training, or a published form",
        "training",
        "resize_crop_32",
        "crop_resize",
    ),
    "data.batch_size": _number(128, "examples per update", 1),
    "data.eval_batch_size": _number(500, "examples per evaluation step", 1),
    "data.loader": _choice(
        "auto",
        "memory: decoded, on the devices; stream: decoded by workers as it is needed; "
        "auto: memory where a quarter of the machine's and of a device's is enough, "
        "unless resized images are to be cropped by random_resized_crop",
        "auto",
        "memory",
        "stream",
    ),
    "data.workers": _number(
        int, "processes of a stream, 0: this one; unset: one a core, at most 16", 0
    ),
    "data.max_bad_fraction": _number(
        0.01, "share of a split whose images may be broken", 0, 1
    ),
    "data.augment.random_resized_crop": _switch(
        False, "crops of 8 to 100 % of the area, aspect 3/4 to 4/3, resized"
    ),
    "data.augment.repeats": _number(1, "times that an example is drawn in a row", 1),
    "data.augment.crop_padding": _number(0, "pixels of mirrored padding around crops"),
    "data.augment.flip": _switch(False, "flip half of the images left to right"),
    "data.augment.alternate_flip": _switch(
        False, "flip each image in every other epoch instead of at random"
    ),
    "data.augment.randaugment.layers": _number(0, "distortions of an image; 0: none"),
    "data.augment.randaugment.magnitude": _number(
        10, "of each distortion", 0, 20, open_high=False
    ),
    "data.augment.cutout": _number(0, "side in pixels of the square set to the mean"),
    "data.augment.erasing": _number(
        0.0, "share of images with a rectangle set to the mean", 0, 1, open_high=False
    ),
    "optim.name": _choice("sgd", "update rule", "sgd", "adamw", "lamb", "muon"),
    "optim.muon.adam_share": _number(
        0.1, "rate of Adam, for all but convolution kernels, as a factor of Muon's"
    ),
    "optim.learning_rate": _number(0.1, "peak, for a batch of optim.base_batch_size"),
    "optim.base_batch_size": _number(
        int,
        "batch that the learning rate is for; with another data.batch_size it grows "
        "or shrinks in proportion; unset: never",
        1,
    ),
    "optim.momentum": _number(0.9, "of SGD", 0, 1),
    "optim.nesterov": _switch(True, "Nesterov's form of momentum, of SGD"),
    "optim.adam.b1": _number(0.9, "decay of AdamW's and LAMB's mean gradient", 0, 1),
    "optim.adam.b2": _number(0.999, "decay of their mean squared gradient", 0, 1),
    "optim.adam.eps": _number(1e-8, "added to its root", open_low=True),
    "optim.weight_decay": _number(
        5e-4,
        "times the parameter, added to SGD's gradient, to AdamW's and LAMB's update",
    ),
    "optim.weight_decay_exclude": _patterns(
        ("bias$", "gain$"), "parameters exempt from weight decay, by path"
    ),
    "optim.schedule.name": _choice(
        "cosine", "decay", "cosine", "linear", "step", "constant"
    ),
    "optim.schedule.warmup_epochs": _number(1.0, "of linear warm-up"),
    "optim.schedule.final_fraction": _number(
        0.0, "rate at the end, as a share of the peak", 0, 1, open_high=False
    ),
    "optim.schedule.boundaries": Key(
        (0.5, 0.75),
        "of the step schedule, as shares of the run",
        "a list of increasing numbers in (0, 1) such as [0.5, 0.75]",
        _increasing_shares,
    ),
    "optim.schedule.factor": _number(
        0.1, "what the step schedule multiplies by at each boundary", open_low=True
    ),
    "optim.sam.rho": _number(
        0.0, "length of sharpness-aware minimization's ascent step; 0: none"
    ),
    "optim.sam.fraction": _number(
        1.0, "of the batch, for that step", 0, 1, open_low=True, open_high=False
    ),
    "optim.agc.clipping": _number(0.1, "λ: largest gradient / weight norm; 0: no AGC"),
    "optim.agc.eps": _number(1e-3, "least weight norm that AGC assumes", open_low=True),
    "optim.agc.exclude": _patterns(
        ("classifier", "skip_gain"), "parameters exempt from AGC, by path"
    ),
    "optim.freeze": _patterns((), "parameters that are not trained, by path"),
    "optim.body_rate": _number(
        1.0, "learning rate of all but the classifier, as a factor", open_low=True
    ),
    "optim.ema_decay": _number(0.999, "of the parameter average; 0: no average", 0, 1),
    "optim.accumulate": _number(1, "microbatches that an update is computed in", 1),
    "train.epochs": _number(10.0, "passes over the training split", open_low=True),
    "train.steps": _number(int, "updates; set: overrides train.epochs", 1),
    "train.small_size": _number(
        int, "pixels of the side in the first part of a run; unset: no such part", 1
    ),
    "train.small_share": _number(
        0.5, "of the updates, seeing images of train.small_size", 0, 1, open_high=False
    ),
    "train.label_smoothing": _number(0.0, "share spread over all classes", 0, 1),
    "train.mixup": _number(
        0.0, "parameter of the Beta distribution of MixUp's ratio; 0: no MixUp"
    ),
    "train.cutmix": _switch(False, "CutMix; with MixUp too, half of the batch each"),
    "train.dtype": _choice("float32", "of activations", "float32", "bfloat16"),
    "train.on_nan": _choice(
        "stop",
        "where loss or gradient are not finite: end the run, leave the update out, or "
        "go back to the last checkpoint and on without the batches up to that one",
        "stop",
        "skip",
        "rewind",
    ),
    "train.remat": _choice(
        "none",
        "block: gradients compute the inside of every block again, which takes a third "
        "more computation and a fraction of the memory",
        "none",
        "block",
    ),
    "parallel.mode": _choice(
        "jit", "one program over all devices, or one on each (pmap)", "jit", "pmap"
    ),
    "parallel.fsdp": _switch(
        False, "split parameters, optimizer state and average over the devices"
    ),
    "eval.every_epochs": _number(1.0, "between evaluations; 0: at the end only"),
    "checkpoint.every_epochs": _number(0.0, "between checkpoints; 0: at the end only"),
    "checkpoint.every_steps": _number(int, "between checkpoints too; unset: none", 1),
    "checkpoint.every_minutes": _number(
        10.0, "between checkpoints too, whatever the clock says; 0: none"
    ),
    "checkpoint.keep": _number(2, "last checkpoints that are kept", 1),
    "checkpoint.best_metric": Key(
        str,
        "whose best checkpoint is kept too, of evaluations; unset: none",
        f"one of {', '.join(BEST_METRICS)}",
        BEST_METRICS.__contains__,
        tuple(BEST_METRICS),
    ),
    "log.every_steps": _number(50, "between lines of metrics", 1),
    "log.tensorboard": _switch(True, "write TensorBoard events"),
    "log.wandb": _switch(False, "send metrics to Weights & Biases"),
    "log.profile_steps": _number(
        0, "steps that JAX's profiler traces into WORKDIR/profile; 0: none"
    ),
    "log.gradient_ratios": _switch(
        False, "write gradient / weight norms of all layers every log.every_steps"
    ),
}
