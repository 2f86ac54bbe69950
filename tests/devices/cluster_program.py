"""Trains a small detector alone, or as a worker of a cluster if there is a TF_CONFIG.

Writes the losses of the first steps and the weights after them, and goes on in small steps.
"""

import json
import os
import sys
import time

import keras
import numpy as np

from libra_keras import data
from libra_keras.devices.cluster import Cluster
from libra_keras.devices.strategies import Devices
from libra_keras.models import faster_rcnn_small
from libra_keras.models.constructors.parts import small_backbone
from libra_keras.training import SGD

STEPS, ENDLESS = 5, 100


class Record(keras.callbacks.Callback):
    """Keeps losses, writes weights, evaluates on the chief alone, and slows down afterwards."""

    def __init__(self, path, batch):
        super().__init__()
        self.path, self.batch, self.losses = path, batch, []

    def on_train_batch_end(self, batch, logs=None):
        if self.path and len(self.losses) < STEPS:
            self.losses.append({name: float(value) for name, value in logs.items()})
        else:
            time.sleep(0.5)

    def on_epoch_end(self, epoch, logs=None):
        if self.path and epoch == 0:
            found = self.model.predict_on_batch(self.batch)
            weights = {v.path: np.asarray(v) for v in self.model.trainable_variables}
            np.savez(self.path, shape=found["boxes"].shape, **weights)
            with open(f"{self.path}.json", "w") as file:
                json.dump(self.losses, file)


def main(path, epochs):
    devices = Cluster() if "TF_CONFIG" in os.environ else Devices()
    with devices:
        keras.utils.set_random_seed(0)
        images = data.shapes(8)
        with devices.scope():
            model = faster_rcnn_small(
                6, backbone=small_backbone("frozen"), input_policy=data.InputPolicy(96, 96)
            )
            model.compile(SGD(0.001))
        batches = devices.share(data.training_batches(images, model.input_policy, 4))
        few = data.evaluation_batches(images.subset(range(3)), model.input_policy, 3)
        batch = {key: np.asarray(value) for key, value in next(iter(few)).items()}
        record = Record(path if devices.is_chief else None, batch)
        options = {"steps_per_epoch": STEPS, "epochs": epochs, "verbose": 0}
        devices.fit(model, batches, callbacks=[record], shuffle=False, **options)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
