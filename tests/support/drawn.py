"""Drawn scenes as one batch of arrays, without a data pipeline."""

import numpy as np

from libra_keras import data


def drawn_batch(num, policy):
    """The first `num` drawn training scenes as `(x, y)`, in the size that `policy` wants."""
    scenes = data.shapes("train", num=num)
    prepared = [policy.prepare(scenes.read_image(i)) for i in range(num)]
    most = max(len(example.boxes) for example in scenes.examples)
    boxes = np.zeros((num, most, 4), "float32")
    labels = np.full((num, most), -1, "int32")
    for i, (example, (_, size)) in enumerate(zip(scenes.examples, prepared, strict=True)):
        scale = np.tile([size[1] / example.width, size[0] / example.height], 2)
        boxes[i, : len(example.boxes)] = example.boxes * scale
        labels[i, : len(example.labels)] = example.labels
    images = np.stack([image for image, _ in prepared])
    sizes = np.array([size for _, size in prepared], "int32")
    return {"images": images, "image_sizes": sizes}, {"boxes": boxes, "labels": labels}
