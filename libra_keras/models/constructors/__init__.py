"""Named detectors: here, and only here, stand the papers' numbers."""

from libra_keras.models.constructors.faster_rcnn import (
    faster_rcnn_resnet50,
    faster_rcnn_resnet101,
    faster_rcnn_small,
    libra_faster_rcnn_resnet50,
    libra_faster_rcnn_resnet101,
    libra_faster_rcnn_small,
)

__all__ = [
    "faster_rcnn_resnet101",
    "faster_rcnn_resnet50",
    "faster_rcnn_small",
    "libra_faster_rcnn_resnet101",
    "libra_faster_rcnn_resnet50",
    "libra_faster_rcnn_small",
]
