"""What replicas know of each other; in a process of its own where there are two."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from libra_keras.functional import replicas

on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow")


@pytest.mark.portable
def test_one_replica_sums_to_itself():
    assert float(replicas.sum_over_replicas(2.5)) == 2.5
    assert replicas.num_replicas() == 1 and replicas.with_global_value([3.0]) == [3.0]
    assert [int(place) for place in replicas.global_positions(3)] == [0, 1, 2]
    assert len(replicas.with_an_image(np.zeros((0, 4)))) == 0
    with replicas.counting(np.zeros((1, 2), "int32")):
        assert replicas.presence() == 1.0


REPLICAS = """
import tensorflow as tf
from libra_keras.functional import replicas
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

@tf.function
def step():
    def replica():
        i = tf.distribute.get_replica_context().replica_id_in_sync_group
        return replicas.sum_over_replicas(tf.cast(i + 1, tf.float32))
    return strategy.run(replica)

print([float(x) for x in strategy.experimental_local_results(step())])
with strategy.scope():
    print(float(replicas.sum_over_replicas(5.0)))
"""


@on_tensorflow
def test_sums_over_two_replicas():
    # Logical devices must be configured before TensorFlow starts, hence a process of its own.
    done = subprocess.run([sys.executable, "-c", REPLICAS], capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["[3.0, 3.0]", "5.0"], done.stderr[-2000:]
