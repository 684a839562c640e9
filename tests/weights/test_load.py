"""Networks from files of published weights, and from a server on loopback."""

import pickle

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import timm_reference
from safetensors.numpy import save_file

from nfnet_jax import create_model
from nfnet_jax.config import base_config
from nfnet_jax.train import load_weights
from nfnet_jax.training.pretrained import merge_pretrained
from nfnet_jax.utils.download import RemoteFile
from nfnet_jax.utils.errors import UserError
from nfnet_jax.weights import haiku, timm
from nfnet_jax.weights import load as pretrained
from nfnet_jax.weights import urls as published
from nfnet_jax.weights.load import load_pretrained

SMALL = {"width_multiplier": 0.125}
"""Makes a small network of a family out of a published one."""
OPTIONS = {"group_width": 8, **SMALL}


def logits(model, params, images):
    return np.asarray(jax.jit(model.apply)({"params": params}, images))


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory):
    """The published form: a pickle that calls itself .npz."""
    tree, _, _ = golden.load("nf_resnet50_64")
    path = tmp_path_factory.mktemp("weights") / "nf_resnet50_haiku.npz"
    path.write_bytes(pickle.dumps(tree, protocol=2))
    return path


@pytest.fixture(scope="module")
def small():
    """A model, its parameters and images."""
    model = create_model("nfnet_f0", 7, gamma="published", group_width=8, **SMALL)
    images = np.random.RandomState(0).standard_normal((2, 32, 32, 3)).astype("float32")
    params = jax.jit(model.init)(jax.random.key(0), images)["params"]
    noise = np.random.RandomState(1)
    params = jax.tree.map(
        lambda p: p + 0.1 * noise.standard_normal(p.shape).astype("float32"), params
    )
    return model, params, images


@pytest.fixture(scope="module")
def in_timm():
    """A model, its parameters, and these as a state dict in timm's naming."""
    model = create_model("dm_nfnet_f0", 7, **OPTIONS)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    noise = np.random.RandomState(2)
    params = jax.tree.map(
        lambda p: noise.standard_normal(p.shape).astype("float32"), shapes
    )
    return model, params, timm.to_timm(params, model)


@pytest.fixture
def no_search(monkeypatch):
    """For other networks that weights could be of, which takes a second each."""
    monkeypatch.setattr(pretrained, "_another_model", lambda *_: "")


def load_state(path, state, **options):
    save_file(state, path / "w.safetensors")
    return load_pretrained("nfnet_f0", path / "w.safetensors", **OPTIONS, **options)


def save_haiku(path, model, params):
    tree = haiku.to_haiku(params, model)
    arrays = {f"{m}:{name}": a for m, own in tree.items() for name, a in own.items()}
    with open(path, "wb") as file:
        np.savez(file, **arrays)
    return path


def test_the_published_form_gives_the_published_logits(resnet_file):
    _, images, outputs = golden.load("nf_resnet50_64")
    model, params = load_pretrained("nf_resnet50", resnet_file)
    assert model.spec.name == "nf_resnet50"
    assert dict(model.spec.overrides) == {"gamma": "published"}
    found = logits(model, params, images)
    scale = np.abs(outputs["logits"]).max()
    np.testing.assert_allclose(found, outputs["logits"], atol=1e-4 * scale)


def test_timms_naming_gives_timms_form_of_the_network(tmp_path):
    model = create_model("timm_nf_resnet50", 1000)
    shapes = jax.eval_shape(model.init, jax.random.key(0), timm_reference.images(64))
    zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes["params"])
    state = {
        name: timm_reference.fill(name, array.shape)
        for name, array in timm.to_timm(zeros, model).items()
    }
    save_file(state, tmp_path / "model.safetensors")
    found, params = load_pretrained("nf_resnet50", tmp_path / "model.safetensors")
    assert found.spec.name == "timm_nf_resnet50"
    expected = np.load(golden.GOLDEN / "timm.npz")["nf_resnet50_65"]
    same = logits(found, params, timm_reference.images(65))
    np.testing.assert_allclose(same, expected, atol=1e-4 * np.abs(expected).max())


def test_another_number_of_classes_gets_a_new_head(tmp_path, small):
    model, params, images = small
    path = save_haiku(tmp_path / "w.npz", model, params)
    options = {"group_width": 8, **SMALL}
    same, kept = load_pretrained("nfnet_f0", path, **options)
    jax.tree.map(np.testing.assert_array_equal, kept, params)
    np.testing.assert_array_equal(
        logits(same, kept, images), logits(model, params, images)
    )
    other, changed = load_pretrained("nfnet_f0", path, num_classes=3, **options)
    assert logits(other, changed, images).shape == (2, 3)
    jax.tree.map(np.testing.assert_array_equal, changed["stages_1"], params["stages_1"])
    assert np.all(changed["head"]["classifier"]["bias"] == 0)


