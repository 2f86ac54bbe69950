"""Libra R-CNN with ResNet-101 on COCO, schedule 2x.

Paper: Pang et al., Libra R-CNN (CVPR 2019), table 1: AP 41.1 on test-dev.
Not trained here: COCO was not at hand.

    python recipes/coco/libra_faster_rcnn_r101_2x.py path/to/coco --to runs/libra_r101_2x

With 2 images a GPU on 8 GPUs `--batch 16` is the published setting; the learning rate follows
`--batch` in proportion.
"""

import sys

import experiment

from libra_keras.runs import ModelConfig, ScheduleConfig, TrainConfig

CONFIG = TrainConfig(
    data=experiment.TRAIN2017,
    model=ModelConfig("libra_faster_rcnn_resnet101"),
    schedule=ScheduleConfig(schedule="2x", batch=16),
)

if __name__ == "__main__":
    sys.exit(experiment.main(CONFIG, __doc__))
