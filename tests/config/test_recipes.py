"""The published recipes, typed in from the papers' tables, beside configs/."""

import pathlib
import re
from types import MappingProxyType

import jax
import jax.numpy as jnp
import pytest
from data_sets import refusal

import nfnet_jax
from nfnet_jax.config import leaves, load
from nfnet_jax.models.registry import create_model, find, list_models, model_options
from nfnet_jax.optim.factory import build_optimizer
from nfnet_jax.optim.groups import describe_groups, parameter_groups
from nfnet_jax.optim.tree import path_name
from nfnet_jax.training.experiment import Experiment, build_model
from nfnet_jax.training.timeline import make_timeline, peak_rate

FOLDER = pathlib.Path(nfnet_jax.__file__).parent.parent / "configs"
IMAGENET = 1_281_167


def read(file, overrides=MappingProxyType({})):
    return load(FOLDER / file, overrides)


SHARED = {
    "data.name": "tfds:imagenet2012",
    "data.train_split": "train",
    "data.eval_split": "validation",
    "data.augment.random_resized_crop": True,
    "data.augment.flip": True,
    "optim.name": "sgd",
    "optim.nesterov": True,
    "optim.momentum": 0.9,
    "optim.schedule.name": "cosine",
    "optim.schedule.warmup_epochs": 5,
    "optim.ema_decay": 0.99999,
    "optim.weight_decay_exclude": ("bias$", "gain$"),
    "train.label_smoothing": 0.1,
    "train.mixup": 0.2,
    "train.cutmix": True,
}
NFNET = {
    "data.batch_size": 4096,
    "data.crop": "resize_crop_32",
    "data.augment.randaugment.layers": 4,
    "optim.agc.clipping": 0.01,
    "optim.agc.eps": 1e-3,
    "optim.weight_decay": 2e-5,
    "optim.schedule.final_fraction": 0.0,
    "train.epochs": 360,
    "train.dtype": "bfloat16",
}
UNCLIPPED = {
    "data.batch_size": 1024,
    "data.crop": "crop_resize",
    "data.augment.randaugment.layers": 0,
    "optim.agc.clipping": 0.0,
    "optim.sam.rho": 0.0,
    "train.dtype": "float32",
}
# file: the rest of its recipe, peak rate and last rate at the published batch
RECIPES = {
    "imagenet_nfnet.py": (NFNET, 1.6, 0.0),
    "imagenet_nf_regnet.py": (UNCLIPPED | {"train.epochs": 360}, 0.4, 0.001),
    "imagenet_nf_resnet.py": (UNCLIPPED | {"train.epochs": 90}, 0.4, 0.001),
}
# train size, test size, dropout, RandAugment magnitude, SAM's ρ
NFNETS = {
    "f0": (192, 256, 0.2, 5, 0.0),
    "f1": (224, 320, 0.3, 10, 0.0),
    "f2": (256, 352, 0.4, 10, 0.0),
    "f3": (320, 416, 0.4, 15, 0.0),
    "f4": (384, 512, 0.5, 15, 0.0),
    "f5": (416, 544, 0.5, 15, 0.0),
    "f6": (448, 576, 0.5, 15, 0.05),
}
# train size, test size, dropout, weight decay
NF_REGNETS = {
    "b0": (192, 224, 0.2, 0.00005),
    "b1": (224, 256, 0.2, 0.00006),
    "b2": (240, 272, 0.3, 0.00007),
    "b3": (288, 320, 0.3, 0.00008),
    "b4": (320, 384, 0.4, 0.00009),
    "b5": (384, 456, 0.4, 0.0001),
}
NF_RESNETS = ("50", "101", "152", "200", "288")


def own_values():
    """Lists each variant with keys that its file sets, and options of its network."""
    for name, (size, eval_size, dropout, magnitude, rho) in NFNETS.items():
        yield (
            f"imagenet_nfnet.py:{name}",
            {
                "model.name": f"nfnet_{name}",
                "data.image_size": size,
                "data.eval_image_size": eval_size,
                "data.augment.randaugment.magnitude": magnitude,
                "optim.sam.rho": rho,
                "optim.sam.fraction": pytest.approx(0.2 if rho else 1.0, abs=0.005),
            },
            {"drop_rate": dropout, "stochastic_depth": 0.25, "activation": "gelu"},
        )
    for name, (size, eval_size, dropout, weight_decay) in NF_REGNETS.items():
        yield (
            f"imagenet_nf_regnet.py:{name}",
            {
                "model.name": f"nf_regnet_{name}",
                "data.image_size": size,
                "data.eval_image_size": eval_size,
                "optim.weight_decay": pytest.approx(weight_decay),
            },
            {"drop_rate": dropout, "stochastic_depth": 0.1},
        )
    for depth in NF_RESNETS:
        values = {
            "model.name": f"nf_resnet{depth}",
            "data.image_size": 224,
            "optim.weight_decay": pytest.approx(5e-5),
        }
        yield f"imagenet_nf_resnet.py:{depth}", values, {"stochastic_depth": 0.1}