PREFIXES = ("module.", "model.", "_orig_mod.", "module._orig_mod.", "ema.x/", "a:")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_stands_before_all_names_is_left_out(tmp_path, in_timm, prefix):
    model, params, state = in_timm
    prefixed = {prefix + name: array for name, array in state.items()}
    found, loaded = load_state(tmp_path, prefixed)
    assert found.spec == model.spec
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


@pytest.mark.parametrize("wrap", ["params/", "state_dict_ema/model/"])
def test_so_it_is_in_haikus_naming(tmp_path, small, no_search, wrap):
    model, params, _ = small
    tree = haiku.to_haiku(params, model)
    wrapped = {wrap + module: own for module, own in tree.items()}
    jax.tree.map(np.testing.assert_array_equal, haiku.convert(wrapped, model), params)
    for content in ({"params": tree, "state": {}}, tree):
        path = tmp_path / "w.npz"
        path.write_bytes(pickle.dumps(content, protocol=2))
        _, found = load_pretrained("nfnet_f0", path, **OPTIONS)
        jax.tree.map(np.testing.assert_array_equal, found, params)
    path.write_bytes(pickle.dumps({"params": tree, "ema": tree}, protocol=2))
    assert "'ema/' before" in message("nfnet_f0", path, **OPTIONS)


def test_no_part_of_a_file_is_taken_for_all_of_it(tmp_path, in_timm, no_search):
    """Two networks, one whose names begin in two ways, and one with something else."""
    _, _, state = in_timm

    def refused(changed):
        save_file(changed, tmp_path / "w.safetensors")
        return message("nfnet_f0", tmp_path / "w.safetensors", **OPTIONS)

    both = {
        f"{p}.{n}": a
        for p in ("state_dict", "state_dict_ema")
        for n, a in state.items()
    }
    text = refused(both)
    assert f"'state_dict.' before {len(state)}, 'state_dict_ema.' before" in text
    mixed = {("model." if "conv1" in n else "") + n: a for n, a in state.items()}
    assert "begin in 2 ways, '' before" in refused(mixed)
    more = {f"module.{n}": a for n, a in state.items()} | {"n_averaged": np.ones(1)}
    assert "1 unknown parameters for this model: n_averaged" in refused(more)
    more = {n.replace("fc1", "fcl"): a for n, a in state.items()}
    text = refused(more)
    assert (
        "attn_last.fcl.bias" in text
        and "did you mean 'stages.0.0.attn_last.fc1" in text
    )


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_without_a_classifier(tmp_path, in_timm, no_search, prefix):
    _, params, state = in_timm
    body = {prefix + n: a for n, a in state.items() if not n.startswith("head.fc.")}
    model, loaded = load_state(tmp_path, body, num_classes=3)
    assert model.spec.num_classes == 3
    classifier = loaded["head"].pop("classifier")
    features = params["head"]["classifier"]["kernel"].shape[0]
    assert classifier["kernel"].shape == (features, 3) and not classifier["bias"].any()
    _, headless = load_state(tmp_path, body, headless=True)
    expected = {**params, "head": {"final_conv": params["head"]["final_conv"]}}
    for found in (loaded, headless):
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    path = tmp_path / "w.safetensors"
    assert "without a classifier, expected num_classes" in message(
        "nfnet_f0", path, **OPTIONS
    )
    del body[f"{prefix}final_conv.bias"]
    save_file(body, path)
    assert "1 missing" in message("nfnet_f0", path, num_classes=3, **OPTIONS)


def test_a_training_starts_from_weights_without_a_classifier(tmp_path, in_timm):
    _, params, state = in_timm
    body = {n: a for n, a in state.items() if not n.startswith("head.fc.")}
    save_file(body, tmp_path / "w.safetensors")
    config = base_config()
    config.model.name = "nfnet_f0"
    config.model.weights = str(tmp_path / "w.safetensors")
    config.model.update(OPTIONS)
    start = load_weights(config)
    # Even one of as many classes as the file was converted with: 1.
    for classes in (1, 7):
        model = create_model("dm_nfnet_f0", classes, **OPTIONS)
        images = jnp.zeros((1, 32, 32, 3))
        shapes = jax.eval_shape(model.init, jax.random.key(5), images)["params"]
        own = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 7.0), shapes)
        names = tuple(map(str, range(classes)))
        found, _, origin = merge_pretrained(start, own, {}, "w", names)
        assert "the classifier is new" in origin
        jax.tree.map(
            np.testing.assert_array_equal,
            found,
            {
                **params,
                "head": {**params["head"], "classifier": own["head"]["classifier"]},
            },
        )


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused_by_name(tmp_path, in_timm, no_search, wrong):
    _, _, state = in_timm
    name = np.random.RandomState(0).choice(sorted(state))
    broken = state | {name: state[name].copy()}
    broken[name].flat[-1] = wrong
    save_file(broken, tmp_path / "w.safetensors")
    text = message("nfnet_f0", tmp_path / "w.safetensors", **OPTIONS)
    assert f"1 not finite parameters for this model: {name}" in text


