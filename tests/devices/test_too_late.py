"""What a backend reads when it starts is an error afterwards, and not silently without effect.

Each program has a process of its own: here, TensorFlow has started long ago.
"""

import subprocess
import sys

import keras
import pytest
from processes import environment, need

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="asks TensorFlow for its devices"
)
DETERMINISTIC = """
import os, random, keras
from libra_keras.devices import TooLate, make_deterministic
STARTED = {started}
if STARTED:
    keras.ops.ones(3)
random.seed(1)
before = random.getstate()
try:
    make_deterministic(7)
except TooLate as error:
    assert random.getstate() == before  # nothing was changed
    print(error)
else:
    keras.ops.ones(3)  # JAX starts, and takes the flag
    make_deterministic(7)
    print(os.environ["XLA_FLAGS"])
"""
# CPUs stand for GPUs, of which a machine that runs tests may have none; TensorFlow is real.
GPUS = """
import keras, tensorflow as tf
from libra_keras.devices import TooLate, leave_gpus
visible, see = tf.config.get_visible_devices, tf.config.set_visible_devices
tf.config.get_visible_devices = lambda kind: visible("CPU")
tf.config.set_visible_devices = lambda devices, kind: see(devices, "CPU")
keras.ops.ones(3)
leave_gpus(1)
try:
    leave_gpus(0)
except TooLate as error:
    print(error)
"""
DEVICES = """
import keras, tensorflow as tf
from libra_keras.devices import TooLate, devices_of_machine, leave_gpus
from libra_keras.devices.hardware import tensorflow_has_started
assert not tensorflow_has_started() and not tensorflow_has_started()
leave_gpus(1)
keras.utils.set_random_seed(1)
assert not tensorflow_has_started()
tf.config.set_visible_devices([], "GPU")
if {started}:
    keras.ops.ones(3)
else:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
try:
    print(devices_of_machine(2).names)
except TooLate as error:
    print(error)
assert tensorflow_has_started()
"""


def run(program, backend, **variables):
    """What a program prints last."""
    variables = environment(KERAS_BACKEND=backend, **variables)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


def test_jax_that_has_started_cannot_be_made_deterministic():
    need("jax")
    message = run(DETERMINISTIC.format(started=True), "jax", XLA_FLAGS="")
    assert message.startswith("It is too late to make JAX deterministic: it has started already")
    assert "XLA_FLAGS=--xla_gpu_deterministic_ops=true" in message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("started", "flags"),
    [
        (False, "--xla_force_host_platform_device_count=2"),
        (True, "--xla_gpu_deterministic_ops=true"),
    ],
)
def test_jax_is_made_deterministic_in_time(started, flags):
    need("jax")
    found = run(DETERMINISTIC.format(started=started), "jax", XLA_FLAGS=flags)
    assert found.split() == [*dict.fromkeys([flags, "--xla_gpu_deterministic_ops=true"])]


@pytest.mark.slow
@on_tensorflow
def test_tensorflow_that_has_started_keeps_its_gpus():
    message = run(GPUS, "tensorflow")
    assert message.startswith("It is too late to leave 1 of 1 GPUs to other programs: TensorFlow")
    assert "CUDA_VISIBLE_DEVICES" in message and 'devices="all"' in message


@on_tensorflow
@pytest.mark.slow
def test_tensorflow_that_has_started_gets_no_more_devices():
    message = run(DEVICES.format(started=True), "tensorflow", CUDA_VISIBLE_DEVICES="-1")
    assert message.startswith("Expected 1 to 1 devices: this machine has CPU:0. Received: 2.")
    assert "too late to split the CPU into more logical devices: TensorFlow has started" in message
    assert message.endswith("with CPU:0. Do it before anything is computed")


@pytest.mark.slow
@on_tensorflow
def test_tensorflow_gets_its_devices_in_time():
    assert run(DEVICES.format(started=False), "tensorflow") == "('CPU:0', 'CPU:1')"
