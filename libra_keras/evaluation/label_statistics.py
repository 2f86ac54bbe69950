"""Statistics of a data set's labels, and how they suit a detector's pyramid and anchors."""

import dataclasses

import numpy as np

from libra_keras.data import DetectionData, InputPolicy
from libra_keras.evaluation.anchor_fit import (
    BAD,
    POOR,
    Anchors,
    advice,
    anchor_counts,
    best_anchors,
)
from libra_keras.evaluation.matches import plain

CELLS = 16  # along each side of the map of centres
SIDES = 2.0 ** (np.arange(1, 23) / 2)  # edges of the histogram of sizes: 1.4 to 2048 pixels
RATIOS = 2.0 ** (np.arange(-8, 9) / 2)  # of that of height over width: 1/16 to 16
PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
CROWDED = (0, 1, 2, 5, 10, 20, 50, 100)  # edges of the histogram of objects in an image
LARGER = (1.5, 2.0)  # times the sides of the input


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """The objects of a data set to learn from: original boxes, and those in the model's pixels."""

    labels: np.ndarray
    image: np.ndarray  # position in `data.examples`
    boxes: np.ndarray  # (M, 4), x1, y1, x2, y2
    image_sizes: np.ndarray  # (N, 2), height and width
    input_sizes: np.ndarray  # (N, 2), after resizing, before padding
    padded_sizes: np.ndarray  # (N, 2)

    @property
    def input_boxes(self):
        """Boxes in the pixels that the model sees."""
        factors = (self.input_sizes / self.image_sizes)[self.image][:, [1, 0, 1, 0]]
        return self.boxes * factors

    def best_anchors(self, anchors):
        """The anchor that overlaps each object most, and the IoU."""
        return best_anchors(self.input_boxes, self.padded_sizes[self.image], anchors)


def label_statistics(
    data: DetectionData,
    policy: InputPolicy,
    anchors: Anchors | None = None,
    roi_levels: int | None = None,
    finest_scale: float = 56.0,
) -> dict:
    """Describes the objects of a data set, and how they suit a detector.

    The boxes are those that a model learns from: `data.examples` without crowds and difficult ones.

    Args:
        data: `DetectionData`.
        policy: `InputPolicy` of the model; "input" below means the pixels that it sees.
        anchors: `Anchors` of the model, or `None` if it has none.
        roi_levels: int, levels that a second stage pools from, or `None` if there is none.
        finest_scale: float, pixels; boxes up to twice this scale use the finest of these levels.

    Returns:
        Dict for JSON: `"images"`, `"objects"`, `"ignored"` and `"empty_images"` are counts;
        `"classes"` dicts of `"name"`, `"objects"`, `"images"`; `"an_image"`, `"sides"`,
        `"input_sides"` (root of the area in pixels) and `"ratios"` (height over width)
        distributions, dicts of `"percentiles"` by `"0"` .. `"100"` (`None` without objects),
        `"edges"` and `"counts"` (what lies beyond the first or last edge is in the bin beside it);
        `"centres"`, the shares `(16, 16)` of the objects whose centre lies in this part of the
        image, rows from top to bottom; `"roi_levels"`, objects on each level, or `None`;
        `"anchors"`, `None` (without anchors or objects) or a dict of `"best"`, dicts of `"stride"`,
        `"side"`, `"ratio"` and the `"objects"` that this anchor fits best, `"iou"`, the
        distribution of their overlaps, and `"inputs"`, dicts of `"short_side"`, `"long_side"` and
        the shares `"below_0.3"` and `"below_0.5"` of the objects by this overlap, for `policy` and
        for inputs of 1.5 and 2 times its sides; and `"advice"`, a list of sentences on objects
        that no anchor suits.

    Example:

    >>> from libra_keras.data import InputPolicy, shapes
    >>> from libra_keras.evaluation import Anchors, label_statistics
    >>> anchors = Anchors(strides=(4, 8, 16, 32, 64), scales=(8,), ratios=(0.5, 1, 2))
    >>> statistics = label_statistics(shapes(20), InputPolicy(320, 320), anchors, roi_levels=4)
    >>> print(statistics["advice"][0][:83])
    28% of the objects are smaller than the finest anchors (32 pixels) and overlap none

    Reference: the level of a second stage is that of [Lin et al., 2017](
    https://arxiv.org/abs/1612.03144), equation 1, as `layers.MultilevelROIAlign` has it.
    """
    labels = _labels(data, policy)
    number = np.bincount(labels.image, minlength=len(data))
    sides, input_sides = _sides(labels.boxes), _sides(labels.input_boxes)
    width, height = (labels.boxes[:, 2:] - labels.boxes[:, :2]).T
    return {
        "images": len(data),
        "objects": len(sides),
        "ignored": int(sum(example.ignore.sum() for example in data.examples)),
        "empty_images": int((number == 0).sum()),
        "classes": _classes(data, labels),
        "an_image": _distribution(number, [*CROWDED, max([*number.tolist(), CROWDED[-1]]) + 1]),
        "sides": _distribution(sides, SIDES),
        "input_sides": _distribution(input_sides, SIDES),
        "ratios": _distribution(height / width, RATIOS),
        "centres": _centres(labels),
        "roi_levels": _levels(input_sides, roi_levels, finest_scale) if roi_levels else None,
        **_anchors(data, policy, labels, anchors),
    }


