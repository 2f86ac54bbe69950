"""Detectors and their parts."""

from libra_keras.models import constructors
from libra_keras.models.box_head import BoxHead
from libra_keras.models.constructors import *
from libra_keras.models.constructors import list as list
from libra_keras.models.fast_rcnn import FastRCNN
from libra_keras.models.faster_rcnn import FasterRCNN
from libra_keras.models.ground_truth import GroundTruth
from libra_keras.models.rebuilding import with_classes
from libra_keras.models.region_proposal_network import RegionProposalNetwork
from libra_keras.models.retina_head import RetinaHead
from libra_keras.models.retinanet import RetinaNet
from libra_keras.models.rpn_head import RPNHead
from libra_keras.models.settings import BoxHeadSettings, RetinaHeadSettings, RPNSettings
from libra_keras.registration import register_classes

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
    "with_classes",
]
__all__ += constructors.__all__

register_classes()
