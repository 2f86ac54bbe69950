"""Data sets: readers of COCO, Pascal VOC, TFDS and drawn scenes, checks, and batches of them."""

import importlib

from libra_keras.data.batch_plan import BatchPlan
from libra_keras.data.checks import Finding, check_annotations, check_data
from libra_keras.data.coco import coco
from libra_keras.data.examples import DetectionData, Example
from libra_keras.data.images import InputPolicy, read_image, scale_boxes
from libra_keras.data.proposals import read_proposals, with_proposals, write_proposals
from libra_keras.data.shapes import shapes
from libra_keras.data.tfds import tfds
from libra_keras.data.voc import voc

_TENSORFLOW = ("evaluation_batches", "training_batches")
__all__ = [
    "BatchPlan",
    "DetectionData",
    "Example",
    "Finding",
    "InputPolicy",
    "check_annotations",
    "check_data",
    "coco",
    "read_image",
    "read_proposals",
    "scale_boxes",
    "shapes",
    "tfds",
    "voc",
    "with_proposals",
    "write_proposals",
    *_TENSORFLOW,
]


def __getattr__(name):
    """Imports the pipeline, and TensorFlow with it, when it is first used."""
    if name in _TENSORFLOW:
        return getattr(importlib.import_module(f"{__name__}.pipeline"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
