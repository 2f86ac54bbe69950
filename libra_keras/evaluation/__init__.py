"""COCO metrics, Pascal VOC's and proposal recall, as functions and as Keras callbacks; and what
explains them: errors by kind, curves, parts of a data set, and label statistics."""

from libra_keras.evaluation.anchor_fit import Anchors
from libra_keras.evaluation.breakdowns import ap_by_crowding, ap_by_size, coco_numbers
from libra_keras.evaluation.callbacks import COCOEvaluation, ProposalEvaluation
from libra_keras.evaluation.class_matching import relabelled
from libra_keras.evaluation.coco_metrics import (
    METRICS,
    collect_detections,
    detections_to_coco,
    evaluate,
    evaluate_detections,
    rescale_detections,
)
from libra_keras.evaluation.curves import (
    calibration,
    confusion,
    f1_by_threshold,
    precision_recall,
)
from libra_keras.evaluation.errors import errors_by_kind
from libra_keras.evaluation.label_statistics import label_statistics
from libra_keras.evaluation.matches import overlaps
from libra_keras.evaluation.proposal_recall import collect_proposals, proposal_recall
from libra_keras.evaluation.voc_metrics import VOC_METRICS, voc_ap
from libra_keras.registration import register_classes

__all__ = [
    "METRICS",
    "VOC_METRICS",
    "Anchors",
    "COCOEvaluation",
    "ProposalEvaluation",
    "ap_by_crowding",
    "ap_by_size",
    "calibration",
    "coco_numbers",
    "collect_detections",
    "collect_proposals",
    "confusion",
    "detections_to_coco",
    "errors_by_kind",
    "evaluate",
    "evaluate_detections",
    "f1_by_threshold",
    "label_statistics",
    "overlaps",
    "precision_recall",
    "proposal_recall",
    "relabelled",
    "rescale_detections",
    "voc_ap",
]

register_classes()
