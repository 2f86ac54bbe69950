"""What the two stages should answer: pure functions from boxes to training targets."""

from typing import NamedTuple

from keras import ops

from libra_keras.functional import boxes as box_ops
from libra_keras.functional.matching import Match, match


class Targets(NamedTuple):
    """What N candidates should be classified as and regressed to.

    Attributes:
        labels: int32 `(B, N)`; class of the matched object, meaningful where `is_positive`.
        boxes: float32 `(B, N, 4)`, the matched object's box, meaningful where `is_positive`.
        is_positive: bool `(B, N)`.
        weights: float32 `(B, N)`; 1 for a candidate that is trained, 0 for others and padding.

    Example:

    >>> from libra_keras.models.targets import Targets
    >>> Targets._fields
    ('labels', 'boxes', 'is_positive', 'weights')
    """

    labels: object
    boxes: object
    is_positive: object
    weights: object


def match_anchors(anchors, gt_boxes, gt_mask, image_sizes, settings):
    """Matches the anchors of a pyramid with a batch's objects.

    Args:
        anchors: float tensor `(N, 4)` in pixels.
        gt_boxes: float tensor `(B, M, 4)`.
        gt_mask: bool tensor `(B, M)`, false for padding.
        image_sizes: int tensor `(B, 2)`, height and width before padding.
        settings: `RPNSettings` or `RetinaHeadSettings`.

    Returns:
        `Match` of shape `(B, N)`. Anchors centred in the padding of an image are ignored.

    Example:

    >>> import numpy as np
    >>> from libra_keras.models import RPNSettings
    >>> from libra_keras.models.targets import match_anchors
    >>> anchors = np.array([[0, 0, 32, 32], [40, 40, 72, 72], [90, 0, 122, 32]], "float32")
    >>> gt_boxes, gt_mask = np.array([[[0, 0, 32, 32]]], "float32"), np.array([[True]])
    >>> result = match_anchors(anchors, gt_boxes, gt_mask, np.array([[64, 64]]), RPNSettings())
    >>> result.is_positive.numpy().tolist(), result.is_negative.numpy().tolist()
    ([[True, False, False]], [[False, True, False]])

    Differs from mmdetection: an image's own size counts, not that of the batch's padding.
    """
    anchors = ops.cast(anchors, "float32")
    iou = box_ops.iou(anchors[None], gt_boxes)
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
    """Matches proposals with objects, and puts the objects themselves before the proposals.

    Args:
        proposals: `Proposals` of B images and P boxes.
        truth: `GroundTruth` of B images and M objects.
        positive_iou: float, overlap from which a proposal is positive; below it is negative.

    Returns:
        Tuple of the candidates' boxes `(B, M + P, 4)` and their `Match`: every object is its own
        match with overlap 1. Padding is neither positive nor negative.

    Example:

    >>> from libra_keras.models import GroundTruth
    >>> from libra_keras.models.proposals import Proposals
    >>> from libra_keras.models.targets import match_proposals
    >>> truth = GroundTruth.of({"boxes": [[[0.0, 0.0, 8.0, 8.0]]], "labels": [[2]]})
    >>> proposals = Proposals([[[20.0, 0.0, 30.0, 9.0]]], [[0.5]], [[True]])
    >>> boxes, result = match_proposals(proposals, truth, positive_iou=0.5)
    >>> boxes.shape[1], result.is_positive.numpy().tolist()
    (2, [[True, False]])

    Reference: Faster R-CNN section 3.2; the objects are added as in mmdetection.
    """
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
    """Draws the candidates that are trained and looks up their objects.

    Args:
        found: `Match` of B images and N candidates.
        truth: `GroundTruth` of B images.
        sampler: a sampler of `libra_keras.samplers`.
        keys: float tensor `(B, N)`, uniform in [0, 1).
        losses: float tensor `(B, N)` for a sampler that needs losses, else `None`.

    Returns:
        Tuple of indices int32 `(B, num)` into the candidates and their `Targets`.

    Example:

    >>> import numpy as np
    >>> from libra_keras.functional.matching import Match
    >>> from libra_keras.models import GroundTruth
    >>> from libra_keras.models.targets import sample_targets
    >>> from libra_keras.samplers import RandomSampler
    >>> truth = GroundTruth.of({"boxes": [[[0.0, 0.0, 8.0, 8.0]]], "labels": [[2]]})
    >>> found = Match(np.array([[0, 0]], "int32"), np.array([[0.9, 0.0]], "float32"),
    ...               np.array([[True, False]]), np.array([[False, True]]))
    >>> sampler = RandomSampler(num=4, positive_fraction=0.5)
    >>> indices, targets = sample_targets(found, truth, sampler, np.array([[0.1, 0.2]], "float32"))
    >>> targets.weights.numpy().tolist()
    [[1.0, 1.0, 0.0, 0.0]]
    """
    losses = [] if losses is None else [losses]
    indices, is_positive, weights = sampler(found, keys, *losses)
    matched = ops.take_along_axis(found.matched_gt, indices, axis=1)
    labels = ops.take_along_axis(truth.labels, matched, axis=1)
    boxes = ops.take_along_axis(truth.boxes, matched[..., None], axis=1)
    return indices, Targets(labels, boxes, is_positive, weights)
