"""What the folder of a run may replace, and checkpoints that are whole whenever a process dies."""

import json

import h5py
import keras
import numpy as np
import pytest

from libra_keras.files import atomic
from libra_keras.models.distributed import LossScaleOptimizer
from libra_keras.runs.folder import Checkpoints, RunFolder, disk_explained
from libra_keras.runs.resumable import set_metrics
from libra_keras.training import SGD, AdamW, WarmupMultiStep

OPTIMIZERS = {
    "sgd": lambda: SGD(WarmupMultiStep(0.1, warmup_steps=2, drops=(4,))),
    "adamw": lambda: AdamW(0.01, global_clipnorm=1.0),
    "averaged": lambda: SGD(0.1, use_ema=True, ema_momentum=0.9),
    "accumulating": lambda: SGD(0.1, gradient_accumulation_steps=2),
    "loss_scaled": lambda: LossScaleOptimizer(SGD(0.1), initial_scale=8.0),
}


@pytest.fixture
def earlier_run(tmp_path):
    """The path of one that is complete."""
    folder = RunFolder.create(tmp_path / "run")
    folder.write_config({})
    for name in ("log.csv", "kept-0.5.weights.h5"):
        (folder.path / name).write_text("")
    return folder.path


def test_overwrite_replaces_a_run(earlier_run):
    RunFolder.create(earlier_run, overwrite=True)
    assert [left.name for left in earlier_run.iterdir()] == ["checkpoints"]
    assert not any((earlier_run / "checkpoints").iterdir())
    assert [left.name for left in earlier_run.parent.iterdir()] == ["run"]


def test_overwrite_keeps_what_is_no_run(tmp_path):
    (tmp_path / "photo.jpg").write_text("precious")
    with pytest.raises(ValueError, match="no config.json"):
        RunFolder.create(tmp_path, overwrite=True)
    assert (tmp_path / "photo.jpg").exists()


def test_overwrite_keeps_what_no_run_has_written(tmp_path):
    folder = RunFolder.create(tmp_path)
    folder.write_config({})
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match="holds photos, which no run has written"):
        RunFolder.create(tmp_path, overwrite=True)
    assert {left.name for left in tmp_path.iterdir()} == {"photos", "config.json", "checkpoints"}


@pytest.mark.parametrize("begun", [[], ["config.json"], ["config.json", "log.csv"]])
def test_weights_of_others_are_never_replaced(tmp_path, monkeypatch, begun):
    monkeypatch.chdir(tmp_path)
    theirs = tmp_path / "mine" / "checkpoints" / "epoch=3.ckpt"
    theirs.parent.mkdir(parents=True)
    for file in (theirs, *(tmp_path / "mine" / name for name in begun)):
        file.write_text("weights")
    with pytest.raises(ValueError, match="mine is not empty"):
        RunFolder.create("mine")
    with pytest.raises(ValueError, match="checkpoints/epoch=3.ckpt, which no|no config.json"):
        RunFolder.create("mine", overwrite=True)
    assert theirs.read_text() == "weights"


