"""Exported files give the same logits, without this package, or are not there."""

import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from perturbed import perturbed

from nfnet_jax import create_model
from nfnet_jax import export as entry_point
from nfnet_jax.config import base_config, to_json
from nfnet_jax.inference import export
from nfnet_jax.inference.export import load_exported
from nfnet_jax.inference.onnx import unroll
from nfnet_jax.ops.conv import native_operations
from nfnet_jax.training.checkpoint import Checkpoints
from nfnet_jax.training.data_spec import DataSpec, write_data_spec
from nfnet_jax.training.state import init_state
from nfnet_jax.utils.errors import UserError
from nfnet_jax.weights import load as pretrained

FACTS = DataSpec((0.5,), (0.25,), tuple("0123456789"), (8, 8, 1))
SHAPE = (16, 16, 3)
SMALL = {"depths": (1, 2), "widths": (32, 64)}
ONLY_JAX = """\
import sys
sys.modules.update(nfnet_jax=None, flax=None)
import jax.export, numpy
exported = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
assert exported.platforms == ("cpu", "cuda", "tpu"), exported.platforms
data = numpy.load(sys.argv[2])
for batch in (1, 7):
    logits = exported.call(data["images"][:batch])
    assert logits.shape == (batch, 10)
    error = abs(logits - data["logits"][:batch]).max()
    assert error <= 1e-4 * abs(data["logits"][:batch]).max(), error
"""


def network(name="nf_wrn_10_1", shape=SHAPE, **overrides):
    """A network, its variables and what they give on seven images."""
    model = create_model(name, 10, **overrides)
    variables = {"params": perturbed(model, shape)}
    init = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, *shape), "f"))
    for name in init.keys() - variables:
        ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, "f"), init[name])
        variables[name] = jax.tree.map(lambda one: 1.5 * one, ones)
    images = np.random.default_rng(2).standard_normal((7, *shape)).astype(np.float32)
    return model, variables, images, jax.jit(model.apply)(variables, images)


def agree(found, expected) -> bool:
    return np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def files(directory: pathlib.Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_a_process_with_only_jax_gets_the_same_logits(tmp_path):
    shape = (33, 33, 3)
    model, variables, images, logits = network("nf_regnet_b0", shape, **SMALL)
    path = str(tmp_path / "net.jaxexport")
    export.export_network(path, model, variables, shape)
    np.savez(tmp_path / "expected.npz", images=images, logits=logits)
    subprocess.run(
        [sys.executable, "-c", ONLY_JAX, path, str(tmp_path / "expected.npz")],
        check=True,
        cwd=tmp_path,
    )


@pytest.mark.parametrize("name", ["bn_wrn_10_1", "fixup_wrn_10_1"])
def test_baselines_are_exported_as_they_are(name, tmp_path):
    model, variables, images, logits = network(name)
    path = str(tmp_path / "net.jaxexport")
    export.export_network(path, model, variables, SHAPE)
    assert agree(load_exported(path)(images), logits)


def test_the_sheet_tells_what_was_exported(tmp_path):
    model, variables, *_ = network(alpha=0.5)
    path = tmp_path / "net.jaxexport"
    export.export_network(str(path), model, variables, SHAPE, facts={"mean": (0.5,)})
    assert json.loads((tmp_path / "net.jaxexport.json").read_text()) == {
        "model": "nf_wrn_10_1",
        "overrides": {"alpha": 0.5},
        "num_classes": 10,
        "image_shape": [16, 16, 3],
        "format": "jax",
        "mean": [0.5],
    }
    assert files(tmp_path) == {"net.jaxexport", "net.jaxexport.json"}


def test_other_logits_leave_what_was_there(tmp_path, monkeypatch):
    """An error anywhere before the end, here in what is loaded again."""
    (tmp_path / "net").write_text("before")
    write, _ = export.FORMATS["jax"]
    zeros = lambda images: np.zeros((len(images), 10))  # noqa: E731
    monkeypatch.setitem(export.FORMATS, "jax", (write, lambda path: zeros))
    model, variables, *_ = network()
    with pytest.raises(UserError, match="other logits"):
        export.export_network(str(tmp_path / "net"), model, variables, SHAPE)
    assert files(tmp_path) == {"net"}
    assert (tmp_path / "net").read_text() == "before"


def test_weights_that_are_not_finite_or_too_large_are_refused(tmp_path, monkeypatch):
    model, variables, *_ = network()
    path = str(tmp_path / "net")
    broken = jax.tree.map(lambda leaf: leaf * np.float32(np.nan), variables)
    with pytest.raises(UserError, match="relative error nan"):
        export.export_network(path, model, broken, SHAPE)
    monkeypatch.setattr(export, "LARGEST", 10_000)
    with pytest.raises(UserError, match="expected less than"):
        export.export_network(path, model, variables, SHAPE)
    assert not files(tmp_path)


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def fail(path, *_):
        pathlib.Path(path).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(export.FORMATS, "jax", (fail, None))
    model, variables, *_ = network()
    with pytest.raises(UserError, match="No space left"):
        export.export_network(str(tmp_path / "net"), model, variables, SHAPE)
    assert not files(tmp_path)


def test_damaged_files_are_one_line(tmp_path):
    (tmp_path / "cut").write_bytes(b"\x00" * 20)
    for name, words in [("cut", "damaged"), ("absent", "No such file")]:
        with pytest.raises(UserError, match=words):
            load_exported(str(tmp_path / name))


@pytest.mark.parametrize("name", ["nf_wrn_46_1", "bn_wrn_16_1"])
def test_an_unrolled_network_has_the_same_logits(name):
    model, variables, images, logits = network(name)
    apply, parts = unroll(model, variables)
    with native_operations():
        program = jax.jit(apply).trace(parts, images)
    primitives = str(program.jaxpr)
    assert not any(p in primitives for p in ("scan[", "platform_index"))
    assert agree(program.lower().compile()(parts, images), logits)


@pytest.mark.parametrize(
    ("name", "overrides", "size"),
    [
        ("nf_regnet_b0", SMALL, 33),
        ("nf_resnet50", SMALL | {"se_ratio": 0.5}, 33),
        ("timm_nf_resnet50", SMALL, 32),
        ("bn_wrn_10_1", {}, 16),
    ],
)
def test_onnx_runtime_gets_the_same_logits(name, overrides, size, tmp_path):
    pytest.importorskip("jax2onnx")
    shape = (size, size, 3)
    model, variables, images, logits = network(name, shape, **overrides)
    path = str(tmp_path / "net.onnx")
    export.export_network(path, model, variables, shape, file_format="onnx")
    for batch in (1, 7):
        assert agree(load_exported(path)(images[:batch]), logits[:batch])


def test_without_its_packages_onnx_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"nfnet_jax\[onnx\]"):
        export.check_target(str(tmp_path / "net.onnx"), "onnx")


