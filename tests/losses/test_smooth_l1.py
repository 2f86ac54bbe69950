import keras
import numpy as np
import pytest
from gradients import gradient
from keras import ops

from libra_keras.losses import SmoothL1Loss, smooth_l1


@pytest.mark.portable
@pytest.mark.parametrize(
    ("beta", "expected", "slope"),
    [
        (1.0, [0, 0.125, 0.5, 2.5], [0, -0.5, 1, -1]),
        (0.5, [0, 0.25, 0.75, 2.75], [0, -1, 1, -1]),  # 0.5 is beta itself: already linear
        (2.0, [0, 0.0625, 0.25, 2.0], [0, -0.25, 0.5, -1]),
        (0.0, [0, 0.5, 1, 3], [0, -1, 1, -1]),  # plain L1; slope 0 at 0
    ],
)
def test_hand_computed_values_and_slopes(beta, expected, slope):
    zero, error = np.zeros(4, "float32"), np.array([0, -0.5, 1, -3], "float32")
    np.testing.assert_allclose(smooth_l1(zero, error, beta), expected, rtol=1e-6)
    np.testing.assert_allclose(gradient(lambda x: smooth_l1(zero, x, beta), error), slope, 1e-6)


def test_is_keras_huber_over_beta(rng):
    y_true, y_pred = rng.normal(size=(2, 7, 4)).astype("float32") * 2
    huber = ops.convert_to_numpy(keras.losses.huber(y_true, y_pred, delta=0.7)) * 4 / 0.7
    np.testing.assert_allclose(SmoothL1Loss(beta=0.7).call(y_true, y_pred), huber, rtol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 1e-30, 1 / 9])
def test_huge_and_tiny_errors_keep_a_finite_slope(beta):
    errors = np.array([1e30, np.inf, 0.0, -1e-20], "float32")
    slope = gradient(lambda x: smooth_l1(np.zeros(4, "float32"), x, beta), errors)
    assert np.all(np.isfinite(slope)) and np.all(np.abs(slope) <= 1)


@pytest.mark.portable
def test_call_adds_the_terms_of_a_box_and_the_object_reduces():
    y_true, y_pred = np.zeros((2, 3, 4), "float32"), np.ones((2, 3, 4), "float32")
    np.testing.assert_allclose(SmoothL1Loss().call(y_true, y_pred), np.full((2, 3), 2.0))
    assert float(SmoothL1Loss()(y_true, y_pred)) == 2.0
    assert float(SmoothL1Loss(reduction="sum")(y_true, y_pred)) == 12.0


def test_is_float32_for_half_precision_inputs():
    loss = SmoothL1Loss().call(ops.zeros((2, 4), "bfloat16"), ops.ones((2, 4), "bfloat16"))
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"


def test_config_round_trip():
    loss = SmoothL1Loss(beta=0.0, reduction="none", name="rpn", dtype="float16")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(copy) is SmoothL1Loss
    assert copy.get_config() == loss.get_config()
    assert copy.get_config() == {
        "beta": 0.0,
        "reduction": "none",
        "name": "rpn",
        "dtype": "float16",
    }
