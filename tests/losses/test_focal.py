import keras
import numpy as np
import pytest
from gradients import gradient
from keras import ops

from libra_keras.losses import FocalLoss, focal

pytestmark = pytest.mark.portable


@pytest.mark.parametrize(
    ("present", "logit", "expected"),
    [
        (1, 0.0, 0.25 * 0.5**2 * np.log(2)),
        (0, 0.0, 0.75 * 0.5**2 * np.log(2)),
        (1, np.log(3), 0.25 * 0.25**2 * np.log(4 / 3)),  # sigmoid(log 3) = 3/4
        (0, np.log(3), 0.75 * 0.75**2 * np.log(4)),
    ],
)
def test_hand_computed_values(present, logit, expected):
    loss = focal(np.array([present]), np.array([logit], "float32"))
    np.testing.assert_allclose(ops.convert_to_numpy(loss), [expected], rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
def test_values_and_slopes_are_those_of_the_formula(rng, gamma):
    y_true = rng.random((50, 4)) < 0.5
    logits = rng.uniform(-8, 8, (50, 4)).astype("float32")
    p = 1 / (1 + np.exp(-np.where(y_true, 1.0, -1.0) * logits.astype("float64")))
    weight = np.where(y_true, 0.3, 0.7)
    expected = -weight * (1 - p) ** gamma * np.log(p)
    np.testing.assert_allclose(focal(y_true, logits, 0.3, gamma), expected, rtol=2e-5)
    # derivative by p, times p (1 - p), times the sign of the evidence
    slope = weight * (1 - p) ** gamma * (gamma * p * np.log(p) - (1 - p))
    slope *= np.where(y_true, 1.0, -1.0)
    ours = gradient(lambda x: focal(y_true, x, 0.3, gamma), logits)
    np.testing.assert_allclose(ours, slope, rtol=2e-5, atol=1e-7)


def test_is_half_of_cross_entropy_without_focus(rng):
    y_true, logits = rng.random((9, 3)) < 0.5, rng.normal(size=(9, 3)).astype("float32") * 4
    entropy = ops.binary_crossentropy(ops.cast(y_true, "float32"), logits, from_logits=True)
    expected = ops.convert_to_numpy(entropy) / 2
    np.testing.assert_allclose(focal(y_true, logits, alpha=0.5, gamma=0.0), expected, rtol=1e-5)


def test_huge_logits_have_finite_values_and_slopes():
    logits = np.array([1e30, -1e30, 200, -200, 0], "float32")
    for present in (True, False):
        y_true = np.full(5, present)
        loss = ops.convert_to_numpy(focal(y_true, logits))
        slope = gradient(lambda x, y_true=y_true: focal(y_true, x), logits)
        assert np.isfinite(loss).all() and np.isfinite(slope).all()
        right = logits[[0, 2]] if present else logits[[1, 3]]
        assert not ops.convert_to_numpy(focal(np.full(2, present), right)).any()
        wrong = slope[[1, 3]] if present else slope[[0, 2]]
        # a very wrong logit is pushed as by cross-entropy
        np.testing.assert_allclose(wrong, [-0.25] * 2 if present else [0.75] * 2, rtol=1e-5)


def test_call_adds_the_classes_of_a_box_and_the_object_reduces():
    y_true, logits = np.zeros((2, 3, 4), "float32"), np.zeros((2, 3, 4), "float32")
    each = 0.75 * 0.25 * np.log(2)
    np.testing.assert_allclose(FocalLoss().call(y_true, logits), np.full((2, 3), 4 * each), 1e-5)
    assert float(FocalLoss()(y_true, logits)) == pytest.approx(4 * each, rel=1e-5)
    assert float(FocalLoss(reduction="sum")(y_true, logits)) == pytest.approx(24 * each, rel=1e-5)


def test_is_float32_for_half_precision_inputs():
    loss = FocalLoss().call(ops.zeros((2, 4), "bfloat16"), ops.ones((2, 4), "bfloat16"))
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"


def test_config_round_trip():
    loss = FocalLoss(alpha=0.4, gamma=1.5, reduction="none", name="classes", dtype="float16")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(copy) is FocalLoss
    assert copy.get_config() == loss.get_config()
    expected = {"alpha": 0.4, "gamma": 1.5, "reduction": "none", "name": "classes"}
    assert copy.get_config() == {**expected, "dtype": "float16"}
