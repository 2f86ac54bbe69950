"""What both optimizers do around their arithmetic: averages, accumulation and rates by part."""

import keras
import numpy as np
import pytest
from applying import apply, run
from keras import ops

from libra_keras.models.distributed import LossScaleOptimizer
from libra_keras.training import SGD, AdamW, WarmupMultiStep, learning_rate_at

pytestmark = pytest.mark.portable
PLAIN = {"momentum": 0.0, "weight_decay": 0.0}
OPTIMIZERS = [SGD, AdamW]


def scalars(*values):
    return [[np.float32([value])] for value in values]


def numbers(variables):
    return [float(ops.convert_to_numpy(variable)[0]) for variable in variables]


def averages(optimizer):
    return numbers(optimizer._model_variables_moving_average)


def test_averages_by_hand():
    optimizer = SGD(1.0, **PLAIN, use_ema=True, ema_momentum=0.75)
    (parameter,) = run(optimizer, [np.float32([8.0])], scalars(1.0, 2.0, np.nan, 1.0))
    # Weights after updates: 7, 5, 4. Averages: 7, 0.75 * 7 + 0.25 * 5 = 6.5, and 5.875; what is
    # left out moves nothing.
    np.testing.assert_allclose(parameter, [4.0])
    np.testing.assert_allclose(averages(optimizer), [5.875])
    assert int(optimizer.iterations) == 3


def test_averages_follow_updates_not_batches():
    options = {"use_ema": True, "ema_momentum": 0.75}
    optimizer = SGD(1.0, **PLAIN, **options, gradient_accumulation_steps=2)
    run(optimizer, [np.float32([8.0])], scalars(1.0, 1.0, 2.0, 2.0, 5.0))
    np.testing.assert_allclose(averages(optimizer), [6.5])  # of 7 and 5; the 5.0 waits


@pytest.mark.parametrize("accumulated", [None, 2])
def test_the_mean_of_the_last_weights_by_hand(accumulated):
    options = {"average_from": 1, "gradient_accumulation_steps": accumulated}
    optimizer, parameter = SGD(1.0, **PLAIN, **options), keras.Variable([8.0])
    found = []
    # Weights: 7 | 5, 4, 0. Means: 7 until then, 5, 4.5, 3; what is left out moves nothing.
    for gradient in (1.0, np.nan, 2.0, 1.0, np.inf, 4.0):
        for _ in range(1 if np.isnan(gradient) else accumulated or 1):
            apply(optimizer, [parameter], [np.float32([gradient])])
        found += averages(optimizer)
    assert found == [7.0, 7.0, 5.0, 4.5, 4.5, 3.0]
    assert numbers([parameter]) == [0.0] and int(optimizer.iterations) == 4


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("start", [0, 3])
def test_the_mean_of_the_last_weights(kind, start, rng):
    optimizer, parameter = kind(0.1, average_from=start), keras.Variable(rng.normal(size=3))
    weights = []
    for update in range(9):
        apply(optimizer, [parameter], [rng.normal(size=3).astype("float32")])
        weights.append(ops.convert_to_numpy(parameter))
        (mean,) = map(ops.convert_to_numpy, optimizer._model_variables_moving_average)
        if update <= start:
            np.testing.assert_array_equal(mean, weights[-1])
        else:
            np.testing.assert_allclose(mean, np.mean(weights[start:], axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [-1, 1.0, True])
def test_averages_begin_after_a_number_of_updates(value):
    with pytest.raises(ValueError, match=f"`average_from` must be an int >= 0. .*: {value}"):
        AdamW(average_from=value)


def test_averages_before_the_first_update_are_the_weights():
    optimizer = SGD(1.0, use_ema=True)
    run(optimizer, [np.float32([8.0])], scalars(np.nan))
    np.testing.assert_array_equal(averages(optimizer), [8.0])


def test_weights_that_were_never_updated_stay_at_the_end_of_a_training():
    """Under a loss scale, which looks for its value first, averages are still zeros."""
    inner = SGD(1.0, use_ema=True)
    optimizer, parameter = LossScaleOptimizer(inner), keras.Variable([8.0])
    apply(optimizer, [parameter], [np.float32([np.inf])])
    np.testing.assert_array_equal(averages(inner), [0.0])
    optimizer.finalize_variable_values([parameter])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(parameter), [8.0])


