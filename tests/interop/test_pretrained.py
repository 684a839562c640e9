"""Networks from files of published weights, and from a server on loopback."""

import pickle

import golden
import jax
import numpy as np
import pytest
import timm_reference
from safetensors.numpy import save_file

from nfnet_jax import create_model
from nfnet_jax.download import RemoteFile
from nfnet_jax.errors import UserError
from nfnet_jax.interop import haiku, published, timm
from nfnet_jax.interop.pretrained import load_pretrained

SMALL = {"width_multiplier": 0.125}
"""Makes a small network of a family out of a published one."""


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
