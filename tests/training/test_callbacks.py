import csv

import keras
import numpy as np
import pytest

from libra_keras.backbones import ResNet
from libra_keras.devices import Devices
from libra_keras.keras_private import batches_of, places_in_fit, value_in_fit
from libra_keras.training import (
    SGD,
    LearningRateLogger,
    StepLogger,
    StopOnNonFinite,
    WarmupMultiStep,
)
from libra_keras.training.stop_nonfinite import moving_variables


def constant_model(optimizer=None):
    """Predicts 0 for ever, so that the loss of a batch is the mean square of its targets."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    optimizer = optimizer or keras.optimizers.SGD(0.0)
    model.compile(optimizer, "mse", metrics=["mae"], jit_compile=False)
    return model


def fit(model, targets, epochs=1, **kwargs):
    y = np.float32(targets)[:, None]
    x = np.zeros_like(y)
    return model.fit(x, y, batch_size=1, epochs=epochs, shuffle=False, verbose=0, **kwargs)


def rows(path, separator=","):
    with open(path) as file:
        return list(csv.DictReader(file, delimiter=separator))


def test_step_logger_writes_interval_means_across_epochs(tmp_path):
    # Targets 1, 2, 3 twice: losses 1, 4, 9, 1, 4, 9. Rows of 2 steps: (1, 4), (9, 1), (4, 9).
    path = tmp_path / "made" / "steps.csv"
    fit(constant_model(), [1, 2, 3], epochs=2, callbacks=[StepLogger(path, every=2)])
    table = rows(path)
    np.testing.assert_allclose([float(r["loss"]) for r in table], [2.5, 5, 6.5], rtol=1e-5)
    np.testing.assert_allclose([float(r["mae"]) for r in table], [1.5, 2, 2.5], rtol=1e-5)
    assert [(r["first_step"], r["last_step"], r["epoch"]) for r in table] == [
        ("1", "2", "1"),
        ("3", "4", "2"),
        ("5", "6", "2"),
    ]


def test_step_logger_writes_the_rest_and_goes_on(tmp_path):
    path = tmp_path / "steps.tsv"
    model = constant_model()
    fit(model, [1, 2, 3], callbacks=[StepLogger(path, every=2)])
    fit(model, [4], callbacks=[StepLogger(path, every=2, append=True)])
    table = rows(path, "\t")
    np.testing.assert_allclose([float(r["loss"]) for r in table], [2.5, 9, 16], rtol=1e-5)
    assert [r["last_step"] for r in table] == ["2", "3", "4"]
    fit(model, [5], callbacks=[StepLogger(path)])
    assert len(rows(path, "\t")) == 1


def test_step_logger_keeps_single_steps_exact_in_a_long_epoch(tmp_path, rng):
    targets = rng.uniform(0.5, 1.5, 400)
    fit(constant_model(), targets, callbacks=[StepLogger(tmp_path / "steps.csv", every=20)])
    got = [float(r["loss"]) for r in rows(tmp_path / "steps.csv")]
    np.testing.assert_allclose(got, (targets**2).reshape(-1, 20).mean(1), rtol=1e-4)


def test_logged_rates_are_those_of_the_last_update(tmp_path):
    model = constant_model(SGD(WarmupMultiStep(1.0, warmup_steps=0, drops=(2, 4))))
    path = tmp_path / "steps.csv"
    history = fit(
        model, [0, 0], epochs=3, callbacks=[LearningRateLogger(), StepLogger(path, every=1)]
    )
    np.testing.assert_allclose(history.history["learning_rate"], [1, 0.1, 0.01], rtol=1e-6)
    written = [float(r["learning_rate"]) for r in rows(path)]
    np.testing.assert_allclose(written, [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-5)


def test_rate_of_a_loss_scaled_optimizer():
    optimizer = keras.optimizers.LossScaleOptimizer(SGD(0.25))
    history = fit(constant_model(optimizer), [1], callbacks=[LearningRateLogger()])
    assert history.history["learning_rate"] == [0.25]


def test_stop_names_the_batch_and_keeps_the_weights(capsys):
    guard = StopOnNonFinite(lambda epoch, step: [f"{epoch}_{step}_{c}.jpg" for c in "ab"])
    model, other = constant_model(SGD(0.1)), constant_model(SGD(0.1))
    history = fit(model, [1, 2, np.nan, 3], epochs=2, callbacks=[guard])
    fit(other, [1, 2])
    assert guard.failure.startswith("Training stopped at epoch 1, step 3: a gradient is not finite")
    assert guard.failure.endswith("Files of the batch: 0_2_a.jpg, 0_2_b.jpg.")
    assert guard.failure in capsys.readouterr().err
    assert len(history.epoch) == 1
    for mine, expected in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, expected)
    assert int(model.optimizer.iterations) == 2


@pytest.mark.portable
def test_a_batch_is_stopped_over_when_the_next_one_has_been_started(capsys):
    guard, model, other = StopOnNonFinite(), constant_model(SGD(0.1)), constant_model(SGD(0.1))
    x, y = np.zeros((5, 1)), np.array([[1], [2], [np.nan], [3], [4]])
    Devices().fit(
        model, x, y=y, batch_size=1, shuffle=False, verbose=0, epochs=2, callbacks=[guard]
    )
    fit(other, [1, 2, 3])
    said = "epoch 1, step 3: a gradient is not finite. That update was not applied, but that of the"
    assert said in guard.failure
    for mine, expected in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, expected)


class Waited:
    """A number of a batch, which notes when it is read: then the device must have computed it."""

    def __init__(self, batch, read):
        self.batch, self.read = batch, read

    def __float__(self):
        self.read.append(self.batch)
        return 1.0


def read_after_each_batch(callback, batches):
    """Of which batches a callback has read a number, after each batch and at the end."""
    model, read, found = constant_model(SGD(0.1)), [], []
    model.optimizer.build(model.trainable_variables)
    callback.set_model(model)
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    for batch in range(batches):
        callback.on_train_batch_begin(batch)
        callback.on_train_batch_end(batch, {"loss": Waited(batch, read)})
        found.append(sorted(set(read)))
    callback.on_epoch_end(0, {})
    callback.on_train_end()
    return [*found, sorted(set(read))]


@pytest.mark.portable
def test_no_callback_waits_for_the_batch_that_was_just_started(tmp_path):
    assert read_after_each_batch(StopOnNonFinite(), 3) == [[], [0], [0, 1], [0, 1, 2]]
    logger = StepLogger(tmp_path / "steps.csv", every=3)
    assert read_after_each_batch(logger, 5) == [[], [], [2], [2], [2], [2, 4]]


@pytest.mark.portable
def test_values_are_there_before_the_model_is_up_to_date():
    seen = []

    class Compare(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            model, count = self._model, batches_of(self._model.optimizer)
            value = keras.ops.copy(value_in_fit(model, places_in_fit(model), count))
            seen.append((int(value), int(self.model.optimizer.iterations)))

    fit(constant_model(SGD(0.1)), [1, 2, 3], callbacks=[Compare()])
    assert seen == [(1, 1), (2, 2), (3, 3)]


def test_stop_on_a_loss_alone(capsys):
    guard = StopOnNonFinite()
    fit(constant_model(keras.optimizers.SGD(0.0)), [1, np.inf, 3], callbacks=[guard])
    assert "step 2: the loss is not finite" in guard.failure
    assert "Files" not in guard.failure


def test_a_good_run_has_no_failure():
    guard = StopOnNonFinite()
    fit(constant_model(SGD(0.1)), [1, 2], epochs=2, callbacks=[guard])
    assert guard.failure is None


@pytest.mark.parametrize("every", [0, 1.5])
def test_errors(every):
    with pytest.raises(ValueError, match=str(every)):
        StepLogger("steps.csv", every)


def test_moving_averages_are_those_before_the_batch():
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.BatchNormalization()(inputs)))
    model.compile(SGD(0.1), "mse")
    kept = {}

    class Keep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 0:
                kept["weights"] = self.model.get_weights()

    x = np.array([[1.0, 2.0], [3.0, 4.0], [1e6, 1e6], [5.0, 5.0]] * 2, "float32")
    y = np.array([[1.0]] * 4 + [[np.nan]] * 4, "float32")
    guard = StopOnNonFinite()
    model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=[guard, Keep()])
    assert "epoch 1, step 2" in guard.failure
    for now, before in zip(model.get_weights(), kept["weights"], strict=True):
        np.testing.assert_array_equal(now, before)


def test_statistics_that_cannot_move_are_not_copied():
    frozen = ResNet(18, width=4, frozen_stages=-1)
    trained = ResNet(18, width=4, batch_norm="trainable", frozen_stages=1)
    for backbone in (frozen, trained):
        backbone.build((None, 64, 64, 3))
    assert moving_variables(keras.Sequential([frozen])) == []
    found = moving_variables(keras.Sequential([trained]))
    # Two of each convolution: 20 in all, of which the stem's and the first stage's 4 are frozen.
    assert [v.name for v in found] == ["moving_mean", "moving_variance"] * 15


def test_steps_of_a_loop_that_begins_in_the_middle_of_an_epoch(capsys):
    guard = StopOnNonFinite(lambda epoch, step: [f"{epoch}_{step}.jpg"], first_step=5)
    fit(constant_model(SGD(0.1)), [1, 2, np.nan], callbacks=[guard])
    assert "epoch 1, step 8: a gradient" in guard.failure
    assert guard.failure.endswith("0_7.jpg.")
    guard = StopOnNonFinite(first_step=5)
    bad = [np.nan if step == 4 else 0 for step in range(6)]
    model = constant_model(SGD(0.1))
    model.fit(
        np.zeros((6, 1)), np.float32(bad)[:, None], batch_size=1, steps_per_epoch=3, epochs=2,
        shuffle=False, verbose=0, callbacks=[guard],
    )  # fmt: skip
    assert "epoch 2, step 2: a gradient" in guard.failure