def test_averages_can_overwrite_the_weights():
    options = {"use_ema": True, "ema_momentum": 0.75, "ema_overwrite_frequency": 2}
    optimizer = SGD(1.0, **PLAIN, **options)
    (parameter,) = run(optimizer, [np.float32([8.0])], scalars(1.0, 2.0, 1.0))
    np.testing.assert_allclose(parameter, [5.5])  # 7, then 5 but overwritten by 6.5, then 5.5


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_two_micro_batches_are_one_batch_with_the_mean_gradient(kind, rng):
    parameters = [rng.normal(size=(3, 2)).astype("float32"), np.float32([0.5, -2.0])]
    gradients = [
        [rng.normal(size=p.shape).astype("float32") for p in parameters] for _ in range(12)
    ]
    means = [
        [(a + b) / 2 for a, b in zip(first, second, strict=True)]
        for first, second in zip(gradients[::2], gradients[1::2], strict=True)
    ]
    options = {"weight_decay": 0.05, "global_clipnorm": 0.5, "use_ema": True, "ema_momentum": 0.5}
    # The rate drops after the third update: schedules count updates.
    whole, parts = (
        kind(WarmupMultiStep(0.1, 2, 0.5, drops=(3,)), **options, gradient_accumulation_steps=k)
        for k in (None, 2)
    )
    expected, ours = run(whole, parameters, means), run(parts, parameters, gradients)
    for mine, reference in zip(ours, expected, strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-5, atol=1e-6)
    for mine, reference in zip(
        parts._model_variables_moving_average, whole._model_variables_moving_average, strict=True
    ):
        mine, reference = ops.convert_to_numpy(mine), ops.convert_to_numpy(reference)
        np.testing.assert_allclose(mine, reference, rtol=1e-5, atol=1e-6)
    assert int(parts.iterations) == int(whole.iterations) == 6
    assert [learning_rate_at(parts, step) for step in range(12)] == [
        learning_rate_at(whole, step // 2) for step in range(12)
    ]


def test_clipping_sees_the_mean_gradient():
    optimizer = SGD(1.0, **PLAIN, global_clipnorm=1.0, gradient_accumulation_steps=2)
    (parameter,) = run(optimizer, [np.float32([8.0])], scalars(6.0, -5.0))
    np.testing.assert_allclose(parameter, [7.5])  # the mean 0.5 is within the norm


def named(*names):
    """Variables with paths, as those of a model's layers have them."""
    variables = []
    for name in names:
        layer = keras.layers.Dense(1, use_bias=False, name=name, kernel_initializer="ones")
        layer.build((None, 1))
        variables.append(layer.kernel)
    return variables


def moved(optimizer, *names):
    variables = named(*names)
    apply(optimizer, variables, [np.ones((1, 1), "float32")] * len(names))
    return [1 - float(ops.convert_to_numpy(v)[0, 0]) for v in variables]


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("bad", [-np.inf, np.nan])
@pytest.mark.parametrize("accumulated", [None, 2])
@pytest.mark.parametrize("clip", [{"clipvalue": 1.0}, {"global_clipnorm": 1.0}])
def test_clipping_hides_nothing_that_is_not_finite(kind, bad, accumulated, clip):
    options = {**clip, "gradient_accumulation_steps": accumulated}
    start, good = [np.float32([8.0])], scalars(0.5, 0.25, 0.5, 0.25)
    expected = run(kind(1.0, weight_decay=0.0, **options), start, good)
    optimizer = kind(1.0, weight_decay=0.0, **options)
    found = run(optimizer, start, [*scalars(bad), *good[:1], *scalars(bad), *good[1:]])
    np.testing.assert_array_equal(found, expected)
    assert int(optimizer.nonfinite_updates) == 2


def test_keras_own_schedules_count_batches():
    rate = WarmupMultiStep(1.0, warmup_steps=0, drops=(4,))
    theirs = keras.optimizers.SGD(rate, gradient_accumulation_steps=2)
    ours = SGD(rate, gradient_accumulation_steps=2)
    assert [learning_rate_at(theirs, step) for step in (3, 4)] == pytest.approx([1, 0.1])
    assert [learning_rate_at(ours, step) for step in (7, 8)] == pytest.approx([1, 0.1])
    # What Keras applies: after four batches, two updates, the rate has dropped.
    (parameter,) = run(theirs, [np.float32([8.0])], scalars(*[1.0] * 6))
    np.testing.assert_allclose(parameter, [8 - 1 - 1 - 0.1], rtol=1e-6)


@pytest.mark.parametrize("name", ["beta_1", "beta_2"])
def test_adams_averages_must_forget(name):
    for value in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match=rf"`{name}` must be in \[0, 1\)"):
            AdamW(**{name: value})


def test_rates_by_part():
    optimizer = SGD(0.5, **PLAIN, rate_multipliers={"body": 0.25, "head": 0.0})
    np.testing.assert_allclose(moved(optimizer, "body", "head", "rest"), [0.125, 0.0, 0.5])
    # The first step of Adam has the size of the rate; decay is multiplied along with it.
    optimizer = AdamW(0.5, weight_decay=0.1, rate_multipliers={"body": 0.25})
    steps = moved(optimizer, "body", "rest")
    np.testing.assert_allclose(steps, [0.125 + 0.0125, 0.5 + 0.05], rtol=1e-5)


def test_names_of_parts_are_whole_names():
    with pytest.raises(ValueError, match="bod, which has no trainable variable.*body/kernel"):
        moved(SGD(0.5, rate_multipliers={"bod": 0.25}), "body")


def test_parts_can_be_told():
    optimizer = SGD(0.5, **PLAIN, rate_multipliers={"mine": 0.25})
    variables = named("one", "two")
    optimizer.set_parts({"mine": variables[:1], "other": variables[1:]})
    apply(optimizer, variables, [np.ones((1, 1), "float32")] * 2)
    values = [float(ops.convert_to_numpy(v)[0, 0]) for v in variables]
    np.testing.assert_allclose(values, [1 - 0.125, 1 - 0.5])


def test_negative_multipliers_are_refused():
    with pytest.raises(ValueError, match=r"must not be negative. Received: \{'body': -1\}"):
        SGD(0.5, rate_multipliers={"body": -1})


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_config_round_trip_with_all_options(kind):
    optimizer = kind(
        WarmupMultiStep(0.3, 5),
        weight_decay=1e-3,
        global_clipnorm=35.0,
        use_ema=True,
        ema_momentum=0.9,
        ema_overwrite_frequency=3,
        average_from=7,
        gradient_accumulation_steps=4,
        rate_multipliers={"backbone": 0.1},
    )
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert again.get_config() == optimizer.get_config()
    assert (again.average_from, again.rate_multipliers) == (7, {"backbone": 0.1})
