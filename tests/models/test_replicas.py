"""Two replicas make the update of one device, random samplers and all."""

import json
import subprocess
import sys

import keras
import pytest

CODE = """
import json

import keras
import numpy as np
import tensorflow as tf

from libra_keras.backbones import ResNet
from libra_keras.models import libra_faster_rcnn_small
from libra_keras.training import SGD

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
rng = np.random.default_rng(0)
x = {
    "images": rng.integers(0, 255, (4, 64, 96, 3), "uint8"),
    "image_sizes": np.array([[64, 96]] * 4, "int32"),
}
boxes, labels = np.zeros((4, 4, 4), "float32"), np.full((4, 4), -1, "int32")
boxes[0, :3] = [[8, 10, 40, 44], [28, 10, 60, 44], [48, 10, 80, 44]]  # three in the first image,
boxes[3, 0] = [5, 5, 40, 50]  # one in the last, none between
labels[0, :3], labels[3, 0] = (0, 1, 2), 1
batches = tf.data.Dataset.from_tensors((x, {"boxes": boxes, "labels": labels})).repeat(3)


def trained(strategy):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        backbone = ResNet(18, width=8, frozen_stages=-1)
        model = libra_faster_rcnn_small(3, backbone=backbone)
        model.compile(SGD(0.01))
    options = {"steps_per_epoch": 3, "verbose": 0, "shuffle": False}
    history = model.fit(batches, **options).history
    return history, [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]


one, weights = trained(tf.distribute.get_strategy())
two, others = trained(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
pairs = zip(weights, others, strict=True)
apart = max(float(np.abs(a - b).max() / (np.abs(a).max() + 1e-9)) for a, b in pairs)
print(json.dumps({"one": one, "two": two, "apart": apart}))
"""


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="MirroredStrategy")
def test_two_replicas_make_the_update_of_one_device():
    process = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-3000:]
    result = json.loads(process.stdout.splitlines()[-1])
    assert result["apart"] < 1e-5
    assert set(result["one"]) >= {"loss", "rpn_class_loss", "rpn_box_loss", "class_loss"}
    for name, (value,) in result["one"].items():
        assert result["two"][name][0] == pytest.approx(value, rel=1e-5), name
