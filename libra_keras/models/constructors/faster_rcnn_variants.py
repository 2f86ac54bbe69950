"""Two-stage detectors of the same numbers with other necks and samplers.

A Libra constructor and its plain twin differ in the lines marked (*).
"""

from libra_keras.backbones import ResNet
from libra_keras.layers import BalancedFeaturePyramid, FeaturePyramid, PathAggregationPyramid
from libra_keras.losses import BalancedL1Loss
from libra_keras.models.box_head import BoxHead
from libra_keras.models.constructors.parts import of_one_dtype, with_policy
from libra_keras.models.faster_rcnn import FasterRCNN
from libra_keras.models.rpn_head import RPNHead
from libra_keras.samplers import CombinedSampler, OHEMSampler, RandomSampler

__all__ = [
    "faster_rcnn_ohem_resnet50",
    "faster_rcnn_pafpn_resnet50",
    "libra_faster_rcnn_pafpn_resnet50",
]


@of_one_dtype
def faster_rcnn_pafpn_resnet50(num_classes=80, backbone=None, roi_align=None, **options):
    """Faster R-CNN with ResNet-50 and path aggregation.

    Args:
        num_classes: int, classes without the background.
        backbone, roi_align: as in `faster_rcnn_resnet50`.
        **options: as in `faster_rcnn_resnet50`.

    Returns:
        `FasterRCNN`.

    Example:

    >>> from libra_keras.backbones import ResNet
    >>> from libra_keras.models import faster_rcnn_pafpn_resnet50
    >>> model = faster_rcnn_pafpn_resnet50(num_classes=3, backbone=ResNet(18, width=8))
    >>> [type(layer).__name__ for layer in model.neck]
    ['PathAggregationPyramid']

    Reference: [Liu et al., 2018](https://arxiv.org/abs/1803.01534); numbers as in mmdetection's
    `faster-rcnn_r50_pafpn_1x_coco`. Differs from it as `faster_rcnn_resnet50` does.
    """
    return FasterRCNN(
        backbone=backbone or ResNet(50),
        neck=[PathAggregationPyramid(256)],
        rpn=RPNHead(sampler=RandomSampler(num=256, positive_fraction=0.5)),
        box_head=BoxHead(num_classes, roi_align=roi_align),
        **with_policy(options, 800, 1333),
    )


@of_one_dtype
def libra_faster_rcnn_pafpn_resnet50(num_classes=80, backbone=None, roi_align=None, **options):
    """Libra R-CNN with ResNet-50 on a balanced path aggregation pyramid.

    Args:
        num_classes: int, classes without the background.
        backbone, roi_align: as in `faster_rcnn_resnet50`.
        **options: as in `faster_rcnn_resnet50`.

    Returns:
        `FasterRCNN`.

    Example:

    >>> from libra_keras.backbones import ResNet
    >>> from libra_keras.models import libra_faster_rcnn_pafpn_resnet50
    >>> model = libra_faster_rcnn_pafpn_resnet50(num_classes=3, backbone=ResNet(18, width=8))
    >>> [type(layer).__name__ for layer in model.neck]
    ['PathAggregationPyramid', 'BalancedFeaturePyramid']

    Reference: [Pang et al., 2019](https://arxiv.org/abs/1904.02701), "balanced PAFPN" of table 5.
    Differs from that row in what is not the neck: there samples and the box loss are plain, and
    the proposals given. Numbers as in `libra_faster_rcnn_resnet50`; the reference has no
    configuration of it.
    """
    return FasterRCNN(
        backbone=backbone or ResNet(50),
        neck=[PathAggregationPyramid(256), BalancedFeaturePyramid(2, refiner="non_local")],  # (*)
        rpn=RPNHead(  # (*) at most 5 negatives a positive
            sampler=RandomSampler(256, positive_fraction=0.5, max_negatives_per_positive=5)
        ),
        box_head=BoxHead(
            num_classes,
            sampler=CombinedSampler.preset("mmdet", num=512, positive_fraction=0.25),  # (*)
            box_loss=BalancedL1Loss(alpha=0.5, gamma=1.5),  # (*)
            roi_align=roi_align,
        ),
        **with_policy(options, 800, 1333),
    )


@of_one_dtype
def faster_rcnn_ohem_resnet50(num_classes=80, backbone=None, roi_align=None, **options):
    """Faster R-CNN with ResNet-50 whose second stage trains on its hardest proposals.

    Args:
        num_classes: int, classes without the background.
        backbone, roi_align: as in `faster_rcnn_resnet50`.
        **options: as in `faster_rcnn_resnet50`.

    Returns:
        `FasterRCNN`.

    Example:

    >>> from libra_keras.backbones import ResNet
    >>> from libra_keras.models import faster_rcnn_ohem_resnet50
    >>> model = faster_rcnn_ohem_resnet50(num_classes=3, backbone=ResNet(18, width=8))
    >>> type(model.box_head.sampler).__name__
    'OHEMSampler'

    Reference: [Shrivastava et al., 2016](https://arxiv.org/abs/1604.03540); numbers as in
    mmdetection's `faster-rcnn_r50_fpn_ohem_1x_coco`. Differs from it as `faster_rcnn_resnet50`
    does.
    """
    return FasterRCNN(
        backbone=backbone or ResNet(50),
        neck=[FeaturePyramid(256)],
        rpn=RPNHead(sampler=RandomSampler(num=256, positive_fraction=0.5)),
        box_head=BoxHead(
            num_classes,
            sampler=OHEMSampler(num=512, positive_fraction=0.25),
            roi_align=roi_align,
        ),
        **with_policy(options, 800, 1333),
    )
