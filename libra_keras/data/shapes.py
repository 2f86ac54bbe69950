"""The data set that needs no files: drawn scenes, version 1."""

import dataclasses
import functools
import math
import random

import numpy as np

from libra_keras.data.examples import DetectionData, Example, coco_annotations
from libra_keras.ranges import whole

SIZE = 320  # pixels of both sides of a scene
SHORTEST, LONGEST = 8, 200  # sides of objects, pixels
MOST_OBJECTS, MOST_MARKS = 12, 10
MAX_IOU = 0.6
CROWDED_SHARE = 0.45  # of the scenes, where sizes allow it, two objects are put upon each other
CROWDED_IOU = 0.32
MAX_HIDDEN = 0.75  # share of an object's box under smaller ones
CONTRAST = 110.0  # Euclidean distance in RGB between an object and what is under it
MOST_NOISE = 20.0
OUTLINES = ("circle", "square", "triangle")
FILLS = ("filled", "hollow")
CLASS_NAMES = tuple(f"{fill} {outline}" for outline in OUTLINES for fill in FILLS)
MARKS = ("bar", "column", "plus", "diagonal", "cross")
NOISE_SIZE = 512
NUM_TRAINING, NUM_HELD_OUT = 2000, 500
EMPTY_EVERY = 20  # every twentieth scene has no objects
MOST, SEEDS = whole(1, 10**6), whole(0, 2**31 - 1)
_SPLITS = {"train": 0, "val": 1}


@dataclasses.dataclass(frozen=True)
class Mark:
    """A figure in a square: `kind` is a label, or one of `MARKS`, which belong to no class."""

    kind: int | str
    x: int
    y: int
    side: int
    color: tuple[int, int, int]

    @property
    def box(self):
        """`(x1, y1, x2, y2)`, tight around the drawn pixels."""
        return self.x, self.y, self.x + self.side, self.y + self.side


@dataclasses.dataclass(frozen=True)
class Scene:
    """All that a scene consists of; later objects are drawn over earlier ones."""

    background: tuple[int, int, int]
    slope: tuple[int, int]  # change of brightness from left to right and from top to bottom
    marks: tuple[Mark, ...]
    objects: tuple[Mark, ...]
    noise: float  # standard deviation, grey levels
    noise_corner: tuple[int, int]  # where the table of noise is read


def describe(seed, empty=False):
    """Draws the description of a scene from `Random.random` alone, which stays as it is."""
    rng = random.Random(seed)
    background = _color(rng, low=40, high=215)
    slope = _integer(rng, -20, 20), _integer(rng, -20, 20)
    marks = tuple(_clutter(rng, background) for _ in range(_integer(rng, 0, MOST_MARKS)))
    count = 0 if empty else _integer(rng, 1, MOST_OBJECTS)
    objects = _objects(rng, count, background)
    corner = _integer(rng, 0, 191), _integer(rng, 0, 191)
    return Scene(background, slope, marks, objects, MOST_NOISE * rng.random(), corner)


def iou(a, b):
    """Intersection over union of two boxes of integers."""
    shared = _shared(a, b)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(areas) - shared)


def _objects(rng, count, background):
    """Places objects from large to small, so that none disappears under a larger one."""
    sides = [math.exp(math.log(LONGEST / SHORTEST) * rng.random()) for _ in range(count)]
    sides = sorted((round(SHORTEST * side) for side in sides), reverse=True)
    # A pair can only overlap that much if the areas, the squares of the sides, are alike.
    alike = [i for i in range(1, count) if (sides[i] / sides[i - 1]) ** 2 > CROWDED_IOU + 0.1]
    crowded = None
    if alike and rng.random() < CROWDED_SHARE:
        crowded = alike[_integer(rng, 0, len(alike) - 1)]
    objects = []
    for i, side in enumerate(sides):
        partner = objects[-1].box if i == crowded and objects else None
        place = _place(rng, side, [other.box for other in objects], partner)
        if place is None:
            continue
        box = (*place, place[0] + side, place[1] + side)
        under = [other.color for other in objects if _shared(box, other.box)]
        color = _contrasting(rng, [background, *under])
        objects.append(Mark(_integer(rng, 0, len(CLASS_NAMES) - 1), *place, side, color))
    return tuple(objects)


