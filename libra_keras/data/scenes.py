"""What is in a drawn scene: a description from which the pixels and the boxes both follow."""

import dataclasses
import math
import random

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
    """Draws the description of a scene.

    Only `random.Random.random` is used: Python keeps its sequence from version to version, so
    version 1 of the scenes stays what it is.

    Args:
        seed: int.
        empty: bool, whether the scene has no objects, clutter only. Defaults to `False`.

    Returns:
        `Scene`.

    Example:

    >>> from libra_keras.data.scenes import describe
    >>> describe(5) == describe(5), describe(5) == describe(6)
    (True, False)
    """
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
