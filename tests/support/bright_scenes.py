"""Black images with one white rectangle, whose box is known: what is moved can be seen."""

import numpy as np
from PIL import Image

from libra_keras import data
from libra_keras.data.batches import TrainingSource

POLICY = data.InputPolicy(64, 96)
BOX = np.array([[20, 10, 50, 30]], "float32")


def scene(width=96, height=64):
    """A black image with a white rectangle where `BOX` is."""
    pixels = np.zeros((height, width, 3), "uint8")
    pixels[10:30, 20:50] = 255
    return pixels


def bright(number=4, sizes=((96, 64),), tmp_path=None):
    """A data set of such images, in memory or in files."""
    examples, box = [], np.zeros(1, "int32")
    for i in range(number):
        width, height = sizes[i % len(sizes)]
        file = f"scene {i}" if tmp_path is None else tmp_path / f"{i}.png"
        if tmp_path is not None:
            Image.fromarray(scene(width, height)).save(file)
        examples.append(data.Example(i + 1, file, height, width, BOX, box, np.zeros(1, bool)))
    empty = {"images": [], "annotations": [], "categories": []}
    options = {} if tmp_path else {"reader": lambda own: scene(own.width, own.height)}
    return data.DetectionData("bright", ("a",), (1,), examples, empty, **options)


def samples(read, count=12, policy=POLICY, **options):
    source = TrainingSource(read, policy, 2, **options)
    return [source.sample(number) for number in range(count)]