def test_other_forms_of_the_same_network_are_said_to_be_so(tmp_path, in_timm):
    _, _, state = in_timm

    def refused(changed, name="nfnet_f0"):
        save_file(changed, tmp_path / "w.safetensors")
        return message(name, tmp_path / "w.safetensors", **OPTIONS)

    gray = state | {"stem.conv1.weight": state["stem.conv1.weight"][:, :1].copy()}
    assert "(they are for images of 1 channels, not 3)" in refused(gray)
    small = {n: a.astype(np.int8) for n, a in state.items()}
    assert "head.fc.bias of int8, expected floats" in refused(small)
    assert "did you mean the model 'dm_nfnet_f0'?" in refused(state, "nfnet_f1")


def test_a_path_without_its_ending_is_completed_in_the_message(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("best.safetensors", "folder/model.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert "did you mean 'best.safetensors'?" in message("nfnet_f0", "best")
    assert "did you mean 'folder/model.safetensors'?" in message("nfnet_f0", "folder")
    path = "folder/model"
    assert "did you mean 'folder/model.safetensors'?" in message("nfnet_f0", path)


def test_by_name_weights_are_downloaded_once(tmp_path, small, serve, monkeypatch):
    model, params, images = small
    content = save_haiku(tmp_path / "w.npz", model, params).read_bytes()
    server = serve(content, cuts=[len(content) // 2])
    entry = published.Published("nfnet_f0", server.file("F0_haiku.npz"))
    monkeypatch.setitem(published.PUBLISHED, "nfnet_f0", entry)
    monkeypatch.setenv("NFNET_JAX_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        _, found = load_pretrained("nfnet_f0", "nfnet_f0", group_width=8, **SMALL)
        jax.tree.map(np.testing.assert_array_equal, found, params)
    assert server.asked == [None, f"bytes={len(content) // 2}-"]
    assert (tmp_path / "cache" / "weights" / "F0_haiku.npz").read_bytes() == content


def message(*arguments, **options) -> str:
    with pytest.raises(UserError) as error:
        load_pretrained(*arguments, **options)
    text = str(error.value)
    assert "\n" not in text and len(text) < 700
    return text


def test_offline_the_message_says_where_a_file_would_be_found(tmp_path, monkeypatch):
    monkeypatch.setenv("NFNET_JAX_CACHE", str(tmp_path))
    remote = RemoteFile("http://127.0.0.1:9/F0_haiku.npz")
    entry = published.Published("nfnet_f0", remote)
    monkeypatch.setitem(published.PUBLISHED, "nfnet_f0", entry)
    text = message("nfnet_f0", "nfnet_f0")
    assert remote.url in text and str(tmp_path / "weights" / "F0_haiku.npz") in text


def test_files_of_other_networks_are_refused(tmp_path, small, resnet_file):
    text = message("nf_resnet101", resnet_file)
    assert str(resnet_file) in text and "'nf_resnet101'" in text and "unknown" in text
    text = message("nfnet_f0", resnet_file)
    assert "unknown" in text and "NF_ResNet/~/initial_conv" in text
    (tmp_path / "w.npz").write_bytes(b"PK")
    assert "unknown format" in message("nfnet_f0", tmp_path / "w.npz")
    np.savez(tmp_path / "w.npz", w=np.ones(3))
    text = message("nfnet_f0", tmp_path / "w.npz")
    assert "1 unknown parameters" in text and "expected names such as" in text


def test_names_of_no_weights_are_refused():
    assert "did you mean 'nfnet_f0'" in message("nfnet_f0", "nfnet-f0")
    assert "no such file" in message("nfnet_f0", "weights/f0.npz")
    with pytest.raises(ValueError, match="did you mean 'nfnet_f0'"):
        load_pretrained("nfnet_f00", "nfnet_f0")


@pytest.mark.parametrize("name", published.PUBLISHED)
def test_every_published_network_exists(name):
    entry = published.find_published(name)
    assert create_model(entry.model, 1000).spec.name == entry.model
    assert entry.file.url.startswith("https://")


@pytest.mark.parametrize("name", timm_reference.MODELS)
def test_randomly_initialized_networks_of_timm(name, tmp_path):
    """Against the library itself where it is installed."""
    torch, library = pytest.importorskip("torch"), pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = library.create_model(name).eval()
    with torch.no_grad():
        for key, value in theirs.named_parameters():
            if key.endswith("gain"):
                value.add_(0.3 + 0.1 * torch.randn(value.shape))
    state = {key: value.numpy() for key, value in theirs.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    model, params = load_pretrained(name, tmp_path / "model.safetensors")
    for size in timm_reference.SIZES:
        images = timm_reference.images(size)
        with torch.no_grad():
            expected = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
        found = logits(model, params, images)
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