def small_model(optimizer):
    keras.utils.set_random_seed(1)
    layers = [keras.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    model.compile(optimizer, "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def train(model, steps):
    x = np.random.default_rng(0).normal(size=(2 * steps, 3)).astype("float32")
    model.fit(x, x[:, :2], batch_size=2, shuffle=False, verbose=0)


def variables(model):
    return [*model.variables, *model.optimizer.variables]


def values(model):
    return [keras.ops.convert_to_numpy(v) for v in variables(model)]


@pytest.mark.parametrize(
    "name",
    [
        "sgd",
        "averaged",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("adamw", "accumulating", "loss_scaled")
        ),
    ],
)
def test_every_variable_of_model_and_optimizer_comes_back(tmp_path, name):
    model, other = small_model(OPTIMIZERS[name]()), small_model(OPTIMIZERS[name]())
    train(model, 3)
    Checkpoints(tmp_path).save(model, {"batches": 3})
    Checkpoints(tmp_path).restore(other)
    for got, expected in zip(values(other), values(model), strict=True):
        np.testing.assert_array_equal(got, expected)
    twin = small_model(OPTIMIZERS[name]())  # on JAX no model with averages can `fit` again
    for variable, value in zip(variables(twin), values(model), strict=True):
        variable.assign(value)
    for one in (twin, other):
        train(one, 3)
    for got, expected in zip(values(other), values(twin), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_means_of_an_epoch_go_on_to_the_bit(tmp_path):
    model = small_model(SGD(0.1))
    train(model, 7)
    Checkpoints(tmp_path).save(model, {"batches": 7})
    expected = [keras.ops.convert_to_numpy(v) for v in model.metrics_variables]
    state = Checkpoints(tmp_path).read()
    model.reset_metrics()
    set_metrics(model, state)
    for got, value in zip(model.metrics_variables, expected, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(got), value)


def test_only_the_weights_that_the_state_names_are_kept(tmp_path):
    model, checkpoints = small_model(SGD(0.1)), Checkpoints(tmp_path)
    (tmp_path / ".unfinished.step-7.weights.h5").write_text("of a process that was killed")
    for batches in (0, 5, 10):
        checkpoints.save(model, {"batches": batches, "best": float("-inf")})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.json", "step-10.weights.h5"]
    assert checkpoints.read()["best"] == float("-inf")
    checkpoints.clear()
    assert not tmp_path.exists() and checkpoints.restore(model) is None


def test_weights_of_a_step_are_written_once(tmp_path):
    """Else a kill between weights and state would leave new weights with the old state."""
    model, checkpoints = small_model(SGD(0.1)), Checkpoints(tmp_path)
    checkpoints.save(model, {"batches": 5, "evaluated": False})
    written = checkpoints.weights.stat()
    checkpoints.save(model, {"batches": 5, "evaluated": True})
    assert checkpoints.weights.stat().st_ino == written.st_ino
    assert checkpoints.read()["evaluated"]


@pytest.mark.parametrize("dies_at", ["save_weights", "replacing", "unlink"])
def test_a_kill_between_any_two_files_leaves_a_pair(tmp_path, monkeypatch, dies_at):
    model, checkpoints = small_model(SGD(0.1)), Checkpoints(tmp_path)
    checkpoints.save(model, {"batches": 0})

    class Killed(BaseException):
        pass

    def die(*_, **__):
        raise Killed

    train(model, 4)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        if dies_at == "unlink":
            patched.setattr(checkpoints.folder.__class__, "glob", die)  # of the old weights
        elif dies_at == "save_weights":
            patched.setattr(model, "save_weights", die)
        else:
            patched.setattr(json, "dumps", die)
        checkpoints.save(model, {"batches": 4})
    other = small_model(SGD(0.1))
    state = checkpoints.restore(other)
    assert state["batches"] == int(other.optimizer.iterations) == (4 if dies_at == "unlink" else 0)


def test_what_cannot_be_saved_is_said_and_the_old_stays(tmp_path, monkeypatch):
    model, checkpoints = small_model(SGD(0.1)), Checkpoints(tmp_path)
    checkpoints.save(model, {"batches": 0})
    before = checkpoints.weights.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic, "save_weights", full)
    with pytest.raises(OSError, match=f"{tmp_path}.*No space left.*saved before is complete"):
        checkpoints.save(model, {"batches": 4})
    assert checkpoints.read()["batches"] == 0 and checkpoints.weights.read_bytes() == before


@pytest.mark.parametrize("room", [0, 2000, 5000])
def test_a_file_that_finds_no_room_ends_nothing_but_the_save(tmp_path, room):
    """The library of HDF5 would end the process; a limit on files stands for a full disk."""
    resource = pytest.importorskip("resource", reason="limits of processes, not on Windows")
    model, checkpoints = small_model(SGD(0.1)), Checkpoints(tmp_path)
    checkpoints.save(model, {"batches": 0})
    assert atomic.weights_size(model) > checkpoints.weights.stat().st_size > 5000
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(OSError, match=f"{tmp_path}: File too large. What was saved before"):
            checkpoints.save(model, {"batches": 4})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.json", "step-0.weights.h5"]
    assert checkpoints.restore(small_model(SGD(0.1)))["batches"] == 0


def test_a_disk_that_is_too_small_is_said_before(tmp_path):
    model = small_model(SGD(0.1))
    Checkpoints(tmp_path / "run").check_space(model, copies=4)
    with pytest.raises(OSError, match=r"MiB left; the run needs about \d+ MiB"):
        Checkpoints(tmp_path / "run").check_space(model, copies=1e15)


def test_weights_of_another_optimizer_are_refused(tmp_path):
    model = small_model(SGD(0.1))
    train(model, 2)
    Checkpoints(tmp_path).save(model, {"batches": 2})
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="or to this optimizer"):
        Checkpoints(tmp_path).restore(small_model(AdamW(0.1)))


def test_weights_that_are_not_there(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(small_model(SGD(0.1)), {"batches": 0})
    checkpoints.weights.unlink()
    with pytest.raises(ValueError, match="does not exist"):
        checkpoints.restore(small_model(SGD(0.1)))


def test_a_loss_scale_adds_little_to_a_file(tmp_path):
    """Keras would save the variables of the inner optimizer twice."""

    def numbers(optimizer):
        path = tmp_path / "model.weights.h5"
        small_model(optimizer).save_weights(path)
        found = []
        with h5py.File(path) as file:
            file.visititems(lambda _, item: found.append(getattr(item, "size", 0)))
        return sum(found)

    scaled, plain = numbers(LossScaleOptimizer(SGD(0.1))), numbers(SGD(0.1))
    assert plain < scaled < plain + 8  # the scale, two counters and a rate


def test_a_full_disk_is_an_error_with_the_folder_and_others_pass():
    full = "flush failed: No space left on device; errno = 28"
    message = "cannot be written to runs/mine: No space left on device. What was saved"
    with pytest.raises(OSError, match=message), disk_explained("runs/mine"):
        raise RuntimeError(full)
    with pytest.raises(KeyError, match="no boxes"), disk_explained("runs/mine"):
        raise KeyError("no boxes")
