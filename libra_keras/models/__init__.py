"""Detectors and their parts."""

from libra_keras.models.box_head import BoxHead
from libra_keras.models.constructors import (
    faster_rcnn_resnet50,
    faster_rcnn_resnet101,
    faster_rcnn_small,
    libra_faster_rcnn_resnet50,
    libra_faster_rcnn_resnet101,
    libra_faster_rcnn_small,
)
from libra_keras.models.faster_rcnn import FasterRCNN
from libra_keras.models.ground_truth import GroundTruth
from libra_keras.models.rpn_head import RPNHead
from libra_keras.models.settings import BoxHeadSettings, RPNSettings

__all__ = [
    "BoxHead",
    "BoxHeadSettings",
    "FasterRCNN",
    "GroundTruth",
    "RPNHead",
    "RPNSettings",
    "faster_rcnn_resnet101",
    "faster_rcnn_resnet50",
    "faster_rcnn_small",
    "libra_faster_rcnn_resnet101",
    "libra_faster_rcnn_resnet50",
    "libra_faster_rcnn_small",
]
