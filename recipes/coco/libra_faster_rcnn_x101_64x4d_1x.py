r"""Libra R-CNN with ResNeXt-101-64x4d on COCO, schedule 1x.

Paper: Pang et al., Libra R-CNN (CVPR 2019), table 1: AP 43.0 on test-dev.
mmdetection's model zoo (libra_faster_rcnn_x101_64x4d_fpn_1x_coco): AP 42.7 on val2017.
Not trained here: COCO was not at hand.

    python recipes/coco/libra_faster_rcnn_x101_64x4d_1x.py path/to/coco --to runs/x101 \
        --backbone-weights resnext101_64x4d.weights.h5

With 2 images a GPU on 8 GPUs `--batch 16` is the published setting; the learning rate follows
`--batch` in proportion. Keras offers no ImageNet weights of a ResNeXt: `libra-keras convert`
makes the file of one of PyTorch's; `none` starts from nothing.
"""

import sys

import experiment

from libra_keras.data import InputPolicy
from libra_keras.layers import BalancedFeaturePyramid, FeaturePyramid
from libra_keras.losses import BalancedL1Loss
from libra_keras.models import BoxHead, FasterRCNN, RPNHead
from libra_keras.samplers import CombinedSampler, RandomSampler

SCHEDULE = experiment.Schedule(epochs=12, drops=(8, 11), learning_rate=0.02)


def trunk(weights):
    """Returns the backbone, and the normalisation of images that its weights want."""
    return experiment.resnext(101, 64, 4, weights)


def build(num_classes, backbone, **options):
    """Returns the detector for `num_classes` classes on top of `backbone`."""
    return FasterRCNN(
        backbone=backbone,
        neck=[FeaturePyramid(256), BalancedFeaturePyramid(2, refiner="non_local")],
        rpn=RPNHead(
            sampler=RandomSampler(256, positive_fraction=0.5, max_negatives_per_positive=5)
        ),
        box_head=BoxHead(
            num_classes,
            sampler=CombinedSampler.preset("mmdet", num=512, positive_fraction=0.25),
            box_loss=BalancedL1Loss(alpha=0.5, gamma=1.5),
        ),
        input_policy=InputPolicy(short_side=800, long_side=1333),
        **options,
    )


if __name__ == "__main__":
    sys.exit(experiment.main(build, trunk, SCHEDULE, __doc__))
