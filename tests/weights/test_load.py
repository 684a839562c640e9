"""Networks from files of published weights, and from a server on loopback."""

import pickle

import jax
import numpy as np
import pytest
from perturbed import perturbed
from safetensors.numpy import save_file

from nfnet_jax import create_model
from nfnet_jax.config import base_config
from nfnet_jax.training.pretrained import merge_pretrained
from nfnet_jax.training.trained import load_weights
from nfnet_jax.utils.download import RemoteFile
from nfnet_jax.utils.errors import UserError
from nfnet_jax.weights import load as pretrained
from nfnet_jax.weights.haiku import from_haiku, to_haiku
from nfnet_jax.weights.load import PUBLISHED, load_pretrained
from nfnet_jax.weights.timm import to_timm

WIDTHS = {"width_multiplier": 0.125, "group_width": 8}
OPTIONS = {"depths": (1, 1, 1, 1), **WIDTHS}
"""Makes a small network out of a published NFNet."""


def network(name, classes=7, **options):
    model = create_model(name, classes, **options)
    return model, perturbed(model, (32, 32, 3))


@pytest.fixture(scope="module")
def in_haiku():
    """A model, its parameters, and these in the published Haiku naming."""
    model, params = network("nfnet_f0", gamma="published", **OPTIONS)
    return model, params, to_haiku(params, model)


@pytest.fixture(scope="module")
def in_timm():
    """A model, its parameters, and these as a state dict in timm's naming."""
    model, params = network("dm_nfnet_f0", **OPTIONS)
    return model, params, to_timm(params, model)


@pytest.fixture(scope="module")
def in_timm_deep():
    """A model as deep as the published one, its parameters and state dict."""
    model, params = network("dm_nfnet_f0", **WIDTHS)
    return model, params, to_timm(params, model)


@pytest.fixture
def no_search(monkeypatch):
    """Skips the search for another network, which takes a second each."""
    monkeypatch.setattr(pretrained, "_another_model", lambda *_: "")


@pytest.fixture
def load(tmp_path):
    """load(weights, **options): a model and its parameters from a file of `weights`."""

    def load(weights, name="nfnet_f0", **options):
        path = tmp_path / "weights"
        if any(isinstance(value, dict) for value in weights.values()):
            path.write_bytes(pickle.dumps(weights, protocol=2))
        else:
            save_file(weights, path)
        return load_pretrained(name, path, **OPTIONS, **options)

    return load


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def message(load, *arguments, **options) -> str:
    with pytest.raises(UserError) as error:
        load(*arguments, **options)
    text = str(error.value)
    assert "\n" not in text and len(text) < 700
    return text


def test_the_naming_decides_the_form_of_the_network(load, in_haiku, in_timm, tmp_path):
    for model, params, weights in (in_haiku, in_timm):
        found, loaded = load(weights)
        assert found.spec.name == model.spec.name
        assert dict(found.spec.overrides) == dict(model.spec.overrides)
        assert_equal(loaded, params)
    model, params = network("timm_nf_resnet50", width_multiplier=0.125)
    path = tmp_path / "resnet"
    save_file(to_timm(params, model), path)
    found, loaded = load_pretrained("nf_resnet50", path, width_multiplier=0.125)
    assert found.spec == model.spec
    assert_equal(loaded, params)


def test_another_number_of_classes_gets_a_new_head(load, in_haiku):
    _, params, tree = in_haiku
    model, changed = load(tree, num_classes=3)
    head, new = params["head"]["classifier"], changed["head"].pop("classifier")
    assert model.spec.num_classes == 3
    assert new["kernel"].shape == (len(head["kernel"]), 3) and not new["bias"].any()
    assert 0.005 < new["kernel"].std() < 0.02
    kept = {**params, "head": {"final_conv": params["head"]["final_conv"]}}
    assert_equal(changed, kept)


PREFIXES = ("module.", "model.", "_orig_mod.", "module._orig_mod.", "ema.x/", "a:")


def test_a_common_prefix_of_all_names_is_left_out(load, in_timm):
    model, params, state = in_timm
    for prefix in PREFIXES:
        found, loaded = load({prefix + name: array for name, array in state.items()})
        assert found.spec == model.spec
        assert_equal(loaded, params)


def test_a_common_prefix_of_all_modules_is_left_out(load, in_haiku, no_search):
    model, params, tree = in_haiku
    for wrap in ("params/", "state_dict_ema/model/"):
        wrapped = {wrap + module: own for module, own in tree.items()}
        assert_equal(from_haiku(wrapped, model), params)
    _, found = load({"params": tree, "state": {}})
    assert_equal(found, params)
    assert "'ema/' before" in message(load, {"params": tree, "ema": tree})


def test_no_part_of_a_file_is_taken_for_all_of_it(load, in_timm, no_search):
    """Two networks, one whose names begin in two ways, and one with something else."""
    _, _, state = in_timm
    both = {
        f"{p}.{n}": a
        for p in ("state_dict", "state_dict_ema")
        for n, a in state.items()
    }
    text = message(load, both)
    assert f"'state_dict.' before {len(state)}, 'state_dict_ema.' before" in text
    mixed = {("model." if "conv1" in n else "") + n: a for n, a in state.items()}
    assert "begin in 2 ways, '' before" in message(load, mixed)
    more = {f"module.{n}": a for n, a in state.items()} | {"n_averaged": np.ones(1)}
    text = message(load, more)
    assert "1 unknown parameters for this model: n_averaged" in text
    text = message(load, {n.replace("fc1", "fcl"): a for n, a in state.items()})
    assert "attn_last.fcl.bias" in text
    assert "did you mean 'stages.0.0.attn_last.fc1" in text


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_without_a_classifier(load, in_timm, no_search, prefix):
    _, params, state = in_timm
    body = {prefix + n: a for n, a in state.items() if not n.startswith("head.fc.")}
    model, loaded = load(body, num_classes=3)
    assert model.spec.num_classes == 3
    classifier = loaded["head"].pop("classifier")
    features = len(params["head"]["classifier"]["kernel"])
    assert classifier["kernel"].shape == (features, 3) and not classifier["bias"].any()
    _, headless = load(body, headless=True)
    expected = {**params, "head": {"final_conv": params["head"]["final_conv"]}}
    for found in (loaded, headless):
        assert_equal(found, expected)
    text = message(load, body)
    assert "without a classifier, expected num_classes" in text
    del body[f"{prefix}final_conv.bias"]
    assert "1 missing" in message(load, body, num_classes=3)


