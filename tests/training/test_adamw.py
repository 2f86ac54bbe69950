import keras
import numpy as np
import pytest
from applying import run

from libra_keras.training import AdamW, WarmupMultiStep


@pytest.fixture
def problem(rng):
    start = [rng.normal(size=(3, 2)).astype("float32"), np.float32([0.5, -2.0])]
    shapes = [value.shape for value in start]
    return start, [[rng.normal(size=s).astype("float32") for s in shapes] for _ in range(12)]


def test_equals_keras(problem):
    arguments = {"weight_decay": 0.05, "beta_1": 0.8, "global_clipnorm": 1.5}
    ours = run(AdamW(WarmupMultiStep(0.1, 5, 0.01), **arguments), *problem)
    theirs = keras.optimizers.AdamW(WarmupMultiStep(0.1, 5, 0.01), **arguments)
    for mine, expected in zip(ours, run(theirs, *problem), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nonfinite_gradient_leaves_everything_alone(problem, value):
    start, gradients = problem
    bad = [gradients[0][0], np.float32([1.0, value])]  # the first tensor is finite
    optimizer, other = AdamW(0.1), AdamW(0.1)
    ours = run(optimizer, start, [gradients[0], bad, gradients[1], bad, gradients[2]])
    for mine, expected in zip(ours, run(other, start, gradients[:3]), strict=True):
        np.testing.assert_array_equal(mine, expected)
    assert int(optimizer.iterations) == 3
    assert int(optimizer.nonfinite_updates) == 2


def test_config_round_trip():
    optimizer = AdamW(WarmupMultiStep(0.3, 5), weight_decay=0.1, beta_1=0.8, global_clipnorm=2.0)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert isinstance(again, AdamW)
    assert again.get_config() == optimizer.get_config()
    assert (again.beta_1, again.weight_decay) == (0.8, 0.1)


@pytest.mark.parametrize("wrong", [{"weight_decay": -1.0}, {"amsgrad": True}])
def test_errors(wrong):
    with pytest.raises(ValueError, match=str(*wrong.values())):
        AdamW(0.1, **wrong)
