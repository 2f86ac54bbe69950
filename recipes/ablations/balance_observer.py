"""What `balance.py` measures: all that one pass over the images shows of a detector."""

import dataclasses
import math
import sys

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from libra_keras import data
from libra_keras.functional.boxes import encode
from libra_keras.functional.resize import adaptive_max_pool, resize_nearest
from libra_keras.layers import BalancedFeaturePyramid
from libra_keras.layers.pyramids import unpack
from libra_keras.models import FastRCNN, GroundTruth, RetinaNet
from libra_keras.models.fast_rcnn import given_proposals
from libra_keras.models.retina_head import find_dense_targets
from libra_keras.models.targets import match_anchors, match_proposals

BATCH = 4
POSITIONS = 20_000  # of all images together
STRIDE = 16  # of P4, at whose size levels are compared


@dataclasses.dataclass(frozen=True)
class Observed:
    """Arrays of all images.

    Attributes:
        names: of the pyramid's levels: `["P2", ...]`.
        levels: dict of `"before"` and, with a balanced pyramid, `"after"`: `(positions, L, C)`.
        image: int `(positions,)`, the image of each position.
        candidates: of the second stage, dict of `(images, N)`: a `Match` by its fields,
            `"losses"` of classification, and `"errors"` `(images, N, 4)`, those of encoded boxes.
            `None` for a one-stage detector.
        errors: of a one-stage detector, `(n, 4)`, those of all its positives; else `None`.
        areas: `(images, M)` of the objects in pixels of the files, NaN in padding.
        anchors: `(images, 2)`, how many positives and negatives an image's first stage has, before
            sampling; `None` where there is no first stage.
    """

    names: list[str]
    levels: dict[str, NDArray]
    image: NDArray
    candidates: dict[str, NDArray] | None
    errors: NDArray | None
    areas: NDArray
    anchors: NDArray | None = None


def observe(model: keras.Model, own: data.DetectionData) -> Observed:
    """Runs a detector once on every image.

    Args:
        model: `FasterRCNN`, `FastRCNN` or `RetinaNet`.
        own: `DetectionData` of classes that it knows, with proposals for a `FastRCNN`.
    """
    observer, batches = Observer(model), data.evaluation_batches(own, model.input_policy, BATCH)
    rng, rows, areas = np.random.default_rng(0), [], []
    for x in batches:
        x, examples = _with_truth(x, own, model.class_names)
        rows += _rows(observer.predict_on_batch(x), x, math.ceil(POSITIONS / len(own)), rng)
        areas += [_areas(example, own.max_boxes) for example in examples]
    for file, why in batches.source.damaged.items():
        print(f"damaged, and replaced by a blank image: {file}: {why}", file=sys.stderr)
    return _joined(observer.first, rows, np.stack(areas))


class Observer(keras.Model):
    """A detector with other outputs: its pyramid's levels at one size, and its positives."""

    def __init__(self, detector):
        super().__init__(autocast=False)
        self.detector = detector
        head = detector.heads()[0]
        strides = getattr(head.settings, "strides", None) or head.roi_align.strides
        self.first = int(math.log2(strides[0]))
        self.built = True

    def call(self, x):
        images, sizes = x["images"], ops.cast(x["image_sizes"], "int32")
        truth = GroundTruth.of({"boxes": x["boxes"], "labels": x["labels"]})
        features = self.detector.backbone(self.detector.normalization(images, sizes))
        outputs = {}
        for layer in self.detector.neck:
            if isinstance(layer, BalancedFeaturePyramid):
                outputs["before"] = self._gathered(features)
            features = layer(features)
        outputs["after" if outputs else "before"] = self._gathered(features)
        pyramid = unpack(features)[1]
        is_dense = isinstance(self.detector, RetinaNet)
        see = self._dense if is_dense else self._second_stage
        return {**outputs, **see(pyramid, truth, sizes, x)}

    def _gathered(self, pyramid):
        """All levels at the size of P4, as `BalancedFeaturePyramid` brings them: `(B, H, W, L, C)`.

        Where a pyramid has no P4, its nearest level.
        """
        levels = unpack(pyramid)[1]
        place = min(max(int(math.log2(STRIDE)) - self.first, 0), len(levels) - 1)
        size = ops.shape(levels[place])[1:3]
        finer = [adaptive_max_pool(level, size) for level in levels[:place]]
        coarser = [resize_nearest(level, size) for level in levels[place + 1 :]]
        return ops.cast(ops.stack([*finer, levels[place], *coarser], axis=3), "float32")

    def _second_stage(self, pyramid, truth, sizes, x):
        head, first = self.detector.box_head, {}
        if isinstance(self.detector, FastRCNN):
            proposals = given_proposals(x)
        else:
            rpn = self.detector.rpn
            outputs = rpn(pyramid)
            proposals = rpn.propose(outputs, sizes, training=True)
            first["anchors"] = _counted(outputs["anchors"], truth, sizes, rpn.settings)
        candidates, found = match_proposals(proposals, truth, head.settings.positive_iou)
        logits, deltas = head(pyramid, candidates)
        labels = ops.take_along_axis(truth.labels, found.matched_gt, axis=1)
        goal = ops.take_along_axis(truth.boxes, found.matched_gt[..., None], axis=1)
        own = ops.take_along_axis(deltas, labels[..., None, None], axis=2)[:, :, 0]
        errors = ops.cast(own, "float32") - encode(goal, candidates, head.settings.stds)
        labels = ops.where(found.is_positive, labels, head.num_classes)
        logits = ops.cast(logits, "float32")
        losses = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        return {**found._asdict(), "losses": losses, "errors": errors, **first}

    def _dense(self, pyramid, truth, sizes, x):
        head = self.detector.head
        outputs = head(pyramid)
        anchors = ops.concatenate(outputs["anchors"], axis=0)
        targets = find_dense_targets(
            anchors, truth.boxes, truth.labels, truth.mask, sizes, head.settings
        )
        deltas = ops.cast(ops.concatenate(outputs["deltas"], axis=1), "float32")
        errors = deltas - encode(targets.boxes, anchors, head.settings.stds)
        return {"is_positive": targets.is_positive, "errors": errors}


