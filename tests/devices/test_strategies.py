"""Which devices are chosen, and which ones a model was built under."""

import json
import subprocess
import sys

import keras
import pytest
from processes import environment, need

from libra_keras.devices import Devices, TooLate, devices_of, devices_of_machine

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="strategies are TensorFlow's"
)
REPLICAS = """
import json, keras, numpy as np, tensorflow as tf
from libra_keras.devices import devices_of
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
with devices_of(model) as devices, devices.scope():
    own = tf.distribute.get_strategy() is strategy
    model.compile("sgd", "mse")
data = tf.data.Dataset.from_tensor_slices((np.ones((4, 1)), np.ones((4, 1)))).batch(4)
loss = devices.fit(model, data, verbose=0).history["loss"]
print(json.dumps([type(devices).__name__, devices.names, devices.num, own, len(loss)]))
"""
SHARDS = """
import json, keras, numpy as np
from libra_keras.devices import devices_of
parallel = keras.distribution.DataParallel(devices=keras.distribution.list_devices()[:2])
def build():
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
outside = devices_of(build())
with parallel.scope():
    model = build()
    devices = devices_of(model)
with devices, devices.scope():
    own = keras.distribution.distribution() is parallel
    model.compile("sgd", "mse")
    loss = devices.fit(model, np.ones((4, 1)), y=np.ones((4, 1)), verbose=0).history["loss"]
after = keras.distribution.distribution()
print(json.dumps([type(devices).__name__, devices.names, devices.num, own, len(loss)]))
assert after is None and type(outside).__name__ == "Devices"
shape = {"shape": (2, 2), "axis_names": ["batch", "model"]}
mesh = keras.distribution.DeviceMesh(**shape, devices=keras.distribution.list_devices())
both = keras.distribution.ModelParallel(
    layout_map=keras.distribution.LayoutMap(mesh), batch_dim_name="batch"
)
with both.scope():
    assert devices_of(build()).num == 2  # parts of a batch, on four devices
"""


def result_of(program, **variables):
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(**variables))
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.slow
@on_tensorflow
def test_a_model_is_trained_under_its_own_strategy():
    found = result_of(REPLICAS, KERAS_BACKEND="tensorflow")
    assert found == ["Replicas", ["CPU:0", "CPU:1"], 2, True, 1]


@pytest.mark.slow
def test_a_model_is_trained_under_the_global_distribution():
    need("jax")
    flags = "--xla_force_host_platform_device_count=4"
    found = result_of(SHARDS, KERAS_BACKEND="jax", XLA_FLAGS=flags)
    assert found == ["Shards", ["cpu:0", "cpu:1"], 2, True, 1]


def test_a_model_of_one_device():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    assert type(devices_of(model)) is Devices


@on_tensorflow
def test_a_model_of_several_machines_is_refused():
    class MultiWorkerMirroredStrategy:
        num_replicas_in_sync = 2

        class extended:
            worker_devices = ("/job:worker/replica:0/task:0/device:GPU:0",)

    class Model:
        distribute_strategy = MultiWorkerMirroredStrategy()

    with pytest.raises(ValueError, match="MultiWorkerMirroredStrategy of several machines"):
        devices_of(Model())


@pytest.mark.parametrize("wanted", [0, -1, 10_000])
@on_tensorflow
def test_as_many_devices_as_there_are(wanted):
    with pytest.raises(
        ValueError, match=f"devices: this machine has .*Received: {wanted}"
    ) as caught:
        devices_of_machine(wanted)
    assert wanted > 0 or not isinstance(caught.value, TooLate)


def test_one_device_is_the_default():
    assert devices_of_machine().num == devices_of_machine(1).num == 1


def test_pytorch_is_refused_with_the_reason(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ValueError, match="require TensorFlow or JAX.* backend='torch', devices=2"):
        devices_of_machine(2)
