r"""Libra R-CNN with ResNeXt-101-64x4d on COCO, schedule 1x.

Paper: Pang et al., Libra R-CNN (CVPR 2019), table 1: AP 43.0 on test-dev.
mmdetection's model zoo (libra_faster_rcnn_x101_64x4d_fpn_1x_coco): AP 42.7 on val2017.
Not trained here: COCO was not at hand.

    python recipes/coco/libra_faster_rcnn_x101_64x4d_1x.py path/to/coco --to runs/x101 \
        --backbone-weights resnext101_64x4d.weights.h5

With 2 images per GPU on 8 GPUs, `--batch 16` is the published setting; the learning rate follows
`--batch` in proportion. Keras has no ImageNet weights for a ResNeXt: `libra-keras convert` makes
the file from PyTorch's; `none` trains from scratch.
"""

import sys

import experiment

from libra_keras.runs import ModelConfig, ScheduleConfig, TrainConfig

CONFIG = TrainConfig(
    data=experiment.TRAIN2017,
    # Keras has no such weights, and says so: a run must name what it starts from.
    model=ModelConfig("libra_faster_rcnn_resnext101_64x4d", backbone_weights="imagenet"),
    schedule=ScheduleConfig(schedule="1x", batch=16),
)

if __name__ == "__main__":
    sys.exit(experiment.main(CONFIG, __doc__))
