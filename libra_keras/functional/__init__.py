"""Pure functions of tensors, in `keras.ops`: one module per topic."""

from libra_keras.functional import (
    anchors,
    boxes,
    control_flow,
    hard_examples,
    matching,
    native,
    nms,
    random_keys,
    ranking,
    resize,
    roi_align,
    roi_taps,
    sampling,
)

__all__ = [
    "anchors",
    "boxes",
    "control_flow",
    "hard_examples",
    "matching",
    "native",
    "native_pooling",
    "nms",
    "random_keys",
    "ranking",
    "resize",
    "roi_align",
    "roi_taps",
    "sampling",
]