def test_a_training_starts_from_weights_without_a_classifier(tmp_path, in_timm_deep):
    _, params, state = in_timm_deep
    body = {n: a for n, a in state.items() if not n.startswith("head.fc.")}
    save_file(body, tmp_path / "w.safetensors")
    config = base_config()
    config.model.name = "nfnet_f0"
    config.model.weights = str(tmp_path / "w.safetensors")
    config.model.update(WIDTHS)
    start = load_weights(config)
    # Even a head for as many classes as the file was converted with, 1, is new.
    for classes in (1, 7):
        _, own = network("dm_nfnet_f0", classes, **WIDTHS)
        names = tuple(map(str, range(classes)))
        found, _, origin = merge_pretrained(start, own, {}, "w", names)
        assert "the classifier is new" in origin
        head = {**params["head"], "classifier": own["head"]["classifier"]}
        assert_equal(found, {**params, "head": head})


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_by_name(
    load, in_timm, no_search, wrong
):
    _, _, state = in_timm
    name = np.random.RandomState(0).choice(sorted(state))
    broken = state | {name: state[name].copy()}
    broken[name].flat[-1] = wrong
    text = message(load, broken)
    assert f"1 not finite parameters for this model: {name}" in text


def test_other_forms_of_the_network_are_named(load, in_timm, no_search):
    _, _, state = in_timm
    gray = state | {"stem.conv1.weight": state["stem.conv1.weight"][:, :1].copy()}
    assert "(they are for images of 1 channels, not 3)" in message(load, gray)
    small = {n: a.astype(np.int8) for n, a in state.items()}
    assert "head.fc.bias of int8, expected floats" in message(load, small)


def test_the_model_of_the_weights_is_suggested(tmp_path, in_timm_deep):
    path = tmp_path / "w.safetensors"
    save_file(in_timm_deep[2], path)
    text = message(load_pretrained, "nfnet_f1", path, **WIDTHS)
    assert "did you mean the model 'dm_nfnet_f0'?" in text


def test_files_of_other_networks_are_refused(load, in_haiku, no_search, tmp_path):
    text = message(load, in_haiku[2], "nfnet_f1", se_ratio=0)
    assert str(tmp_path / "weights") in text and "'nfnet_f1'" in text
    assert "unknown" in text and "NFNet/~/nf_block" in text
    text = message(load, {"w": np.ones(3, np.float32)})
    assert "1 unknown parameters" in text and "expected names such as" in text
    (tmp_path / "w.npz").write_bytes(b"PK")
    assert "unknown format" in message(load_pretrained, "nfnet_f0", tmp_path / "w.npz")


def test_a_path_without_its_ending_is_completed_in_the_message(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("best.safetensors", "folder/model.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for path, meant in (
        ("best", "best.safetensors"),
        ("folder", "folder/model.safetensors"),
        ("folder/model", "folder/model.safetensors"),
    ):
        text = message(load_pretrained, "nfnet_f0", path)
        assert f"did you mean {meant!r}?" in text


def test_names_of_no_weights_are_refused():
    text = message(load_pretrained, "nfnet_f0", "nfnet-f0")
    assert "did you mean 'nfnet_f0'" in text
    assert "no such file" in message(load_pretrained, "nfnet_f0", "weights/f0.npz")
    with pytest.raises(ValueError, match="did you mean 'nfnet_f0'"):
        load_pretrained("nfnet_f00", "nfnet_f0")


# --- By name ------------------------------------------------------------------------


def test_by_name_weights_are_downloaded_once(tmp_path, in_haiku, serve, monkeypatch):
    _, params, tree = in_haiku
    content = pickle.dumps(tree)
    server = serve(content, cuts=[len(content) // 2])
    monkeypatch.setitem(PUBLISHED, "nfnet_f0", server.file("F0_haiku.npz"))
    monkeypatch.setenv("NFNET_JAX_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        _, found = load_pretrained("nfnet_f0", "nfnet_f0", **OPTIONS)
        assert_equal(found, params)
    assert server.asked == [None, f"bytes={len(content) // 2}-"]
    assert (tmp_path / "cache" / "weights" / "F0_haiku.npz").read_bytes() == content


def test_offline_the_message_names_the_place_for_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("NFNET_JAX_CACHE", str(tmp_path))
    remote = RemoteFile("http://127.0.0.1:9/F0_haiku.npz")
    monkeypatch.setitem(PUBLISHED, "nfnet_f0", remote)
    text = message(load_pretrained, "nfnet_f0", "nfnet_f0")
    assert remote.url in text and str(tmp_path / "weights" / "F0_haiku.npz") in text


def test_every_published_network_exists():
    for name, remote in PUBLISHED.items():
        assert create_model(name, 1000).spec.name == name
        assert remote.url.startswith("https://")
