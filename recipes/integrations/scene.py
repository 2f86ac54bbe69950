"""One drawn scene, and the AP of a detector on it: what the recipes of this folder share."""

import keras
import numpy as np

from libra_keras import data, evaluation

SIZE = 128  # pixels; scenes are drawn at 320
NUM_CLASSES = 6
POLICY = data.InputPolicy(SIZE, SIZE)


def drawn_scene(smallest=50, objects=3):
    """Returns the first drawn scene of at least `objects` objects, all of `smallest` pixels."""
    scenes = data.shapes(60)
    for i, example in enumerate(scenes.examples):
        sides = example.boxes[:, 2:] - example.boxes[:, :2]
        if len(sides) >= objects and sides.min() >= smallest:
            return scenes.subset([i])
    raise ValueError(f"No scene has {objects} objects of at least {smallest} pixels.")


def batch_of(scene, size=1):
    """Returns `(x, y)`, a batch of `size` times the scene at `SIZE` pixels, as NumPy arrays."""
    copies = scene.subset([0] * size)
    ((x, y),) = data.training_batches(copies, POLICY, batch_size=size, flip=0.0, epochs=1)
    return {k: np.asarray(v) for k, v in x.items()}, {k: np.asarray(v) for k, v in y.items()}


def average_precision(scene, predict):
    """Returns COCO's AP of `predict`, a function from images `(1, H, W, 3)` to detections."""
    x, _ = batch_of(scene)
    found = evaluation.rescale_detections(
        predict(x["images"]), x["image_sizes"], x["original_sizes"]
    )
    detections = [{"image_id": scene.examples[0].image_id, **found[0]}]
    return evaluation.evaluate_detections(scene, detections)["AP"]


def freeze_batch_norm(model):
    """A batch of one image has no statistics to learn: keeps batch normalisation as it starts."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
