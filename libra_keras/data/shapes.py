"""The data set that needs no files: drawn scenes, version 1."""

import numpy as np

from libra_keras.data.drawing import draw
from libra_keras.data.examples import DetectionData, Example, coco_annotations
from libra_keras.data.scenes import CLASS_NAMES, SIZE, describe

NUM_TRAINING, NUM_HELD_OUT = 2000, 500
EMPTY_EVERY = 20  # every twentieth scene has no objects
_SPLITS = {"train": 0, "val": 1}


def shapes(split="train", num=None, seed=0):
    """Makes the drawn data set, version 1: coloured figures, some upon each other, in clutter.

    Scenes have 320 x 320 pixels and 1 to 12 objects (5 % are empty) of 6 classes: circle, square
    or triangle, filled or hollow. Sides are log-uniform from 8 to 200 px. Objects overlap up to
    an IoU of 0.6, smaller ones on top; in over 30 % of the scenes some pair exceeds 0.3. There
    are up to 10 marks (bars, crosses, ...) of no class, and noise of a standard deviation up to
    20. Colours are random, tell nothing about the class, and stand out from what is under them.
    Pixels are drawn when they are asked for, in about a millisecond, the same on every machine.

    Args:
        split: `"train"`, or `"val"`, whose scenes no training set has. An int is the number of
            training scenes.
        num: int, number of scenes. Defaults to 2000 for training, 500 held out; more of these
            begin with the same 500.
        seed: int from 0 to 2**31 - 1: another one gives another training set. The held-out
            scenes are always the same.

    Returns:
        `DetectionData`.

    Raises:
        ValueError: if the split has another name, or `num` or `seed` is out of range.

    Example:

    >>> from libra_keras import data
    >>> data.shapes("val").summary()
    'shapes/val: 500 images, 3088 boxes, 6 classes'
    """
    if isinstance(split, int):
        split, num = "train", split
    if split not in _SPLITS:
        raise ValueError(f"`split` must be 'train', 'val' or an int. Received: {split!r}")
    num = {"train": NUM_TRAINING, "val": NUM_HELD_OUT}[split] if num is None else num
    if not 1 <= num <= 2**31 or not 0 <= seed < 2**31:
        raise ValueError(
            f"Expected 1 <= num <= 2**31 and 0 <= seed < 2**31. Received: num={num}, seed={seed}"
        )
    seed = 0 if split == "val" else seed
    described = [
        describe(_scene_seed(split, seed, i), empty=i % EMPTY_EVERY == EMPTY_EVERY - 1)
        for i in range(num)
    ]
    examples = [_example(scene, split, i) for i, scene in enumerate(described)]
    annotations = coco_annotations(examples, CLASS_NAMES)
    ids = tuple(category["id"] for category in annotations["categories"])
    return DetectionData(
        f"shapes/{split}",
        CLASS_NAMES,
        ids,
        examples,
        annotations,
        reader=lambda example: draw(described[example.image_id - 1]),
    )


def _scene_seed(split, seed, i):
    """One integer per split, seed and scene: the three have bits of their own, so none collide."""
    return (_SPLITS[split] << 62) | (seed << 31) | i


def _example(scene, split, i):
    boxes = np.array([mark.box for mark in scene.objects], "float32").reshape(-1, 4)
    labels = np.array([mark.kind for mark in scene.objects], "int32")
    ignore = np.zeros(len(labels), bool)
    return Example(i + 1, f"shapes-{split}-{i:06d}", SIZE, SIZE, boxes, labels, ignore)
