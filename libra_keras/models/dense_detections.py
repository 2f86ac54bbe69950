"""From a one-stage detector's raw outputs to detections: a pure function."""

from keras import ops

from libra_keras.functional import boxes as box_ops
from libra_keras.functional.ranking import top_k
from libra_keras.models.detections import suppress


def select_dense_detections(level_logits, level_deltas, level_anchors, image_sizes, settings):
    """Takes the best (anchor, class) pairs of each level, decodes and suppresses them.

    Args:
        level_logits: list of L float tensors `(B, N_l, K)`, one logit a class.
        level_deltas: list of L float tensors `(B, N_l, 4)`.
        level_anchors: list of L float tensors `(N_l, 4)`. N_l may be unknown.
        image_sizes: int tensor `(B, 2)`, height and width before padding; boxes are clipped to it.
        settings: `RetinaHeadSettings`.

    Returns:
        Dict of `"boxes"` `(B, D, 4)` in pixels of the padded batch image, `"scores"` `(B, D)` in
        0..1, `"labels"` `(B, D)`, best first, padded with boxes and scores of 0 and labels of -1,
        and `"num_detections"` `(B,)`, where D is `settings.max_detections`.

    Example:

    >>> import numpy as np
    >>> from libra_keras.models import RetinaHeadSettings
    >>> from libra_keras.models.dense_detections import select_dense_detections
    >>> anchors = np.array([[0, 0, 16, 16], [1, 0, 17, 16], [32, 32, 64, 64]], "float32")
    >>> logits = np.array([[[3.0, -9.0], [2.0, -9.0], [-9.0, 1.0]]], "float32")
    >>> found = select_dense_detections([logits], [np.zeros((1, 3, 4), "float32")], [anchors],
    ...                                 np.array([[48, 64]]), RetinaHeadSettings(max_detections=3))
    >>> found["labels"].numpy().tolist(), found["boxes"].numpy()[0, 1].tolist()
    ([[0, 1, -1]], [32.0, 32.0, 64.0, 48.0])

    Reference: [Lin et al., 2017](https://arxiv.org/abs/1708.02002), section 4.1, "Inference".
    """
    best = [
        _best_of_level(logits, deltas, anchors, image_sizes, settings)
        for logits, deltas, anchors in zip(level_logits, level_deltas, level_anchors, strict=True)
    ]
    boxes, scores, labels = (ops.concatenate(parts, axis=1) for parts in zip(*best, strict=True))
    return suppress(boxes, scores, labels, settings)


def _best_of_level(logits, deltas, anchors, image_sizes, settings):
    """Boxes, scores and labels of the `pre_nms` best pairs of a level; a score of 0 is padding."""
    num_classes, count = logits.shape[-1], settings.pre_nms
    # The best pairs lie among the anchors with the best classes: first come these, so that
    # nothing as large as all the logits is sorted.
    anchor_logits = _filled_up(ops.max(logits, axis=-1), count)
    best, rows = top_k(anchor_logits, count)
    rows = ops.minimum(rows, ops.shape(anchors)[0] - 1)
    logits = ops.take_along_axis(logits, rows[..., None], axis=1)
    logits = ops.where(best[..., None] > float("-inf"), logits, float("-inf"))
    logits, pairs = top_k(ops.reshape(logits, (-1, count * num_classes)), count)
    rows = ops.take_along_axis(rows, pairs // num_classes, axis=1)
    deltas = ops.take_along_axis(deltas, rows[..., None], axis=1)
    anchors = ops.take(anchors, rows, axis=0)
    boxes = box_ops.decode(deltas, anchors, settings.stds, settings.geometry)
    boxes = box_ops.clip(boxes, image_sizes, settings.geometry)
    scores = ops.sigmoid(ops.cast(logits, "float32"))
    eligible = scores > settings.score_threshold
    if settings.geometry == "continuous":  # the others leave boxes without a side
        eligible = ops.logical_and(eligible, box_ops.has_sides(boxes))
    return boxes, ops.where(eligible, scores, 0.0), pairs % num_classes


def _filled_up(values, count):
    """Values `(B, N)`, with -inf up to `count` a row where N is smaller or unknown.

    The sizes of what follows then depend on no image.
    """
    if values.shape[1] is not None and values.shape[1] >= count:
        return values
    nothing = ops.full((ops.shape(values)[0], count), float("-inf"), dtype=values.dtype)
    return ops.concatenate([values, nothing], axis=1)
