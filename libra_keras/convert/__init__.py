"""Checkpoints of mmdetection, torchvision, timm and keras.applications, as detectors of ours."""

from libra_keras.convert.checkpoint import Checkpoint, read_checkpoint
from libra_keras.convert.conversion import Conversion, convert, load, read_record
from libra_keras.registration import register_classes

__all__ = ["Checkpoint", "Conversion", "convert", "load", "read_checkpoint", "read_record"]

register_classes()
