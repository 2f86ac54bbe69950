"""From the second stage's raw outputs to detections: pure functions."""

from keras import ops

from libra_keras.functional.boxes import clip, decode, has_sides
from libra_keras.functional.nms import nms
from libra_keras.functional.ranking import top_k

# Shortest sides of a detection in pixels; the other geometries ask for none.
_SMALLEST_SIDES = {"torchvision": 1e-2}


def select_detections(logits, deltas, proposals, image_sizes, settings):
    """Scores, decodes and suppresses the boxes of every class.

    Args:
        logits: float tensor `(B, N, K + 1)`, background last.
        deltas: float tensor `(B, N, K, 4)`, encoded relative to the proposals.
        proposals: `Proposals` of N rows.
        image_sizes: int tensor `(B, 2)`, height and width before padding; boxes are clipped to it.
        settings: `BoxHeadSettings`.

    Returns:
        Dict of `"boxes"` `(B, D, 4)` in pixels of the padded batch image, `"scores"` `(B, D)` in
        0..1, `"labels"` `(B, D)`, best first, padded with boxes and scores of 0 and labels of -1,
        and `"num_detections"` `(B,)`, where D is `settings.max_detections`.

    Example:

    >>> import numpy as np
    >>> from libra_keras.models import BoxHeadSettings
    >>> from libra_keras.models.detections import select_detections
    >>> from libra_keras.models.proposals import Proposals
    >>> boxes = np.array([[[0, 0, 9, 9]]], "float32")
    >>> proposals = Proposals(boxes, scores=np.array([[0.9]]), mask=np.array([[True]]))
    >>> logits = np.array([[[0.0, 4.0, 0.0]]], "float32")
    >>> found = select_detections(logits, np.zeros((1, 1, 2, 4), "float32"), proposals,
    ...                           np.array([[16, 16]]), BoxHeadSettings(max_detections=2))
    >>> found["labels"].numpy().tolist(), found["num_detections"].numpy().tolist()
    ([[1, -1]], [1])

    Differs from mmdetection: at most `settings.max_candidates` pairs of box and class enter NMS.
    """
    num_classes = deltas.shape[2]
    scores = ops.softmax(ops.cast(logits, "float32"), axis=-1)[..., :num_classes]
    eligible = ops.logical_and(scores > settings.score_threshold, proposals.mask[..., None])
    scores = ops.where(eligible, scores, 0.0)
    scores, pairs = _best_pairs(scores, settings.max_candidates)
    boxes = _decode_pairs(deltas, proposals.boxes, pairs, image_sizes, settings)
    if settings.geometry in _SMALLEST_SIDES:
        scores = ops.where(has_sides(boxes, _SMALLEST_SIDES[settings.geometry]), scores, 0.0)
    return suppress(boxes, scores, pairs % num_classes, settings)


def suppress(boxes, scores, labels, settings):
    """Leaves the best of the boxes of one class that overlap.

    Args:
        boxes: float32 tensor `(B, N, 4)`; N must be known.
        scores: float32 tensor `(B, N)`; rows that score 0 are padding.
        labels: int tensor `(B, N)`.
        settings: `BoxHeadSettings` or `RetinaHeadSettings`.

    Returns:
        Dict as of `select_detections`.

    Example:

    >>> import numpy as np
    >>> from libra_keras.models import BoxHeadSettings
    >>> from libra_keras.models.detections import suppress
    >>> boxes = np.array([[[0, 0, 9, 9], [0, 0, 9, 8], [0, 0, 9, 8]]], "float32")
    >>> scores, labels = np.array([[0.5, 0.9, 0.7]], "float32"), np.array([[2, 2, 1]])
    >>> found = suppress(boxes, scores, labels, BoxHeadSettings(max_detections=4))
    >>> found["labels"].numpy().tolist()
    [[2, 1, -1, -1]]
    """
    most = settings.max_detections
    indices, kept = nms(boxes, scores, settings.nms_iou, most, groups=labels, mask=scores > 0)
    boxes = ops.take_along_axis(boxes, indices[..., None], axis=1)
    return {
        "boxes": ops.where(kept[..., None], boxes, 0.0),
        "scores": ops.where(kept, ops.take_along_axis(scores, indices, axis=1), 0.0),
        "labels": ops.where(kept, ops.take_along_axis(labels, indices, axis=1), -1),
        "num_detections": ops.sum(ops.cast(kept, "int32"), axis=1),
    }


def _best_pairs(scores, most):
    """The best scores `(B, n)` of (proposal, class) pairs; these as proposal * K + class."""
    _, num_proposals, num_classes = scores.shape
    flat = ops.reshape(scores, (ops.shape(scores)[0], -1))
    if num_proposals is not None:
        return top_k(flat, min(most, num_proposals * num_classes))
    # The number of given proposals may be unknown; that of candidates is not: filled with nothing.
    nothing = ops.zeros((ops.shape(scores)[0], most), dtype=flat.dtype)
    best, pairs = top_k(ops.concatenate([flat, nothing], axis=1), most)
    return best, ops.minimum(pairs, ops.shape(flat)[1] - 1)


def _decode_pairs(deltas, proposal_boxes, pairs, image_sizes, settings):
    """Boxes `(B, n, 4)` of (proposal, class) pairs, given as proposal * K + class."""
    num_classes = deltas.shape[2]
    flat = ops.reshape(deltas, (ops.shape(deltas)[0], -1, 4))
    own = ops.take_along_axis(flat, pairs[..., None], axis=1)
    proposals = ops.take_along_axis(proposal_boxes, (pairs // num_classes)[..., None], axis=1)
    boxes = decode(own, proposals, settings.stds, settings.geometry)
    return clip(boxes, image_sizes, settings.geometry)
