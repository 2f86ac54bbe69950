"""Two replicas make the updates of one device, random samplers and all."""

import json
import subprocess
import sys

import keras
import pytest
from conftest import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="MirroredStrategy"),
]
STEPS = 5
CODE = """
import json
import sys

import keras
import numpy as np
import tensorflow as tf

from libra_keras import models
from libra_keras.backbones import ResNet
from libra_keras.training import SGD

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
one, two = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
constructor, batch_norm, steps = getattr(models, sys.argv[1]), sys.argv[2], int(sys.argv[3])
rng = np.random.default_rng(0)


def batch(*boxes):
    count = len(boxes)
    x = {
        "images": rng.integers(0, 255, (count, 64, 96, 3), "uint8"),
        "image_sizes": np.array([[64, 96]] * count, "int32"),
    }
    y = {"boxes": np.zeros((count, 4, 4), "float32"), "labels": np.full((count, 4), -1, "int32")}
    for i, own in enumerate(boxes):
        y["boxes"][i, : len(own)] = np.reshape(own, (-1, 4))
        y["labels"][i, : len(own)] = np.arange(len(own))
    return x, y


many, single = [[8, 10, 40, 44], [28, 10, 60, 44], [48, 10, 80, 44]], [[5, 5, 40, 50]]
batches = [
    batch(many, [], [], single),  # three boxes and one, and images without
    batch(single),  # nothing for the second replica
    batch([], []),  # no positives at all
]
datasets = [tf.data.Dataset.from_tensors(each) for each in batches]
data = datasets[0].concatenate(datasets[1]).concatenate(datasets[2]).repeat()


def built(strategy, batch_norm):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        # 16 wide: with 8, and an odd batch, TensorFlow 2.21's gradient on CPUs writes out of bounds
        backbone = ResNet(18, width=16, frozen_stages=-1, batch_norm=batch_norm)
        model = constructor(3, backbone=backbone)
        model.compile(SGD(0.001))
    return model


def trained(strategy, batch_norm):
    model = built(strategy, batch_norm)
    options = {"steps_per_epoch": 1, "epochs": steps, "verbose": 0, "shuffle": False}
    history = model.fit(data, **options).history
    x = {name: array[:3] for name, array in batches[0][0].items()}  # one for one, two for another
    found = model.predict_on_batch(x)
    return history, {v.path: np.asarray(v) for v in model.variables}, found


def apart(a, b):
    return float(np.abs(a - b).max() / (np.abs(a).max() + 1e-9))


shown, weights, found = trained(one, "trainable" if batch_norm == "synchronized" else batch_norm)
others = trained(two, batch_norm)
weight_pairs = zip(weights.values(), others[1].values(), strict=True)
result = {
    "one": shown,
    "two": others[0],
    "apart": max(apart(a, b) for a, b in weight_pairs if a.dtype == np.float32),
    "boxes_apart": float(np.abs(found["boxes"] - others[2]["boxes"]).max()),
    "scores_apart": float(np.abs(found["scores"] - others[2]["scores"]).max()),
    "rows": len(others[2]["scores"]),
    "refusal": None,
}
try:
    built(two, "trainable")
except ValueError as error:
    result["refusal"] = str(error)
print(json.dumps(result))
"""


@pytest.mark.parametrize(
    ("name", "batch_norm", "weights_apart"),
    [
        ("faster_rcnn_small", "frozen", 1e-5),
        ("libra_faster_rcnn_small", "frozen", 1e-5),
        # Statistics of two parts, added up, are rounded otherwise than those of the whole.
        ("retinanet_small", "synchronized", 1e-4),
        ("libra_retinanet_small", "frozen", 1e-5),
    ],
)
def test_two_replicas_make_the_updates_of_one_device(name, batch_norm, weights_apart):
    # In a process of its own: logical devices must be set before TensorFlow starts.
    code = [sys.executable, "-W", "ignore", "-c", CODE, name, batch_norm, str(STEPS)]
    done = subprocess.run(code, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result["one"]) >= {"loss", "box_loss", "class_loss"}
    for loss, values in result["one"].items():
        assert result["two"][loss] == pytest.approx(values, rel=1e-5, abs=1e-7), loss
    assert result["apart"] < weights_apart
    assert result["rows"] == 3
    assert result["boxes_apart"] < 1e-2 and result["scores_apart"] < 1e-4
    assert 'batch_norm="synchronized"' in result["refusal"]
