"""From the raw outputs of a head that knows classes to detections: pure functions."""

from keras import ops

from libra_keras.functional.boxes import clip, decode, has_sides
from libra_keras.functional.gathering import take, take_rows
from libra_keras.functional.nms import nms
from libra_keras.functional.ranking import top_k
from libra_keras.models.proposals import filled_up

# Shortest sides of a detection in pixels; the other geometries ask for none.
_SMALLEST_SIDES = {"torchvision": 1e-2}


def select_detections(logits, deltas, proposals, image_sizes, settings):
    """Scores, decodes and suppresses the boxes of every class of logits `(B, N, K + 1)`: a dict of
    "boxes" `(B, D, 4)` in pixels of the padded image, "scores" and "labels" `(B, D)`, best first,
    padded with boxes and scores of 0 and labels of -1, and "num_detections" `(B,)`.
    """
    num_classes = deltas.shape[2]
    scores = ops.softmax(ops.cast(logits, "float32"), axis=-1)[..., :num_classes]
    eligible = ops.logical_and(scores > settings.score_threshold, proposals.mask[..., None])
    scores = ops.where(eligible, scores, 0.0)
    # Unlike in mmdetection, so many pairs at most enter NMS.
    scores, pairs = _best_pairs(scores, settings.max_candidates)
    boxes = _decode_pairs(deltas, proposals.boxes, pairs, image_sizes, settings)
    if settings.geometry in _SMALLEST_SIDES:
        scores = ops.where(has_sides(boxes, _SMALLEST_SIDES[settings.geometry]), scores, 0.0)
    return suppress(boxes, scores, pairs % num_classes, num_classes, settings)


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
    own = take_rows(flat, pairs)
    proposals = take_rows(proposal_boxes, pairs // num_classes)
    boxes = decode(own, proposals, settings.stds, settings.geometry)
    return clip(boxes, image_sizes, settings.geometry)


def select_dense_detections(level_logits, level_deltas, level_anchors, image_sizes, settings):
    """As `select_detections`, of the best (anchor, class) pairs of each level's logits `(B, N_l,
    K)`.
    """
    # Lin et al., 2017, section 4.1, "Inference".
    best = [
        _best_of_level(logits, deltas, anchors, image_sizes, settings)
        for logits, deltas, anchors in zip(level_logits, level_deltas, level_anchors, strict=True)
    ]
    boxes, scores, labels = (ops.concatenate(parts, axis=1) for parts in zip(*best, strict=True))
    return suppress(boxes, scores, labels, level_logits[0].shape[-1], settings)


def _best_of_level(logits, deltas, anchors, image_sizes, settings):
    """Boxes, scores and labels of the `pre_nms` best pairs of a level; a score of 0 is padding."""
    num_classes, count = logits.shape[-1], settings.pre_nms
    # The best pairs lie among the anchors with the best classes: first come these, so that
    # nothing as large as all the logits is sorted.
    anchor_logits = filled_up(ops.max(logits, axis=-1), count)
    best, rows = top_k(anchor_logits, count)
    rows = ops.minimum(rows, ops.shape(anchors)[0] - 1)
    logits = take_rows(logits, rows)
    logits = ops.where(best[..., None] > float("-inf"), logits, float("-inf"))
    logits, pairs = top_k(ops.reshape(logits, (-1, count * num_classes)), count)
    rows = take_rows(rows, pairs // num_classes)
    deltas = take_rows(deltas, rows)
    anchors = take(anchors, rows)
    boxes = decode(deltas, anchors, settings.stds, settings.geometry)
    boxes = clip(boxes, image_sizes, settings.geometry)
    scores = ops.sigmoid(ops.cast(logits, "float32"))
    eligible = scores > settings.score_threshold
    if settings.geometry == "continuous":  # the others leave boxes without a side
        eligible = ops.logical_and(eligible, has_sides(boxes))
    return boxes, ops.where(eligible, scores, 0.0), pairs % num_classes


def suppress(boxes, scores, labels, num_classes, settings):
    """Leaves the best of the boxes of one class that overlap; rows that score 0 are padding."""
    most = settings.max_detections
    indices, kept = nms(
        boxes,
        scores,
        settings.nms_iou,
        most,
        groups=labels,
        mask=scores > 0,
        num_groups=num_classes,
    )
    boxes = take_rows(boxes, indices)
    return {
        "boxes": ops.where(kept[..., None], boxes, 0.0),
        "scores": ops.where(kept, take_rows(scores, indices), 0.0),
        "labels": ops.where(kept, take_rows(labels, indices), -1),
        "num_detections": ops.sum(ops.cast(kept, "int32"), axis=1),
    }
