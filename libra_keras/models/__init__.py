"""Detectors and their parts."""

from libra_keras.models.box_head import BoxHead
from libra_keras.models.catalogue import list as list
from libra_keras.models.constructors import (
    fast_rcnn_resnet50,
    fast_rcnn_small,
    faster_rcnn_ohem_resnet50,
    faster_rcnn_pafpn_resnet50,
    faster_rcnn_resnet50,
    faster_rcnn_resnet101,
    faster_rcnn_resnext101_32x4d,
    faster_rcnn_resnext101_64x4d,
    faster_rcnn_small,
    libra_fast_rcnn_resnet50,
    libra_fast_rcnn_small,
    libra_faster_rcnn_pafpn_resnet50,
    libra_faster_rcnn_resnet50,
    libra_faster_rcnn_resnet101,
    libra_faster_rcnn_resnext101_32x4d,
    libra_faster_rcnn_resnext101_64x4d,
    libra_faster_rcnn_small,
    libra_retinanet_resnet50,
    libra_retinanet_resnet101,
    libra_retinanet_small,
    libra_rpn_resnet50,
    libra_rpn_small,
    retinanet_resnet50,
    retinanet_resnet101,
    retinanet_resnext101_64x4d,
    retinanet_small,
    rpn_resnet50,
    rpn_resnet101,
    rpn_resnext101_64x4d,
    rpn_small,
)
from libra_keras.models.fast_rcnn import FastRCNN
from libra_keras.models.faster_rcnn import FasterRCNN
from libra_keras.models.ground_truth import GroundTruth
from libra_keras.models.region_proposal_network import RegionProposalNetwork
from libra_keras.models.reheading import with_classes
from libra_keras.models.retina_head import RetinaHead
from libra_keras.models.retinanet import RetinaNet
from libra_keras.models.rpn_head import RPNHead
from libra_keras.models.settings import BoxHeadSettings, RetinaHeadSettings, RPNSettings

# Without `list`: after `import *` it would hide Python's own.
__all__ = [
    "BoxHead",
    "BoxHeadSettings",
    "FastRCNN",
    "FasterRCNN",
    "GroundTruth",
    "RPNHead",
    "RPNSettings",
    "RegionProposalNetwork",
    "RetinaHead",
    "RetinaHeadSettings",
    "RetinaNet",
    "fast_rcnn_resnet50",
    "fast_rcnn_small",
    "faster_rcnn_ohem_resnet50",
    "faster_rcnn_pafpn_resnet50",
    "faster_rcnn_resnet50",
    "faster_rcnn_resnet101",
    "faster_rcnn_resnext101_32x4d",
    "faster_rcnn_resnext101_64x4d",
    "faster_rcnn_small",
    "libra_fast_rcnn_resnet50",
    "libra_fast_rcnn_small",
    "libra_faster_rcnn_pafpn_resnet50",
    "libra_faster_rcnn_resnet50",
    "libra_faster_rcnn_resnet101",
    "libra_faster_rcnn_resnext101_32x4d",
    "libra_faster_rcnn_resnext101_64x4d",
    "libra_faster_rcnn_small",
    "libra_retinanet_resnet50",
    "libra_retinanet_resnet101",
    "libra_retinanet_small",
    "libra_rpn_resnet50",
    "libra_rpn_small",
    "retinanet_resnet50",
    "retinanet_resnet101",
    "retinanet_resnext101_64x4d",
    "retinanet_small",
    "rpn_resnet50",
    "rpn_resnet101",
    "rpn_resnext101_64x4d",
    "rpn_small",
    "with_classes",
]