def _labels(data, policy):
    examples = data.examples
    sizes = np.array([(e.height, e.width) for e in examples], "float64").reshape(-1, 2)
    fitted = np.array([policy.fitted_size(e.height, e.width) for e in examples], "float64")
    padded = np.array([policy.bucket_size(e.height, e.width) for e in examples], "float64")
    boxes = [np.zeros((0, 4)), *(e.boxes[~e.ignore].astype("float64") for e in examples)]
    labels = [np.zeros(0, int), *(e.labels[~e.ignore] for e in examples)]
    return Labels(
        np.concatenate(labels),
        np.repeat(np.arange(len(examples)), [e.num_boxes for e in examples]),
        np.concatenate(boxes),
        sizes,
        fitted.reshape(-1, 2),
        padded.reshape(-1, 2),
    )


def _sides(boxes):
    return np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], -1))


def _classes(data, labels):
    objects = np.bincount(labels.labels, minlength=data.num_classes)
    pairs = np.unique(labels.image * data.num_classes + labels.labels)
    images = np.bincount(pairs % data.num_classes, minlength=data.num_classes)
    rows = zip(data.class_names, objects.tolist(), images.tolist(), strict=True)
    return [dict(zip(("name", "objects", "images"), row, strict=True)) for row in rows]


def _distribution(values, edges):
    edges = np.asarray(edges, "float64")
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    exact = np.percentile(values, PERCENTILES).tolist() if len(values) else [None] * 7
    percentiles = dict(zip(map(str, PERCENTILES), exact, strict=True))
    return {"percentiles": percentiles, "edges": plain(edges), "counts": counts.tolist()}


def _centres(labels):
    """Shares of the objects by the part of the image in which their centre lies."""
    centres = (labels.boxes[:, :2] + labels.boxes[:, 2:]) / 2
    places = centres / labels.image_sizes[labels.image][:, ::-1]
    cells = np.minimum((places * CELLS).astype(int), CELLS - 1)
    counts = np.zeros((CELLS, CELLS))
    np.add.at(counts, (cells[:, 1], cells[:, 0]), 1)
    return plain(counts / max(len(cells), 1))


def _levels(sides, num_levels, finest_scale):
    level = np.clip(np.floor(np.log2(sides / finest_scale + 1e-6)), 0, num_levels - 1)
    return np.bincount(level.astype(int), minlength=num_levels).tolist()


def _anchors(data, policy, labels, anchors):
    """The entries "anchors" and "advice"."""
    if anchors is None or not len(labels.boxes):
        return {"anchors": None, "advice": []}
    best, iou = labels.best_anchors(anchors)
    larger = [_larger(policy, factor) for factor in LARGER]
    overlaps = [iou, *(_labels(data, each).best_anchors(anchors)[1] for each in larger)]
    inputs = [_shares(each, other) for each, other in zip([policy, *larger], overlaps, strict=True)]
    best_of = anchor_counts(best, anchors)
    fit = {"best": best_of, "iou": _distribution(iou, np.arange(11) / 10), "inputs": inputs}
    return {"anchors": fit, "advice": advice(labels.input_boxes, iou, anchors, inputs)}


def _larger(policy, factor):
    """An `InputPolicy` of larger sides, rounded to what a batch is padded to."""
    short, long = (
        max(round(side * factor / policy.pad_multiple), 1) * policy.pad_multiple
        for side in (policy.short_side, policy.long_side)
    )
    return dataclasses.replace(policy, short_side=short, long_side=long)


def _shares(policy, iou):
    below = {f"below_{limit}": float((iou < limit).mean()) for limit in (BAD, POOR)}
    return {"short_side": policy.short_side, "long_side": policy.long_side, **below}
