import keras
import numpy as np
import pytest

from libra_keras.evaluation.callbacks import EpochEvaluation
from libra_keras.training import SGD
from libra_keras.training.averages import averaged_weights, has_averages


def line(**options):
    """One weight of 1 that moves by -0.5, -0.25, ... of itself: the gradient of its square."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.float32([[1.0]])])
    optimizer = SGD(0.25, 0.0, weight_decay=0.0, **options)
    model.compile(optimizer, "mse", jit_compile=False)
    return model


def weight(model):
    return float(model.get_weights()[0][0, 0])


class WeightAsScore(EpochEvaluation):
    """Measures the weight itself; the larger the better."""

    def measure(self, batches):
        return [], {"weight": weight(self.model)}


def fit(model, epochs, callbacks=()):
    one = np.ones((1, 1), "float32")
    return model.fit(one, 0 * one, epochs=epochs, verbose=0, callbacks=list(callbacks)).history


@pytest.mark.parametrize("scaled", [False, True])
def test_evaluation_measures_and_keeps_the_averages(tmp_path, scaled):
    model = line(use_ema=True, ema_momentum=0.75)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(model.optimizer)
        model.compile(optimizer, "mse", jit_compile=False)
    path = tmp_path / "best.weights.h5"
    evaluation = WeightAsScore(["weight"], None, best_weights=path)
    evaluation._get_batches = list
    raw = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: raw.append(weight(model)))
    history = fit(model, 3, [evaluation, watch])
    # The loss is w^2, so each step halves the weight; averages move a quarter of the way.
    np.testing.assert_array_equal(raw, [0.5, 0.25, 0.125])
    expected = [0.5, 0.75 * 0.5 + 0.25 * 0.25, 0.75 * 0.4375 + 0.25 * 0.125]
    np.testing.assert_allclose(history["val_weight"], expected)
    np.testing.assert_allclose(weight(model), expected[-1])  # `fit` ends with the averages
    model.load_weights(path)
    np.testing.assert_allclose(weight(model), expected[0])


def test_the_mean_of_the_last_weights_is_measured():
    model = line(average_from=1)
    assert has_averages(model)
    measured = []

    def measure(*_):
        with averaged_weights(model):
            measured.append(weight(model))

    fit(model, 3, [keras.callbacks.LambdaCallback(on_epoch_end=measure)])
    assert measured == [0.5, 0.25, (0.25 + 0.125) / 2]
    assert weight(model) == measured[-1]  # `fit` ends with the averages


def test_weights_come_back_after_an_error():
    model = line(use_ema=True)
    model.train_on_batch(np.ones((1, 1)), np.zeros((1, 1)))
    model.train_on_batch(np.ones((1, 1)), np.zeros((1, 1)))
    with pytest.raises(RuntimeError), averaged_weights(model):
        assert weight(model) != 0.25
        raise RuntimeError
    assert weight(model) == 0.25


def test_nothing_happens_without_averages():
    model = line()
    assert not has_averages(model)
    with averaged_weights(model):
        assert weight(model) == 1.0
    untrained = line(use_ema=True)  # whose averages are zeros still
    with averaged_weights(untrained):
        assert weight(untrained) == 1.0
    uncompiled = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    with averaged_weights(uncompiled):
        assert not has_averages(uncompiled)