@pytest.mark.parametrize(("file", "values", "options"), list(own_values()))
def test_what_a_variant_sets_itself(file, values, options):
    config = read(file)
    found = leaves(config)
    assert {key: found[key] for key in values} == values
    network = model_options(build_model(config, 1000).spec)
    assert {name: getattr(network, name) for name in options} == options
    assert find(config.model.name).crop == config.data.crop


@pytest.mark.parametrize("file", [file for file, *_ in own_values()])
def test_every_row_of_the_recipe_is_there(file):
    config = read(file)
    own, peak, last = RECIPES[file.partition(":")[0]]
    found = leaves(config)
    for key, value in (SHARED | own).items():
        assert found[key] == value, key
    plan = make_timeline(config, IMAGENET, 64)
    assert plan.peak_rate == pytest.approx(peak)
    fraction = config.optim.schedule.final_fraction
    assert plan.peak_rate * fraction == pytest.approx(last)
    epochs = own["train.epochs"]
    steps = IMAGENET * epochs / own["data.batch_size"]
    assert plan.steps == pytest.approx(steps, abs=1)
    assert plan.warmup_steps == round(5 * IMAGENET / own["data.batch_size"])


def test_rates_follow_the_batch_where_the_recipe_says_so():
    batch = {"data.batch_size": 512}
    assert peak_rate(read("imagenet_nfnet.py:f3", batch)) == pytest.approx(0.2)
    rate = {"optim.learning_rate": 0.2}
    assert peak_rate(read("imagenet_nfnet.py", batch | rate)) == pytest.approx(0.4)
    assert peak_rate(read("imagenet_nf_regnet.py", batch)) == pytest.approx(0.4)


FILES = sorted(path.name for path in FOLDER.glob("*.py"))


def abstract_params(model, size=64):
    images = jnp.zeros((1, size, size, 3))
    return jax.eval_shape(model.init, jax.random.key(0), images)["params"]


@pytest.mark.parametrize("file", FILES)
def test_every_file_builds_its_network_and_its_patterns_match(file):
    config = read(file)
    Experiment(config).check_config()
    assert config.name.startswith(file.removesuffix(".py"))
    size = min(64, config.data.image_size or 32)
    params = abstract_params(build_model(config, 10), size)
    assert describe_groups(config.optim, params)


def smallest_members() -> list[str]:
    """Smallest one of the names that differ in numbers only."""
    members: dict[str, str] = {}
    for name in list_models():
        numbers = [int(n) for n in re.findall(r"\d+", name)]
        kind = re.sub(r"\d+", "", name)
        other = [int(n) for n in re.findall(r"\d+", members.get(kind, "99999"))]
        members[kind] = name if numbers < other else members[kind]
    return sorted(members.values())


def build(config, params):
    groups = parameter_groups(config.optim, params)
    build_optimizer(config.optim, lambda step: 0.1, groups)
    return groups


@pytest.mark.parametrize("name", smallest_members())
def test_every_file_fits_the_networks_of_every_family(name):
    """Default patterns may match nothing: a network may lack gains or biases."""
    params = abstract_params(create_model(name, 10))
    paths = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for file in FILES:
        config = read(file, {"model.name": name})
        missing = [p for p in config.optim.freeze if not re.search(p, " ".join(paths))]
        if missing:
            # The whitening that is not to be trained is of one family.
            assert file == "cifar10_speedrun.py" and "stem/kernel" not in paths
            line = refusal(build, config, params)
            assert "optim.freeze: 'stem/kernel' matches" in line
            continue
        groups = build(config, params)
        # Whatever is loaded or built, what starts at 0 is free to leave it.
        if file != "imagenet_nfnet.py":
            mask = jax.tree.leaves(groups.agc)
            clipped = [p for p, hit in zip(paths, mask, strict=True) if hit]
            assert clipped and not any("skip_gain" in path for path in clipped)


def test_agc_covers_what_the_published_code_clips():
    config = read("imagenet_nfnet.py:f0")
    params = abstract_params(build_model(config, 1000))
    mask = parameter_groups(config.optim, params).agc
    flat = jax.tree_util.tree_leaves_with_path(mask)
    exempt = [path_name(path) for path, covered in flat if not covered]
    assert exempt == ["head/classifier/kernel"]


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("imagenet_nfnet.py:f9", "'f9', expected one of f0, f1, f2, f3, f4, f5, f6"),
        ("imagenet_nf_regnet.py:B0", "b4, b5; did you mean 'b0'?"),
        ("imagenet_nf_resnet.py:18", "'18', expected one of 50, 101, 152, 200, 288"),
    ],
)
def test_an_unknown_variant_is_one_clear_line(file, words):
    assert words in refusal(read, file)
