import functools

import keras
import numpy as np
import pytest
from gradients import gradient
from keras import ops
from parity import relative_error

from libra_keras.losses import BalancedL1Loss, balanced_l1

ERRORS = [0, 0.01, 0.05, 0.1, 0.11, 0.5, 1.0, 2.0]


@pytest.mark.portable
@pytest.mark.parametrize(
    ("beta", "form", "expected"),
    [
        # Evaluated from the formulas in double precision.
        (
            1.0,
            "reference",
            [0, 0.00044939, 0.00930359, 0.03135309, 0.03685194, 0.40056751, 1.07859354, 2.57859354],
        ),
        (
            0.11,
            "reference",
            [0, 0.02638969, 0.09119712, 0.17170954, 0.18859354, 0.77359354, 1.52359354, 3.02359354],
        ),
        (
            0.11,
            "continuous",
            [0, 0.00293023, 0.03827963, 0.10386775, 0.11864529, 0.70364529, 1.45364529, 2.95364529],
        ),
    ],
)
def test_hand_computed_values(beta, form, expected):
    errors = np.array(ERRORS, "float32")
    for sign in (1, -1):
        loss = balanced_l1(np.zeros(8, "float32"), sign * errors, beta=beta, form=form)
        np.testing.assert_allclose(ops.convert_to_numpy(loss), expected, atol=5e-8, rtol=1e-6)


@pytest.mark.portable
def test_slope_is_the_papers():
    # Equation 7 at beta 1: alpha * ln(b x + 1), up to gamma; an error of 0 has slope 0.
    expected = [0, 0.087336, 0.335010, 0.533828, 0.565606, 1.177720, 1.5, 1.5]
    errors = np.array(ERRORS, "float32")
    slope = gradient(lambda x: balanced_l1(np.zeros(8, "float32"), x), errors)
    np.testing.assert_allclose(slope, expected, atol=1e-6)


@pytest.mark.parametrize("beta", [0.11, 0.5, 2.0])
def test_continuous_form_has_a_continuous_slope(beta):
    errors = np.linspace(0.01, 3 * beta, 50).astype("float32")
    slope = gradient(
        lambda x: balanced_l1(np.zeros(50, "float32"), x, beta=beta, form="continuous"), errors
    )
    b = np.expm1(3.0)
    np.testing.assert_allclose(slope, np.minimum(0.5 * np.log(b * errors / beta + 1), 1.5), 1e-5)


@pytest.mark.portable
@pytest.mark.parametrize("k", range(5))
def test_equals_the_reference(reference, record_error, k):
    data = reference("balanced_l1.npz")
    target, pred = data[f"target{k}"], data[f"pred{k}"]
    parameters = data["params"].astype(float).round(6)[k]  # alpha, gamma, beta

    def terms(pred):
        return balanced_l1(target, pred, *parameters)

    def weighted(pred):
        return ops.multiply(terms(pred), data["weight"] / data["avg_factor"])

    def check(name, found, expected, floor=0.0):
        record_error(f"balanced L1: {name}", relative_error(found, expected, floor), 1e-5)

    # Small terms are differences of larger ones, and lose digits in the reference as well.
    check("terms", terms(pred), data[f"loss{k}"], floor=2e-3)
    check("terms, against float64", terms(pred), data[f"loss{k}_f64"], floor=2e-3)
    check("slope", gradient(terms, pred), data[f"grad{k}"], floor=0.01)
    check("weighted sum", ops.sum(weighted(pred)), data[f"wloss{k}"])
    check("slope of the weighted sum", gradient(weighted, pred), data[f"wgrad{k}"], floor=0.01 / 37)
    mean = ops.divide(BalancedL1Loss(*parameters)(target, pred), 4)  # ours adds up a box's four
    check("mean", mean, data[f"mean{k}"])


def test_huge_errors_keep_a_finite_slope():
    errors = np.array([1e30, -1e30, np.inf], "float32")
    slope = gradient(lambda x: balanced_l1(np.zeros(3, "float32"), x), errors)
    np.testing.assert_array_equal(slope, [1.5, -1.5, 1.5])


@pytest.mark.portable
def test_call_adds_the_terms_of_a_box_and_the_object_reduces():
    y_pred = np.zeros((2, 3, 4), "float32")
    y_pred[0, 1] = 1.0
    loss = BalancedL1Loss()
    per_box = ops.convert_to_numpy(loss.call(np.zeros_like(y_pred), y_pred))
    np.testing.assert_allclose(per_box, [[0, 4 * 1.07859354, 0], [0, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(loss(np.zeros_like(y_pred), y_pred), per_box.mean(), rtol=1e-6)
    weights = np.array([[0, 0.5, 0], [1, 1, 1]], "float32")
    weighted = BalancedL1Loss(reduction="sum")(np.zeros_like(y_pred), y_pred, weights)
    np.testing.assert_allclose(weighted, 2 * 1.07859354, rtol=1e-6)


def test_no_boxes_give_an_empty_result():
    assert BalancedL1Loss().call(np.zeros((2, 0, 4)), np.zeros((2, 0, 4))).shape == (2, 0)


def test_is_float32_for_half_precision_inputs():
    y_pred = ops.cast([[0.5, 0.25, 0.0, 2.0]], "bfloat16")
    loss = BalancedL1Loss().call(ops.zeros((1, 4), "bfloat16"), y_pred)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    exact = balanced_l1(np.zeros((1, 4)), np.array([[0.5, 0.25, 0, 2]]))
    np.testing.assert_allclose(loss, ops.sum(exact, -1), rtol=1e-6)


def test_config_round_trip():
    loss = BalancedL1Loss(
        0.3, 1.0, 0.11, "continuous", reduction="sum", name="box", dtype="float16"
    )
    config = keras.saving.serialize_keras_object(loss)
    copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is BalancedL1Loss
    assert copy.get_config() == loss.get_config()
    assert copy.get_config() == {
        "alpha": 0.3,
        "gamma": 1.0,
        "beta": 0.11,
        "form": "continuous",
        "reduction": "sum",
        "name": "box",
        "dtype": "float16",
    }


def test_says_what_is_wrong():
    for made in (BalancedL1Loss, functools.partial(balanced_l1, [0.0], [0.0])):
        with pytest.raises(ValueError, match="form='smooth'"):
            made(form="smooth")
        with pytest.raises(ValueError, match="`gamma` must be a number above 0. Received: -1"):
            made(gamma=-1)


@pytest.mark.parametrize(
    "given", [{"alpha": 0.015}, {"gamma": 50.0}, {"beta": 1e-38, "alpha": 0.1}]
)
@pytest.mark.parametrize("form", ["reference", "continuous"])
def test_what_would_overflow_is_refused(given, form):
    with pytest.raises(ValueError, match="`gamma / alpha` must be at most 80"):
        BalancedL1Loss(form=form, **given)
    with pytest.raises(ValueError, match="`gamma / alpha` must be at most 80"):
        balanced_l1([0.0], [0.5], form=form, **given)
    loss = balanced_l1([0.0, 0.0, 0.0], [0.0, 0.5, 2.0], alpha=0.02, form=form)
    assert np.isfinite(ops.convert_to_numpy(loss)).all()
