"""Libra RetinaNet with ResNet-50 on COCO, schedule 1x.

Paper: Pang et al., Libra R-CNN (CVPR 2019), table 1: AP 37.8 on test-dev.
mmdetection's model zoo (libra_retinanet_r50_fpn_1x_coco): AP 37.6 on val2017.
Not trained here: COCO was not at hand.

    python recipes/coco/libra_retinanet_r50_1x.py path/to/coco --to runs/libra_retinanet_r50_1x

With 2 images a GPU on 8 GPUs `--batch 16` is the published setting; the learning rate follows
`--batch` in proportion.
"""

import sys

import experiment

from libra_keras.runs import ModelConfig, ScheduleConfig, TrainConfig

CONFIG = TrainConfig(
    data=experiment.TRAIN2017,
    model=ModelConfig("libra_retinanet_resnet50"),
    schedule=ScheduleConfig(schedule="1x", batch=16),
)

if __name__ == "__main__":
    sys.exit(experiment.main(CONFIG, __doc__))
