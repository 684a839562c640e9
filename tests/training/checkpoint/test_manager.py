"""Checkpoints: the last and the best are kept, and no damaged one is restored."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest
from small_states import check_is, make_state, restore

from nfnet_jax.training.checkpoint import Checkpoints, best_step
from nfnet_jax.utils.errors import UserError

STEPS = (2, 4, 6, 8)


def save_all(workdir: pathlib.Path, steps=STEPS, scores=None, **options) -> None:
    with Checkpoints(str(workdir), **options) as checkpoints:
        for step in steps:
            checkpoints.save(make_state(step), (scores or {}).get(step))


def kept_in(workdir: pathlib.Path) -> set[str]:
    return set(os.listdir(workdir / "checkpoints"))


# --- What is kept ---------------------------------------------------------------------


def test_the_best_is_the_first_of_equals_and_never_nan():
    nan = float("nan")
    accuracies = [0.3, 0.7, nan, 0.7, 0.2]
    scores = {step: {"accuracy": value} for step, value in enumerate(accuracies)}
    assert best_step(scores, "accuracy") == 1
    losses = {step: {"loss": -v["accuracy"]} for step, v in scores.items()}
    assert best_step(losses, "loss") == 1
    assert best_step({1: {"accuracy": nan}}, "accuracy") is None
    assert best_step(scores, None) is None


def test_a_directory_holds_the_last_and_the_best(tmp_path):
    accuracies = {2: 0.5, 4: 0.9, 6: 0.9, 8: 0.1}
    scores = {step: {"accuracy": value} for step, value in accuracies.items()}
    save_all(tmp_path, scores=scores, keep=1, best_metric="accuracy")
    assert kept_in(tmp_path) == {"4", "8"}
    with Checkpoints(str(tmp_path), 1, "accuracy") as checkpoints:
        assert checkpoints.is_best({"accuracy": 0.91})
        assert not checkpoints.is_best({"accuracy": 0.9})
        assert not checkpoints.is_best({"accuracy": float("nan")})
        assert not checkpoints.is_best({})
        # The best of an earlier process still counts.
        checkpoints.save(make_state(10), {"accuracy": 0.2})
    assert kept_in(tmp_path) == {"4", "10"}


def test_a_step_is_saved_once(tmp_path):
    save_all(tmp_path, [2], {2: {"loss": 1.0}})
    manifest = tmp_path / "checkpoints/2/manifest.json"
    before = manifest.stat().st_mtime_ns, manifest.stat().st_ino
    save_all(tmp_path, [2])
    assert (manifest.stat().st_mtime_ns, manifest.stat().st_ino) == before


# --- Damage ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("sound")
    save_all(workdir, keep=len(STEPS))
    return workdir


def files_below(path: pathlib.Path) -> list[pathlib.Path]:
    return sorted(p for p in path.rglob("*") if p.is_file())


def one_of(files: list[pathlib.Path], random: np.random.RandomState) -> pathlib.Path:
    return files[random.randint(len(files))]


def truncate(path: pathlib.Path, random: np.random.RandomState) -> None:
    file = one_of([f for f in files_below(path) if f.stat().st_size], random)
    os.truncate(file, random.randint(file.stat().st_size))


def flip_bit(path: pathlib.Path, random: np.random.RandomState) -> None:
    file = one_of([f for f in files_below(path) if f.stat().st_size], random)
    content = bytearray(file.read_bytes())
    content[random.randint(len(content))] ^= 1 << random.randint(8)
    file.write_bytes(content)


def delete_file(path: pathlib.Path, random: np.random.RandomState) -> None:
    one_of(files_below(path), random).unlink()


def delete_directory(path: pathlib.Path, random: np.random.RandomState) -> None:
    below = sorted(p for p in path.rglob("*") if p.is_dir())
    shutil.rmtree(one_of([path, *below], random))


DAMAGES = (truncate, flip_bit, delete_file, delete_directory)


def checkpoint_steps(workdir: pathlib.Path) -> list[int]:
    return [int(path.name) for path in (workdir / "checkpoints").iterdir()]


def untouched(workdir: pathlib.Path, original: pathlib.Path, step: int) -> bool:
    """True if no byte of a step has changed."""
    there, here = (path / f"checkpoints/{step}" for path in (original, workdir))
    return all(
        (here / file.relative_to(there)).is_file()
        and (here / file.relative_to(there)).read_bytes() == file.read_bytes()
        for file in files_below(there)
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_is_damaged_an_untouched_state_is_restored(
    damage, seed, sound, tmp_path, capsys
):
    random = np.random.RandomState(seed)
    workdir = tmp_path / "run"
    shutil.copytree(sound, workdir)
    # From some damage anywhere to some in every step: then nothing is left.
    for step in STEPS if seed % 5 == 0 else STEPS[random.randint(len(STEPS)) :]:
        damage(workdir / f"checkpoints/{step}", random)
    left = [step for step in STEPS if untouched(workdir, sound, step)]
    if left:
        check_is(restore(workdir), max(left))
        damaged = [step for step in checkpoint_steps(workdir) if step > max(left)]
        told = capsys.readouterr().err
        assert told.count("\n") == bool(damaged)
        assert not damaged or f"taking {max(left)} instead" in told
    else:
        with pytest.raises(UserError, match="no (sound|complete) checkpoint") as error:
            restore(workdir)
        assert "\n" not in str(error.value)


def test_a_renamed_checkpoint_is_not_taken_for_that_step(sound, tmp_path, capsys):
    shutil.copytree(sound, tmp_path / "run")
    (tmp_path / "run/checkpoints/4").rename(tmp_path / "run/checkpoints/10")
    check_is(restore(tmp_path / "run"), 8)
    assert "10 its step is 4" in capsys.readouterr().err


def test_a_changed_manifest_is_damage(sound, tmp_path, capsys):
    shutil.copytree(sound, tmp_path / "run")
    path = tmp_path / "run/checkpoints/8/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"] = {}
    path.write_text(json.dumps(manifest))
    check_is(restore(tmp_path / "run"), 6)
    assert "8 manifest.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_step_is_saved_again(damage, sound, tmp_path):
    shutil.copytree(sound, tmp_path / "run")
    damage(tmp_path / "run/checkpoints/8", np.random.RandomState(0))
    leftover = tmp_path / "run/checkpoints/8.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "run/checkpoints/8", leftover)
    with Checkpoints(str(tmp_path / "run"), keep=2) as checkpoints:
        check_is(checkpoints.restore(make_state(0)), 6)
        checkpoints.save(make_state(8))
    assert kept_in(tmp_path / "run") == {"6", "8"}
    check_is(restore(tmp_path / "run"), 8)


def test_an_array_of_another_shape_is_named_and_nothing_told_to_be_deleted(sound):
    like = make_state(0)
    bias = like.params["bias"]
    for params, words in (
        (like.params | {"bias": bias[None]}, f"{bias.shape} there, {bias[None].shape}"),
        (like.params | {"more": bias}, "params/more is missing there"),
        ({k: v for k, v in like.params.items() if k != "bias"}, "is there only"),
    ):
        with Checkpoints(str(sound)) as checkpoints:
            with pytest.raises(UserError) as error:
                checkpoints.restore(like.replace(params=params))
        message = str(error.value)
        assert "checkpoints/8 is of another model: params/" in message
        assert words in message
        assert "delete" not in message and "\n" not in message


def test_reading_writes_nothing(sound, tmp_path):
    with Checkpoints(str(tmp_path / "absent")) as checkpoints:
        assert checkpoints.latest_step is None
        with pytest.raises(UserError, match="holds no complete checkpoint"):
            checkpoints.restore(make_state(0))
    assert not (tmp_path / "absent").exists()
    before = {path: path.stat().st_mtime_ns for path in sound.rglob("*")}
    check_is(restore(sound), 8)
    assert before == {path: path.stat().st_mtime_ns for path in sound.rglob("*")}
