"""Named detectors: here, and only here, stand the papers' numbers."""

from libra_keras.models.constructors.fast_rcnn import (
    fast_rcnn_resnet50,
    fast_rcnn_small,
    libra_fast_rcnn_resnet50,
    libra_fast_rcnn_small,
)
from libra_keras.models.constructors.faster_rcnn import (
    faster_rcnn_resnet50,
    faster_rcnn_resnet101,
    faster_rcnn_small,
    libra_faster_rcnn_resnet50,
    libra_faster_rcnn_resnet101,
    libra_faster_rcnn_small,
)
from libra_keras.models.constructors.faster_rcnn_variants import (
    faster_rcnn_ohem_resnet50,
    faster_rcnn_pafpn_resnet50,
    faster_rcnn_resnext101_32x4d,
    faster_rcnn_resnext101_64x4d,
    libra_faster_rcnn_pafpn_resnet50,
    libra_faster_rcnn_resnext101_32x4d,
    libra_faster_rcnn_resnext101_64x4d,
)
from libra_keras.models.constructors.retinanet import (
    libra_retinanet_resnet50,
    libra_retinanet_resnet101,
    libra_retinanet_small,
    retinanet_resnet50,
    retinanet_resnet101,
    retinanet_resnext101_64x4d,
    retinanet_small,
)
from libra_keras.models.constructors.rpn import (
    libra_rpn_resnet50,
    libra_rpn_small,
    rpn_resnet50,
    rpn_resnet101,
    rpn_resnext101_64x4d,
    rpn_small,
)

__all__ = [
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
]