def _place(rng, side, boxes, partner, tries=60):
    """Finds a place, or `None`: not too close to others, and upon its partner if it has one."""
    for attempt in range(tries):
        place = _integer(rng, 0, SIZE - side), _integer(rng, 0, SIZE - side)
        if partner is not None and attempt < tries // 2:
            reach = partner[2] - partner[0]
            place = [corner + _integer(rng, -reach // 2, reach // 2) for corner in partner[:2]]
            place = tuple(min(max(corner, 0), SIZE - side) for corner in place)
        box = (*place, place[0] + side, place[1] + side)
        near = partner is None or attempt >= tries // 2 or iou(box, partner) >= CROWDED_IOU
        if near and all(iou(box, other) <= MAX_IOU for other in boxes) and _visible(box, boxes):
            return place
    return None


def _visible(box, boxes):
    """Whether every larger box would stay visible in part with `box` drawn after `boxes`."""
    boxes = [*boxes, box]
    for i, lower in enumerate(boxes[:-1]):
        hidden = sum(_shared(lower, upper) for upper in boxes[i + 1 :])
        if hidden > MAX_HIDDEN * (lower[2] - lower[0]) ** 2:
            return False
    return True


def _shared(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


def _clutter(rng, background):
    kind, side = MARKS[_integer(rng, 0, len(MARKS) - 1)], _integer(rng, 10, 60)
    place = _integer(rng, 0, SIZE - side), _integer(rng, 0, SIZE - side)
    return Mark(kind, *place, side, _contrasting(rng, [background]))


def _contrasting(rng, colors):
    """Draws until a colour stands out from all given ones, and settles for the best of 30."""
    best, best_distance = None, -1.0
    for _ in range(30):
        color = _color(rng, 0, 255)
        distance = min(math.dist(color, other) for other in colors)
        if distance > best_distance:
            best, best_distance = color, distance
        if distance >= CONTRAST:
            break
    return best


def _color(rng, low, high):
    return tuple(_integer(rng, low, high) for _ in range(3))


def _integer(rng, low, high):
    """A uniform integer from `low` to `high`, both included."""
    return low + int((high - low + 1) * rng.random())


def draw(scene):
    """Draws a scene, uint8 `(320, 320, 3)` RGB, by integers: the same on every machine."""
    ramp = np.arange(SIZE) * 2 - SIZE  # from -SIZE to SIZE
    right, down = (ramp * slope // (2 * SIZE) for slope in scene.slope)
    shade = (right[None] + down[:, None]).astype("int16")
    image = shade[..., None] + np.array(scene.background, "int16")
    for mark in (*scene.marks, *scene.objects):
        x1, y1, x2, y2 = mark.box
        image[y1:y2, x1:x2][mask(mark.kind, mark.side)] = mark.color
    x, y = scene.noise_corner
    noise = _noise_table()[y : y + SIZE, x : x + SIZE]
    image += np.rint(noise * np.float32(scene.noise)).astype("int16")
    return np.clip(image, 0, 255, out=image).astype("uint8")


@functools.lru_cache(maxsize=2048)
def mask(kind, side):
    """Returns the pixels of a label or a mark, bool `(side, side)`, up to all four sides."""
    if isinstance(kind, str):
        return _clutter_mask(kind, side)
    outline, fill = OUTLINES[kind // 2], FILLS[kind % 2]
    whole = _outline_mask(outline, side, 0)
    return whole if fill == "filled" else whole & ~_outline_mask(outline, side, (side + 2) // 7)


def _outline_mask(outline, side, inset):
    """Returns the inside of an outline at a distance of at least `inset` pixels from its edge."""
    # Twice the distance from the middle: an integer also where the middle is between pixels.
    x = np.abs(2 * np.arange(side) - (side - 1))
    y = x[:, None]
    if outline == "circle":
        return x**2 + y**2 <= (side - 2 * inset) ** 2
    if outline == "square":
        return np.maximum(x, y) < side - 2 * inset
    rows = np.arange(side)[:, None]
    # The edges are |x| = row (the tip has a whole row, or it would vanish for even sides). They
    # rise by 2 per pixel, so a distance of 1 from them is sqrt(5) rows.
    inside = np.maximum(rows, 1) * 100 - x * 100 >= inset * 224
    return inside & (rows < side - inset)


def _clutter_mask(kind, side):
    x, y = np.arange(side), np.arange(side)[:, None]
    thin = max(1, side // 12)
    middle_x, middle_y = np.abs(2 * x - side) <= thin + 1, np.abs(2 * y - side) <= thin + 1
    full = np.ones((side, side), bool)
    return {
        "bar": full & middle_y,
        "column": full & middle_x,
        "plus": middle_x | middle_y,
        "diagonal": np.abs(x - y) <= thin,
        "cross": (np.abs(x - y) <= thin) | (np.abs(x + y - side + 1) <= thin),
    }[kind]


@functools.cache
def _noise_table():
    """Standard normal noise `(512, 512, 3)`: scenes are noised with crops of one table."""
    # The sum of eight bytes is near enough to normal, and unlike NumPy's normal distribution the
    # raw bits of a generator never change with NumPy's version.
    bits = np.random.PCG64(20190404).random_raw(NOISE_SIZE * NOISE_SIZE * 3)
    sums = bits.astype("<u8").view("uint8").reshape(-1, 8).sum(-1, dtype="int32")
    deviation = np.sqrt(8 * (256**2 - 1) / 12)  # of the sum of eight uniform bytes; mean 1020
    table = ((sums - 1020) / deviation).astype("float32")
    return table.reshape(NOISE_SIZE, NOISE_SIZE, 3)


def shapes(split: str | int = "train", num: int | None = None, seed: int = 0) -> DetectionData:
    """Makes the drawn data set, version 1: coloured figures in clutter, some overlapping.

    Scenes have 320 x 320 pixels and 1 to 12 objects (5 % are empty) of 6 classes: circle, square
    or triangle, filled or hollow. Sides are log-uniform from 8 to 200 px. Objects overlap up to
    an IoU of 0.6, smaller ones on top; in over 30 % of the scenes some pair exceeds 0.3. There
    are up to 10 marks (bars, crosses, ...) of no class, and noise of a standard deviation up to
    20. Colours are random, tell nothing about the class, and stand out from what is under them.
    Pixels are drawn when they are asked for, in about a millisecond, the same on every machine.

    Args:
        split: `"train"`, or `"val"`, whose scenes no training set has. An int is the number of
            training scenes.
        num: int, number of scenes, a million at most. Defaults to 2000 for training, 500 held
            out; more of these begin with the same 500.
        seed: int from 0 to 2**31 - 1: another one gives another training set. The held-out
            scenes are always the same.

    Returns:
        `DetectionData`.

    Raises:
        TypeError: if `num` or `seed` is not a whole number.
        ValueError: if the split has another name, or `num` or `seed` is out of range.

    Example:

    >>> from libra_keras import data
    >>> data.shapes("val").summary()
    'shapes/val: 500 images, 3088 boxes, 6 classes'
    """
    if isinstance(split, int):
        num, split = split, "train"
    if split not in _SPLITS:
        raise ValueError(f"`split` must be 'train', 'val' or an int. Received: {split!r}")
    num = {"train": NUM_TRAINING, "val": NUM_HELD_OUT}[split] if num is None else num
    num, seed = MOST.check("`num`", num), SEEDS.check("`seed`", seed)
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
