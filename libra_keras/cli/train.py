"""Train a detector and write a run folder."""

from libra_keras.cli.options import add_config as add_arguments  # noqa: F401
from libra_keras.cli.options import config_of

EXAMPLES = """examples:
  libra-keras train
      the small Libra Faster R-CNN on drawn shapes: a few minutes on a laptop's CPU
  libra-keras train --model faster_rcnn_small
      its plain counterpart, on the same budget
  libra-keras train my_photos --train-split train --val-split val --to runs/mine \\
      --model libra_faster_rcnn_resnet50
      your own folder, from ImageNet weights
  libra-keras train my_photos --steps 10 --epochs 1 --to runs/trial
      ten steps, to see that everything works
  libra-keras train my_photos --init runs/coco --epochs 4 --to runs/mine
      from a trained or converted detector, whatever its classes
  libra-keras train my_photos --init libra_faster_rcnn_r50_fpn_1x_coco --to runs/mine
      from a published one, downloaded on first use
  libra-keras train --model libra_fast_rcnn_small --proposals-file train.npz \\
      --val-proposals-file val.npz
      a second stage on proposals written by libra-keras propose

A run that was killed, or stopped by Ctrl-C, continues when the same command is given again.
"""


def run(options) -> int:
    """Trains a detector and returns the exit status."""
    from libra_keras import runs

    try:
        runs.train(config_of(options))
    except runs.Stopped as stop:  # the run is saved and has reported it
        return stop.status
    except runs.NonFiniteLoss:  # also reported
        return 1
    return 0