@pytest.fixture
def run(tmp_path):
    """Directory of a run that made no step, and its state."""
    config = base_config()
    config.model.name = "nf_wrn_10_1"
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps(to_json(config)))
    write_data_spec(str(workdir), FACTS)
    model = create_model("nf_wrn_10_1", 10)
    params = perturbed(model, (8, 8, 1))
    state = init_state(perturbed(model, (8, 8, 1), seed=1), {}, optax.sgd(0.1))
    with Checkpoints(str(workdir)) as checkpoints:
        checkpoints.save(state.replace(ema_params=jax.tree.map(jnp.asarray, params)))
    return workdir, model, params


def test_a_run_is_exported_with_its_averaged_parameters(run, tmp_path, capsys):
    workdir, model, params = run
    path = tmp_path / "net.jaxexport"
    arguments = [f"--workdir={workdir}", f"--output={path}"]
    entry_point.main(["export", *arguments])
    assert "[N, 8, 8, 1]" in capsys.readouterr().out
    images = np.random.default_rng(0).standard_normal((3, 8, 8, 1)).astype(np.float32)
    expected = jax.jit(model.apply)({"params": params}, images)
    assert agree(load_exported(str(path))(images), expected)
    sheet = json.loads((tmp_path / "net.jaxexport.json").read_text())
    assert sheet["class_names"] == list("0123456789")
    assert (sheet["mean"], sheet["std"]) == ([0.5], [0.25])
    entry_point.main(["export", *arguments, "--image_size=9"])
    assert load_exported(str(path))(np.zeros((2, 9, 9, 1), "f")).shape == (2, 10)


def test_published_weights_are_exported_with_their_normalization(
    tmp_path, monkeypatch, capsys
):
    model, variables, images, logits = network()
    monkeypatch.setattr(
        pretrained, "load_pretrained", lambda *_: (model, variables["params"])
    )
    path = tmp_path / "net"
    flags = ("--model=nf_wrn_10_1", "--weights=eca_nfnet_l0", "--image_size=16")
    entry_point.main(["export", *flags, f"--output={path}"])
    assert "[N, 16, 16, 3]" in capsys.readouterr().out
    assert agree(load_exported(str(path))(images), logits)
    sheet = json.loads((tmp_path / "net.json").read_text())
    assert sheet["mean"] == [0.485, 0.456, 0.406]
