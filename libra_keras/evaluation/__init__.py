"""COCO metrics, Pascal VOC's and proposal recall, as functions and as Keras callbacks."""

from libra_keras.evaluation.callbacks import COCOEvaluation, ProposalEvaluation
from libra_keras.evaluation.coco_metrics import (
    METRICS,
    collect_detections,
    detections_to_coco,
    evaluate,
    evaluate_detections,
    rescale_detections,
)
from libra_keras.evaluation.proposal_recall import collect_proposals, proposal_recall
from libra_keras.evaluation.voc_metrics import VOC_METRICS, voc_ap
from libra_keras.registration import register_classes

__all__ = [
    "METRICS",
    "VOC_METRICS",
    "COCOEvaluation",
    "ProposalEvaluation",
    "collect_detections",
    "collect_proposals",
    "detections_to_coco",
    "evaluate",
    "evaluate_detections",
    "proposal_recall",
    "rescale_detections",
    "voc_ap",
]

register_classes()
