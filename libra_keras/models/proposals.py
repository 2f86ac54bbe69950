"""From the first stage's raw outputs to proposals: pure functions."""

from typing import NamedTuple

from keras import ops

from libra_keras.functional import boxes as box_ops
from libra_keras.functional.nms import nms
from libra_keras.functional.ranking import top_k

# Shortest sides of a proposal in pixels, 0 for any that is not 0. The legacy geometry asks for
# none: clipping leaves a pixel, and mmdetection 1.x kept every box whose width was not negative.
_SMALLEST_SIDES = {"continuous": 0.0, "torchvision": 1e-3}


class Proposals(NamedTuple):
    """Boxes that may hold an object, best first.

    Attributes:
        boxes: float32 `(B, P, 4)`, pixels of the padded batch image; 0 in padding rows.
        scores: float32 `(B, P)` in 0..1.
        mask: bool `(B, P)`, false for padding.

    Example:

    >>> from libra_keras.models.proposals import Proposals
    >>> Proposals._fields
    ('boxes', 'scores', 'mask')
    """

    boxes: object
    scores: object
    mask: object


def select_proposals(level_logits, level_deltas, level_anchors, image_sizes, settings, pre_nms):
    """Takes the best anchors of each level, decodes them, and keeps what NMS leaves.

    Args:
        level_logits: list of L float tensors `(B, N_l)`.
        level_deltas: list of L float tensors `(B, N_l, 4)`.
        level_anchors: list of L float tensors `(N_l, 4)`.
        image_sizes: int tensor `(B, 2)`, height and width before padding; boxes are clipped to it.
        settings: `RPNSettings`.
        pre_nms: int, best anchors of each level that enter NMS.

    Returns:
        `Proposals` of `settings.post_nms` rows, whatever the image's size.

    Example:

    >>> import numpy as np
    >>> from libra_keras.models import RPNSettings
    >>> from libra_keras.models.proposals import select_proposals
    >>> anchors = np.array([[0, 0, 16, 16], [1, 0, 17, 16], [32, 32, 64, 64]], "float32")
    >>> proposals = select_proposals([np.array([[2.0, 1.0, 0.0]], "float32")],
    ...     [np.zeros((1, 3, 4), "float32")], [anchors], np.array([[48, 64]]),
    ...     RPNSettings(post_nms=3), pre_nms=3)
    >>> proposals.boxes.numpy()[proposals.mask.numpy()].tolist()
    [[0.0, 0.0, 16.0, 16.0], [32.0, 32.0, 64.0, 48.0]]

    Reference: Faster R-CNN section 3.1; per level as in FPN section 4.1.
    """
    best = [
        _best_of_level(logits, deltas, anchors, image_sizes, settings.geometry, pre_nms)
        for logits, deltas, anchors in zip(level_logits, level_deltas, level_anchors, strict=True)
    ]
    boxes = ops.concatenate([boxes for boxes, _ in best], axis=0)  # (L * B, pre_nms, 4)
    logits = ops.concatenate([logits for _, logits in best], axis=0)
    kept_boxes, kept_logits = _suppress(boxes, logits, settings)
    return _merge_levels(kept_boxes, kept_logits, len(best), settings.post_nms)


def _best_of_level(logits, deltas, anchors, image_sizes, geometry, pre_nms):
    """The `pre_nms` best boxes `(B, pre_nms, 4)` of a level; logit -inf marks padding."""
    logits = ops.cast(logits, "float32")
    if logits.shape[1] is None or logits.shape[1] < pre_nms:
        # A size that does not depend on the image: the level is filled up with nothing.
        nothing = ops.full((ops.shape(logits)[0], pre_nms), float("-inf"), dtype="float32")
        logits = ops.concatenate([logits, nothing], axis=1)
    best_logits, indices = top_k(logits, pre_nms)
    indices = ops.minimum(indices, ops.shape(anchors)[0] - 1)
    deltas = ops.take_along_axis(deltas, indices[..., None], axis=1)
    boxes = box_ops.decode(deltas, ops.take(anchors, indices, axis=0), geometry=geometry)
    boxes = box_ops.clip(boxes, image_sizes, geometry)
    if geometry in _SMALLEST_SIDES:
        has_sides = box_ops.has_sides(boxes, _SMALLEST_SIDES[geometry])
        best_logits = ops.where(has_sides, best_logits, float("-inf"))
    # An image of size 0, which stands for none, proposes nothing in any geometry.
    is_image = ops.convert_to_tensor(image_sizes)[:, :1] > 0
    return boxes, ops.where(is_image, best_logits, float("-inf"))


def _suppress(boxes, logits, settings):
    """NMS of each level of each image; returns what is left, best first, -inf in padding."""
    most = min(settings.post_nms, boxes.shape[1])
    indices, kept = nms(boxes, logits, settings.nms_iou, most, mask=logits > float("-inf"))
    boxes = ops.take_along_axis(boxes, indices[..., None], axis=1)
    logits = ops.take_along_axis(logits, indices, axis=1)
    return boxes, ops.where(kept, logits, float("-inf"))


def _merge_levels(boxes, logits, num_levels, post_nms):
    most = boxes.shape[1]
    # (L * B, most) -> (B, L * most)
    logits = ops.transpose(ops.reshape(logits, (num_levels, -1, most)), (1, 0, 2))
    logits = ops.reshape(logits, (-1, num_levels * most))
    boxes = ops.transpose(ops.reshape(boxes, (num_levels, -1, most, 4)), (1, 0, 2, 3))
    boxes = ops.reshape(boxes, (-1, num_levels * most, 4))
    count = min(post_nms, num_levels * most)
    logits, indices = top_k(logits, count)
    boxes = ops.take_along_axis(boxes, indices[..., None], axis=1)
    mask = logits > float("-inf")
    boxes = ops.where(mask[..., None], boxes, 0.0)
    return Proposals(boxes, ops.where(mask, ops.sigmoid(logits), 0.0), mask)
