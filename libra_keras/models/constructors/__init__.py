"""Named detectors: here, and only here, stand the papers' numbers."""

from libra_keras.models.constructors import (
    fast_rcnn,
    faster_rcnn,
    faster_rcnn_variants,
    retinanet,
    rpn,
)
from libra_keras.models.constructors.fast_rcnn import *
from libra_keras.models.constructors.faster_rcnn import *
from libra_keras.models.constructors.faster_rcnn_variants import *
from libra_keras.models.constructors.retinanet import *
from libra_keras.models.constructors.rpn import *

_MODULES = fast_rcnn, faster_rcnn, faster_rcnn_variants, retinanet, rpn
__all__ = [name for module in _MODULES for name in module.__all__]
