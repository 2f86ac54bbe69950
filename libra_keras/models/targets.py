"""What the heads should answer, and how many boxes that teaches: from boxes to training targets."""

from typing import NamedTuple

from keras import ops

from libra_keras.functional import boxes as box_ops
from libra_keras.functional.gathering import take_rows
from libra_keras.functional.matching import Match, match
from libra_keras.functional.replicas import sum_over_replicas
from libra_keras.typing import Tensor


class Targets(NamedTuple):
    """What N candidates should be classified as and regressed to."""

    labels: Tensor  # int32 (B, N), class of the matched object, meaningful where `is_positive`
    boxes: Tensor  # float32 (B, N, 4), the matched object's, meaningful where `is_positive`
    is_positive: Tensor  # bool (B, N)
    weights: Tensor  # float32 (B, N); 1 for a candidate that is trained, 0 for others and padding


def match_anchors(anchors, gt_boxes, gt_mask, image_sizes, settings):
    """Matches anchors `(N, 4)` with a batch's objects, but for those in the padding of an image."""
    anchors = ops.cast(anchors, "float32")
    iou = box_ops.iou(anchors[None], gt_boxes)
    # Unlike in mmdetection, an image's own size counts, not that of the batch's padding.
    multiple = settings.pad_multiple
    limits = -(-ops.cast(image_sizes, "int32") // multiple) * multiple  # (B, 2), rounded up
    limits = ops.cast(limits, "float32")[:, None]
    centres = 0.5 * (anchors[:, :2] + anchors[:, 2:])
    inside = ops.logical_and(centres[:, 1] < limits[..., 0], centres[:, 0] < limits[..., 1])
    return match(
        iou,
        gt_mask,
        settings.positive_iou,
        settings.negative_iou,
        settings.min_positive_iou,
        candidate_mask=inside,
    )


def match_proposals(proposals, truth, positive_iou):
    """Returns candidates `(B, M + P, 4)`, the objects before the proposals, and their `Match`:
    every object is its own, and padding is neither positive nor negative.
    """
    # Faster R-CNN section 3.2; the objects are added as in mmdetection.
    found = match(
        box_ops.iou(proposals.boxes, truth.boxes),
        truth.mask,
        positive_iou,
        positive_iou,
        candidate_mask=proposals.mask,
    )
    own_index = ops.broadcast_to(
        ops.arange(ops.shape(truth.labels)[1], dtype="int32"), ops.shape(truth.labels)
    )
    objects = Match(
        own_index,
        ops.cast(truth.mask, "float32"),
        truth.mask,
        ops.zeros_like(truth.mask),
    )
    both = [ops.concatenate(pair, axis=1) for pair in zip(objects, found, strict=True)]
    candidates = ops.concatenate([truth.boxes, ops.cast(proposals.boxes, "float32")], axis=1)
    return candidates, Match(*both)


def sample_targets(found, truth, sampler, keys, losses=None):
    """Draws the candidates that are trained, by keys `(B, N)` in [0, 1): their indices, int32 `(B,
    num)`, and their `Targets`.
    """
    losses = [] if losses is None else [losses]
    indices, is_positive, weights = sampler(found, keys, *losses)
    matched = take_rows(found.matched_gt, indices)
    labels = take_rows(truth.labels, matched)
    boxes = take_rows(truth.boxes, matched)
    return indices, Targets(labels, boxes, is_positive, weights)


def mean_per_image(chosen, present):
    """Mean number of the boxes chosen by `(B, N)` of an image, of those `(B,)` present, over all
    replicas: a metric, since losses do not tell how many boxes a step has learnt from.
    """
    counts = ops.sum(ops.cast(chosen, "float32"), axis=1)
    both = ops.stack([ops.sum(counts * present), ops.sum(present)])
    total, images = ops.unstack(sum_over_replicas(both), num=2)
    return total / ops.maximum(images, 1.0)
