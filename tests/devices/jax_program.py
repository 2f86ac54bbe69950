"""Trains a small detector on one and on two forced host devices of JAX; prints how far apart."""

import json

import keras
import numpy as np

from libra_keras import data
from libra_keras.devices.strategies import devices_of_machine
from libra_keras.models import faster_rcnn_small
from libra_keras.models.constructors.parts import small_backbone
from libra_keras.training import SGD


def trained(count):
    """Losses, the arrays of the weights, detections of three images, and over how many devices."""
    images = data.shapes(8)
    with devices_of_machine(count) as devices:
        keras.utils.set_random_seed(0)
        with devices.scope():
            model = faster_rcnn_small(
                6, backbone=small_backbone("frozen"), input_policy=data.InputPolicy(64, 64)
            )
            model.compile(SGD(0.001))
        batches = data.training_batches(images, model.input_policy, 4)
        history = devices.fit(model, batches, steps_per_epoch=5, epochs=1, verbose=0, shuffle=False)
        few = data.evaluation_batches(images.subset(range(3)), model.input_policy, 3)
        batch = {key: np.asarray(value) for key, value in next(iter(few)).items()}
        found = model.predict_on_batch(batch)  # three images cannot be split evenly
        variables = model.trainable_variables
        spread = len(variables[0].value.sharding.device_set)
        return history.history, [np.asarray(v) for v in variables], found, spread


def main():
    one, two = trained(1), trained(2)
    pairs = zip(one[1], two[1], strict=True)
    result = {
        "losses": [one[0], two[0]],
        "apart": max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs),
        "scores": float(np.abs(one[2]["scores"] - two[2]["scores"]).max()),
        "shape": two[2]["boxes"].shape,
        "devices": [one[3], two[3]],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
