import subprocess
import sys

import keras
import numpy as np
import pytest
from applying import apply, run
from conftest import ROOT
from keras import ops

from libra_keras.training import SGD, AdamW, WarmupMultiStep

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"


def torch_sgd(parameters, gradients, rates, momentum, weight_decay, max_norm=None):
    """PyTorch's documented update, in float64: buf = g first, then buf = momentum * buf + g."""
    parameters = [np.asarray(p, "float64") for p in parameters]
    buffers = [None] * len(parameters)
    for step, rate in enumerate(rates):
        raw = [np.asarray(g, "float64") for g in gradients[step]]
        norm = np.sqrt(sum((g**2).sum() for g in raw))
        scale = 1.0 if max_norm is None else min(1.0, max_norm / norm)
        for i, gradient in enumerate(raw):
            gradient = gradient * scale + weight_decay * parameters[i]
            buffers[i] = gradient if buffers[i] is None else momentum * buffers[i] + gradient
            parameters[i] = parameters[i] - rate * buffers[i]
    return parameters


@pytest.fixture
def problem(rng):
    parameters = [rng.normal(size=(3, 2)).astype("float32"), np.float32([0.5, -2.0])]
    shapes = [p.shape for p in parameters]
    return parameters, [[rng.normal(size=s).astype("float32") for s in shapes] for _ in range(50)]


@pytest.mark.parametrize("max_norm", [None, 1.5])
def test_fifty_steps_of_warmup_and_drops_equal_pytorch(problem, max_norm):
    parameters, gradients = problem
    # Warm-up over 10 steps (9 intervals), drops at 30 and 40, written out by hand.
    drops = [1.0] * 30 + [0.1] * 10 + [0.01] * 10
    rates = [0.1 * (0.01 + 0.99 * min(t / 9, 1)) * drops[t] for t in range(50)]
    schedule = WarmupMultiStep(0.1, 10, 0.01, drops=(30, 40))
    optimizer = SGD(schedule, momentum=0.9, weight_decay=0.05, global_clipnorm=max_norm)
    ours = run(optimizer, parameters, gradients)
    expected = torch_sgd(parameters, gradients, rates, 0.9, 0.05, max_norm)
    for mine, reference in zip(ours, expected, strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-5, atol=1e-6)
    assert int(optimizer.iterations) == 50


def test_two_steps_by_hand():
    # g = 1 + 0.5 * 2 = 2, v = 2, p = 2 - 0.1 * 2 = 1.8
    # g = 1 + 0.5 * 1.8 = 1.9, v = 0.5 * 2 + 1.9 = 2.9, p = 1.8 - 0.29 = 1.51
    gradients = [[np.float32([1.0])]] * 2
    (parameter,) = run(SGD(0.1, momentum=0.5, weight_decay=0.5), [np.float32([2.0])], gradients)
    np.testing.assert_allclose(parameter, [1.51], rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nonfinite_gradient_leaves_everything_alone(problem, value):
    parameters, gradients = problem
    bad = [gradients[0][0], np.float32([1.0, value])]  # the first tensor is finite
    with_bad = [gradients[0], gradients[1], bad, gradients[2], bad, gradients[3]]
    optimizer, other = (SGD(WarmupMultiStep(0.1, 4, 0.1)) for _ in range(2))
    ours = run(optimizer, parameters, with_bad)
    expected = run(other, parameters, gradients[:4])
    for mine, reference in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(mine, reference)
    for mine, reference in zip(optimizer.velocities, other.velocities, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(mine), ops.convert_to_numpy(reference))
    assert int(optimizer.iterations) == 4
    assert int(optimizer.nonfinite_updates) == 2
    assert int(other.nonfinite_updates) == 0


def test_accumulation_averages_and_leaves_bad_batches_out():
    gradients = [[np.float32([g])] for g in (1.0, 3.0, np.nan, 1.0, np.inf, 2.0, 4.0)]
    optimizer = SGD(0.5, momentum=0.0, weight_decay=0.0, gradient_accumulation_steps=2)
    (parameter,) = run(optimizer, [np.float32([10.0])], gradients)
    # Updates: mean(1, 3) = 2 and mean(1, 2) = 1.5; what is not finite does not count, 4 waits.
    np.testing.assert_allclose(parameter, [10 - 0.5 * 2 - 0.5 * 1.5])
    assert int(optimizer.iterations) == 2
    assert int(optimizer.nonfinite_updates) == 2


def test_loss_scale_optimizer_unscales_and_keeps_its_own_skips():
    inner = SGD(0.5, momentum=0.0, weight_decay=0.0)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=4.0)
    gradients = [[np.float32([8.0])], [np.float32([np.inf])]]
    (parameter,) = run(optimizer, [np.float32([1.0])], gradients)
    np.testing.assert_allclose(parameter, [1 - 0.5 * 8 / 4])
    assert float(optimizer.dynamic_scale) == 2.0
    assert int(inner.nonfinite_updates) == 0


