"""Checkpoints of mmdetection, torchvision, timm and keras.applications, as detectors of ours."""

from libra_keras.convert.checkpoint import Checkpoint, read_checkpoint
from libra_keras.convert.conversion import Conversion, convert, load
from libra_keras.convert.output_files import read_record

__all__ = ["Checkpoint", "Conversion", "convert", "load", "read_checkpoint", "read_record"]
