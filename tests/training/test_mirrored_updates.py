"""Two replicas make the updates of one device, with every option of the optimizers at once."""

import subprocess
import sys

import keras
import pytest
from conftest import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow", reason="MirroredStrategy is TensorFlow's"
    ),
]
START = """
import keras, numpy as np, tensorflow as tf
from libra_keras.training.averages import averaged_weights
from libra_keras.models.distributed import LossScaleOptimizer
from libra_keras.training import SGD, AdamW, StopOnNonFinite, WarmupMultiStep
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
one, two = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
rng = np.random.default_rng(0)
x, y = (rng.normal(size=(48, n)).astype("float32") for n in (2, 1))

def trained(strategy, optimizer, y):
    with strategy.scope():
        layers = [keras.layers.Dense(n, use_bias=False, name=f"{n}_units") for n in (2, 1)]
        model = keras.Sequential([keras.Input((2,)), *layers])
        model.set_weights([np.float32([[1.0, 0.5], [-1.0, 0.2]]), np.float32([[0.3], [0.7]])])
        model.compile(optimizer(), "mse", jit_compile=False)
    guard = StopOnNonFinite()
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[guard])
    return model, guard

def check_equal(ours, expected):
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-7)
"""
ALL_OPTIONS = """
for kind, average in ((SGD, dict(use_ema=True, ema_momentum=0.7)), (AdamW, dict(average_from=2))):
    options = dict(gradient_accumulation_steps=3, **average)
    options |= dict(global_clipnorm=0.3, rate_multipliers={"2_units": 0.1})
    (single, _), (double, guard) = (
        trained(s, lambda: kind(WarmupMultiStep(0.1, 2, 0.5, drops=(3,)), **options), y)
        for s in (one, two)
    )
    assert guard.failure is None
    assert keras.ops.convert_to_numpy(double.optimizer.iterations) == 4
    check_equal(double.variables, single.variables)
    check_equal(double.optimizer.variables, single.optimizer.variables)
    double.set_weights([w + 1 for w in single.get_weights()])  # `fit` has put averages in place
    with averaged_weights(double):
        check_equal(double.variables, single.variables)
    np.testing.assert_array_equal(double.get_weights()[0], single.get_weights()[0] + 1)
print("equal")
"""
LOSS_SCALE = """
y[6:8] = 1e18  # of the second batch: the second replica alone overflows, and only when scaled
inner = dict(gradient_accumulation_steps=2, use_ema=True)
make = lambda: LossScaleOptimizer(SGD(0.1, **inner), initial_scale=2.0**100)
(single, _), (double, guard) = (trained(s, make, y) for s in (one, two))
assert guard.failure is None
assert double.optimizer.dynamic_scale.numpy() == 2.0**99  # halved once
assert double.optimizer.inner_optimizer.nonfinite_updates.numpy() == 0
check_equal(double.variables, single.variables)
print("equal")
"""


@pytest.mark.parametrize("script", [ALL_OPTIONS, LOSS_SCALE], ids=["all options", "loss scale"])
def test_two_replicas_equal_one_device(script):
    # In a process of its own: logical devices must be set before TensorFlow starts.
    code = [sys.executable, "-W", "ignore", "-c", START + script]
    done = subprocess.run(code, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.stdout.endswith("equal\n"), done.stderr[-2000:]