def test_excluded_variables_do_not_decay():
    variable = keras.Variable(np.float32([1.0]), name="bias")
    optimizer = SGD(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    apply(optimizer, [variable], [np.float32([0.0])])
    np.testing.assert_array_equal(ops.convert_to_numpy(variable), [1.0])


def test_config_round_trip():
    optimizer = SGD(WarmupMultiStep(0.3, 5), 0.8, 1e-3, global_clipnorm=35.0, name="other")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert isinstance(again, SGD)
    assert again.get_config() == optimizer.get_config()
    assert (again.momentum, again.weight_decay, again.global_clipnorm) == (0.8, 1e-3, 35.0)


@pytest.mark.parametrize("wrong", [{"momentum": 1.0}, {"momentum": -0.1}, {"weight_decay": -1.0}])
def test_errors(wrong):
    with pytest.raises(ValueError, match=str(*wrong.values())):
        SGD(0.1, **wrong)


def test_adamw_equals_keras(problem):
    arguments = {"weight_decay": 0.05, "beta_1": 0.8, "global_clipnorm": 1.5}
    start, gradients = problem
    ours = run(AdamW(WarmupMultiStep(0.1, 5, 0.01), **arguments), start, gradients[:12])
    theirs = keras.optimizers.AdamW(WarmupMultiStep(0.1, 5, 0.01), **arguments)
    for mine, expected in zip(ours, run(theirs, start, gradients[:12]), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nonfinite_gradient_leaves_adamw_alone(problem, value):
    start, gradients = problem
    bad = [gradients[0][0], np.float32([1.0, value])]  # the first tensor is finite
    optimizer, other = AdamW(0.1), AdamW(0.1)
    ours = run(optimizer, start, [gradients[0], bad, gradients[1], bad, gradients[2]])
    for mine, expected in zip(ours, run(other, start, gradients[:3]), strict=True):
        np.testing.assert_array_equal(mine, expected)
    assert int(optimizer.iterations) == 3
    assert int(optimizer.nonfinite_updates) == 2


def test_config_round_trip_of_adamw():
    optimizer = AdamW(WarmupMultiStep(0.3, 5), weight_decay=0.1, beta_1=0.8, global_clipnorm=2.0)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert isinstance(again, AdamW)
    assert again.get_config() == optimizer.get_config()
    assert (again.beta_1, again.weight_decay) == (0.8, 0.1)


@pytest.mark.parametrize("wrong", [{"weight_decay": -1.0}, {"amsgrad": True}])
def test_errors_of_adamw(wrong):
    with pytest.raises(ValueError, match=str(*wrong.values())):
        AdamW(0.1, **wrong)


def linear_model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.float32([[1.0], [-1.0]])])
    return model


def test_fit_saves_and_resumes(tmp_path, rng):
    x, y = rng.normal(size=(8, 2)).astype("float32"), rng.normal(size=(8, 1)).astype("float32")
    model = linear_model()
    model.compile(SGD(WarmupMultiStep(0.1, 3)), "mse", jit_compile=False)
    model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert int(again.optimizer.iterations) == 4
    for each in (model, again):
        each.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    np.testing.assert_allclose(again.get_weights()[0], model.get_weights()[0], rtol=1e-6)


MIRRORED = """
import sys
import keras, numpy as np, tensorflow as tf
from libra_keras.training import SGD, StepLogger, StopOnNonFinite, WarmupMultiStep
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
rng = np.random.default_rng(0)
x, y = (rng.normal(size=(16, n)).astype("float32") for n in (2, 1))
y[6:8] = np.nan  # half of the second batch: only the second replica sees it
results, path = [], sys.argv[1]
for scope in (tf.distribute.get_strategy().scope(), strategy.scope()):
    with scope:
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        model.set_weights([np.float32([[1.0], [-1.0]])])
        model.compile(SGD(WarmupMultiStep(0.1, 3), global_clipnorm=1e3), "mse", jit_compile=False)
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    optimizer = model.optimizer
    counts = [int(keras.ops.convert_to_numpy(optimizer.iterations))]
    counts.append(int(keras.ops.convert_to_numpy(optimizer.nonfinite_updates)))
    assert counts == [3, 1], counts
    guard = StopOnNonFinite()
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[guard, StepLogger(path)])
    assert "step 2: a gradient" in guard.failure
    results.append(model.get_weights()[0])
np.testing.assert_allclose(results[0], results[1], rtol=1e-5)
assert np.isfinite(results[1]).all()
print("equal")
"""


@pytest.mark.skipif(not ON_TENSORFLOW, reason="MirroredStrategy is TensorFlow's")
@pytest.mark.slow
def test_two_replicas_equal_one_and_skip_together(tmp_path):
    # In a process of its own: logical devices must be set before TensorFlow starts.
    code = [sys.executable, "-W", "ignore", "-c", MIRRORED, str(tmp_path / "steps.csv")]
    done = subprocess.run(code, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.stdout.endswith("equal\n"), done.stderr[-2000:]
