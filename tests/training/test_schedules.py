import keras
import numpy as np
import pytest

from libra_keras.training import WarmupMultiStep


def values(schedule, steps):
    return np.array([float(keras.ops.convert_to_numpy(schedule(step))) for step in steps])


def test_warmup_reaches_the_full_rate_at_the_last_warmup_step():
    # mmengine's LinearLR(0.001, begin=0, end=500): 499 intervals, factor 1 at t = 499.
    schedule = WarmupMultiStep(0.02, warmup_steps=500, warmup_factor=0.001)
    expected = [0.02 * (0.001 + 0.999 * t / 499) for t in (0, 1, 250, 498, 499)] + [0.02]
    np.testing.assert_allclose(values(schedule, (0, 1, 250, 498, 499, 500)), expected, rtol=1e-6)


def test_warmup_equals_the_multiplicative_recursion_of_mmengine():
    # mmengine's step: rate *= 1 + (1 - start) / (n * start + (t - 1) * (1 - start))
    n, start, rate = 7, 0.1, 0.5 * 0.1
    expected = [rate]
    for t in range(1, n + 1):
        rate *= 1 + (1 - start) / (n * start + (t - 1) * (1 - start))
        expected.append(rate)
    schedule = WarmupMultiStep(0.5, warmup_steps=n + 1, warmup_factor=start)
    np.testing.assert_allclose(values(schedule, range(n + 1)), expected, rtol=1e-6)


def test_drops_apply_from_their_step_on():
    schedule = WarmupMultiStep(1.0, warmup_steps=0, drops=(3, 5), drop_factor=0.5)
    np.testing.assert_allclose(values(schedule, range(7)), [1, 1, 1, 0.5, 0.5, 0.25, 0.25])


@pytest.mark.parametrize("warmup_steps", [0, 1])
def test_no_warmup(warmup_steps):
    np.testing.assert_allclose(values(WarmupMultiStep(2.0, warmup_steps), (0, 1)), [2, 2])


def test_config_round_trip():
    schedule = WarmupMultiStep(0.3, 11, 0.25, drops=(20, 30), drop_factor=0.2, name="named")
    config = keras.saving.serialize_keras_object(schedule)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == schedule.get_config()
    np.testing.assert_array_equal(values(again, range(0, 40, 3)), values(schedule, range(0, 40, 3)))


def test_drops_must_increase():
    with pytest.raises(ValueError, match="increasing"):
        WarmupMultiStep(0.1, drops=(5, 5))
