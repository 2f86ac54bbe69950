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
constructor, batch_norm = getattr(models, sys.argv[1]), sys.argv[2]
steps, accumulated = map(int, sys.argv[3:])
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
    batch(many, [], single),  # two images and one, with three boxes and one
    batch(single),  # nothing for the second replica
    batch([], []),  # no positives at all
]
datasets = [tf.data.Dataset.from_tensors(each) for each in batches]
data = datasets[0].concatenate(datasets[1]).concatenate(datasets[2]).repeat()


def built(strategy, batch_norm):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        backbone = ResNet(18, width=16, frozen_stages=-1, batch_norm=batch_norm)
        model = constructor(3, backbone=backbone)
        model.compile(SGD(0.001, gradient_accumulation_steps=accumulated or None))
    return model


def trained(strategy, batch_norm):
    model = built(strategy, batch_norm)
    options = {"steps_per_epoch": 1, "epochs": steps, "verbose": 0, "shuffle": False}
    history = model.fit(data, **options).history
    found = model.predict_on_batch(batches[0][0])
    return history, {v.path: np.asarray(v) for v in model.variables}, found, model


def apart(a, b):
    return float(np.abs(a - b).max() / (np.abs(a).max() + 1e-9))


own = "trainable" if batch_norm == "synchronized" else batch_norm
shown, weights, found, _ = trained(one, own)
others = trained(two, batch_norm)
pairs = zip(weights.items(), others[1].values(), strict=True)
both = {path: apart(a, b) for (path, a), b in pairs if a.dtype == np.float32}
began_at_zero = ("beta", "bias")
result = {
    "one": shown,
    "two": others[0],
    "apart": max(both.values()),
    "others_apart": max(v for path, v in both.items() if not path.endswith(began_at_zero)),
    "boxes_apart": float(np.abs(found["boxes"] - others[2]["boxes"]).max()),
    "scores_apart": float(np.abs(found["scores"] - others[2]["scores"]).max()),
    "rows": len(others[2]["scores"]),
    "updates": int(keras.ops.convert_to_numpy(others[3].optimizer.iterations)),
    "refusal": None,
}
try:
    built(two, "trainable")
except ValueError as error:
    result["refusal"] = str(error)
try:
    others[3].compile("adam")  # each replica would move the optimizer's one set of averages
except ValueError as error:
    result["outside"] = str(error)
print(json.dumps(result))
"""


@pytest.mark.parametrize(
    ("name", "batch_norm", "accumulated", "weights_apart"),
    [
        ("libra_faster_rcnn_small", "frozen", 2, 1e-5),  # the fifth step waits for a sixth
        # Statistics of the batch amplify rounding, in the offsets, which began at 0 and are small:
        # by 1e-5 to 1e-4, depending on the order of sums. All other weights are 2e-6 apart.
        ("retinanet_small", "synchronized", 0, 5e-4),
    ],
)
def test_two_replicas_make_the_updates_of_one_device(name, batch_norm, accumulated, weights_apart):
    # In a process of its own: logical devices must be set before TensorFlow starts.
    arguments = [name, batch_norm, str(STEPS), str(accumulated)]
    code = [sys.executable, "-W", "ignore", "-c", CODE, *arguments]
    done = subprocess.run(code, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result["one"]) >= {"loss", "box_loss", "class_loss"}
    for loss, values in result["one"].items():
        assert result["two"][loss] == pytest.approx(values, rel=1e-5, abs=1e-7), loss
    assert result["updates"] == STEPS // (accumulated or 1)
    assert result["apart"] < weights_apart
    assert result["others_apart"] < 1e-5
    assert result["rows"] == 3
    assert result["boxes_apart"] < 1e-2 and result["scores_apart"] < 1e-4
    assert 'batch_norm="synchronized"' in result["refusal"]
    assert (
        "built under a MirroredStrategy: compile it within `strategy.scope()`" in result["outside"]
    )
