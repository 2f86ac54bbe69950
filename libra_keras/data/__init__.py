"""Data sets: readers of the formats that tools write, checks, and batches."""

from libra_keras.data import dialects
from libra_keras.data.augmentation import Augmentation
from libra_keras.data.batch_plan import BatchPlan
from libra_keras.data.batches import evaluation_batches, training_batches
from libra_keras.data.checks import check_annotations, check_data
from libra_keras.data.coco import coco
from libra_keras.data.csv_table import csv
from libra_keras.data.cvat import cvat
from libra_keras.data.examples import DetectionData, Example
from libra_keras.data.findings import Finding
from libra_keras.data.images import InputPolicy, read_image, scale_boxes
from libra_keras.data.proposals import read_proposals, with_proposals, write_proposals
from libra_keras.data.shapes import shapes
from libra_keras.data.sources import load
from libra_keras.data.supervision import (
    detections_from_supervision,
    from_supervision,
    to_supervision,
)
from libra_keras.data.tfds import tfds
from libra_keras.data.voc import voc
from libra_keras.data.yolo import yolo
from libra_keras.registration import register_classes

__all__ = [
    "Augmentation",
    "BatchPlan",
    "DetectionData",
    "Example",
    "Finding",
    "InputPolicy",
    "check_annotations",
    "check_data",
    "coco",
    "csv",
    "cvat",
    "detections_from_supervision",
    "dialects",
    "evaluation_batches",
    "from_supervision",
    "load",
    "read_image",
    "read_proposals",
    "scale_boxes",
    "shapes",
    "tfds",
    "to_supervision",
    "training_batches",
    "voc",
    "with_proposals",
    "write_proposals",
    "yolo",
]

register_classes()
