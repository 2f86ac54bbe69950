"""What tiles gain on images larger than a detector's input: AP on drawn scenes.

Each scene has 3000 x 3000 pixels and the figures of `data.shapes`, as large as in training. Without
tiles it is shrunk to the detector's input, where most of them vanish.

    libra-keras train --to runs/shapes
    python recipes/big_images.py runs/shapes --scenes 4
"""

import argparse
import dataclasses
import functools
import math
import time

import numpy as np

from libra_keras import data, runs
from libra_keras.data.examples import coco_annotations
from libra_keras.data.shapes import CLASS_NAMES, mask
from libra_keras.evaluation import evaluate_detections

SIDE = 3000
OBJECTS = 150
SHORTEST, LONGEST = 8, 120  # sides of objects, pixels
NOISE = 10.0
TILINGS = ((None, 0.0), (1000, 0.2), (640, 0.2), (320, 0.0), (320, 0.2), (320, 0.4))


@functools.lru_cache(maxsize=8)
def drawn(seed):
    """A scene, uint8 `(3000, 3000, 3)`, and the boxes and labels in it."""
    rng = np.random.default_rng(seed)
    background = rng.integers(40, 216, 3)
    image = rng.normal(0, NOISE, (SIDE, SIDE, 3)).astype("float32") + background
    boxes, labels = [], []
    sides = SHORTEST * (LONGEST / SHORTEST) ** rng.random(OBJECTS)
    for side in sorted(sides.round().astype(int), reverse=True):
        x, y = rng.integers(0, SIDE - side, 2)
        box = x, y, x + side, y + side
        if any(apart(box, other) < 0 for other in boxes):  # none lies upon another
            continue
        label = rng.integers(len(CLASS_NAMES))
        image[y : y + side, x : x + side][mask(int(label), int(side))] += color(rng, background)
        boxes.append(box)
        labels.append(label)
    return image.clip(0, 255).astype("uint8"), np.float32(boxes), np.int32(labels)


def apart(box, other):
    """Pixels between two boxes along the axis on which they are farther apart."""
    return max(box[0] - other[2], other[0] - box[2], box[1] - other[3], other[1] - box[3])


def color(rng, background):
    """The change from the background to a colour that stands out from it."""
    while True:
        drawn = rng.integers(0, 256, 3)
        if math.dist(drawn, background) > 110:
            return drawn - background


def scenes(count):
    """A `DetectionData` of drawn scenes."""
    examples = []
    for seed in range(count):
        _, boxes, labels = drawn(seed)
        crowd = np.zeros(len(boxes), bool)
        examples.append(data.Example(seed + 1, f"scene-{seed}", SIDE, SIDE, boxes, labels, crowd))
    return dataclasses.replace(
        data.shapes(1),  # for its classes
        name="big scenes",
        examples=examples,
        annotations=coco_annotations(examples, CLASS_NAMES),
        reader=lambda example: drawn(example.image_id - 1)[0],
    )


def measured(model, given, tile, overlap, batch):
    """AP, AP50, AP of small objects, and of an image the detections and the seconds."""
    found, begin = [], time.perf_counter()
    for i, example in enumerate(given.examples):
        own = model.detect(given.read_image(i), 0.0, batch, tile=tile, overlap=overlap)
        found.append({"image_id": example.image_id, **own})
    seconds = (time.perf_counter() - begin) / len(given)
    metrics = evaluate_detections(given, found)
    count = sum(len(own["scores"]) for own in found) / len(given)
    return metrics["AP"], metrics["AP50"], metrics["AP_small"], count, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("run", help="run folder of a detector trained on `shapes`")
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16, help="tiles per batch")
    options = parser.parse_args()
    model, given = runs.open(options.run).model, scenes(options.scenes)
    print(given.summary())
    print("| tile | overlap | AP | AP50 | AP small | detections | s per image |")
    print("|---|---|---|---|---|---|---|")
    for tile, overlap in TILINGS:
        ap, ap50, small, count, seconds = measured(model, given, tile, overlap, options.batch)
        print(
            f"| {tile or 'whole'} | {overlap:g} | {ap:.3f} | {ap50:.3f} | {small:.3f} "
            f"| {count:.0f} | {seconds:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