def _counted(anchors, truth, sizes, settings):
    """How many positives and negatives the anchors of each image are: `(B, 2)`."""
    found = match_anchors(
        ops.concatenate(anchors, axis=0), truth.boxes, truth.mask, sizes, settings
    )
    kinds = ops.stack([found.is_positive, found.is_negative], axis=-1)
    return ops.sum(ops.cast(kinds, "int32"), axis=1)


def _with_truth(x, own, class_names):
    """A batch with the objects of its images, and their examples.

    Boxes are in pixels of the batch, and labels those that the detector knows the classes by.
    """
    x = {name: np.asarray(values) for name, values in x.items()}
    by_id = {example.image_id: example for example in own.examples}
    examples, originals = [by_id[i] for i in x.pop("image_ids")], x.pop("original_sizes")
    names = own.class_names if class_names is None else class_names
    known = np.array([names.index(name) for name in own.class_names], "int32")
    boxes = np.zeros((len(examples), own.max_boxes, 4), "float32")
    labels = np.full((len(examples), own.max_boxes), -1, "int32")
    for i, example in enumerate(examples):
        kept = ~example.ignore
        scaled = data.scale_boxes(example.boxes[kept], originals[i], x["image_sizes"][i])
        boxes[i, : len(scaled)], labels[i, : len(scaled)] = scaled, known[example.labels[kept]]
    return {**x, "boxes": boxes, "labels": labels}, examples


def _rows(outputs, x, most, rng):
    """The outputs of each image, with levels at so many positions."""
    padded = x["images"].shape[1:3]
    rows = [{name: values[i] for name, values in outputs.items()} for i in range(len(x["images"]))]
    return [
        _thinned(row, size, padded, most, rng)
        for row, size in zip(rows, x["image_sizes"], strict=True)
    ]


def _areas(example, rows):
    sides = (example.boxes[:, 2:] - example.boxes[:, :2])[~example.ignore]
    return np.pad(np.prod(sides, axis=1), (0, rows - len(sides)), constant_values=np.nan)


def _thinned(row, size, padded, most, rng):
    """An image's outputs with levels at random positions outside its padding: `(n, L, C)`."""
    height, width = row["before"].shape[:2]
    rows = (np.arange(height) + 0.5) * padded[0] / height < size[0]
    columns = (np.arange(width) + 0.5) * padded[1] / width < size[1]
    inside = np.flatnonzero(np.outer(rows, columns))
    chosen = rng.permutation(inside)[:most]
    for name in {"before", "after"} & row.keys():
        row[name] = row[name].reshape(height * width, *row[name].shape[2:])[chosen]
    if "losses" not in row:  # dense: too many anchors to keep
        row["errors"] = row["errors"][row.pop("is_positive")]
    return row


def _joined(first, rows, areas):
    image = np.repeat(np.arange(len(rows)), [len(row["before"]) for row in rows])
    levels = {
        name: np.concatenate([row.pop(name) for row in rows])
        for name in ("before", "after")
        if name in rows[0]
    }
    names = [f"P{first + i}" for i in range(levels["before"].shape[1])]
    if "losses" not in rows[0]:
        errors = np.concatenate([row["errors"] for row in rows])
        return Observed(names, levels, image, None, errors, areas)
    anchors = [row.pop("anchors") for row in rows if "anchors" in row]
    most = max(len(row["losses"]) for row in rows)
    candidates = {name: np.stack([_padded(row[name], most) for row in rows]) for name in rows[0]}
    anchors = np.stack(anchors) if anchors else None
    return Observed(names, levels, image, candidates, None, areas, anchors)


def _padded(values, rows):
    """Zeros and false, as of candidates that are padding."""
    return np.pad(values, [(0, rows - len(values)), *[(0, 0)] * (values.ndim - 1)])
