"""From the first stage's raw outputs to proposals: pure functions."""

from typing import NamedTuple

from keras import ops

from libra_keras.functional import boxes as box_ops
from libra_keras.functional.gathering import take, take_rows
from libra_keras.functional.nms import nms
from libra_keras.functional.ranking import top_k
from libra_keras.typing import Tensor

# Shortest sides of a proposal in pixels, 0 for any that is not 0. The legacy geometry asks for
# none: clipping leaves a pixel, and mmdetection 1.x kept every box whose width was not negative.
_SMALLEST_SIDES = {"continuous": 0.0, "torchvision": 1e-3}


class Proposals(NamedTuple):
    """Boxes that may hold an object, best first."""

    boxes: Tensor  # float32 (B, P, 4), pixels of the padded batch image; 0 in padding rows
    scores: Tensor  # float32 (B, P) in 0..1
    mask: Tensor  # bool (B, P), false for padding


def select_proposals(level_logits, level_deltas, level_anchors, image_sizes, settings, pre_nms):
    """Takes the `pre_nms` best anchors of each level, decodes them, and keeps what NMS leaves:
    `settings.post_nms` rows, whatever the image's size.
    """
    # Faster R-CNN section 3.1; per level as in FPN section 4.1.
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
    logits = filled_up(ops.cast(logits, "float32"), pre_nms)
    best_logits, indices = top_k(logits, pre_nms)
    indices = ops.minimum(indices, ops.shape(anchors)[0] - 1)
    deltas = take_rows(deltas, indices)
    boxes = box_ops.decode(deltas, take(anchors, indices), geometry=geometry)
    boxes = box_ops.clip(boxes, image_sizes, geometry)
    if geometry in _SMALLEST_SIDES:
        has_sides = box_ops.has_sides(boxes, _SMALLEST_SIDES[geometry])
        best_logits = ops.where(has_sides, best_logits, float("-inf"))
    # An image of size 0, which stands for none, proposes nothing in any geometry.
    is_image = ops.convert_to_tensor(image_sizes)[:, :1] > 0
    return boxes, ops.where(is_image, best_logits, float("-inf"))


def filled_up(values, count):
    """Values `(B, N)`, with -inf up to `count` a row where N is smaller or unknown, so that the
    sizes of what follows depend on no image.
    """
    if values.shape[1] is not None and values.shape[1] >= count:
        return values
    nothing = ops.full((ops.shape(values)[0], count), float("-inf"), dtype=values.dtype)
    return ops.concatenate([values, nothing], axis=1)


def _suppress(boxes, logits, settings):
    """NMS of each level of each image; returns what is left, best first, -inf in padding."""
    most = min(settings.post_nms, boxes.shape[1])
    indices, kept = nms(boxes, logits, settings.nms_iou, most, mask=logits > float("-inf"))
    boxes = take_rows(boxes, indices)
    logits = take_rows(logits, indices)
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
    boxes = take_rows(boxes, indices)
    mask = logits > float("-inf")
    boxes = ops.where(mask[..., None], boxes, 0.0)
    return Proposals(boxes, ops.where(mask, ops.sigmoid(logits), 0.0), mask)
